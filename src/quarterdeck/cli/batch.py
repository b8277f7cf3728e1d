"""`quarterdeck batch run`: a local file of requests, executed and its results written beside it."""

import time
from pathlib import Path
from typing import Any

import click
import httpx

from quarterdeck.cli.batches import create_batch, endpoint_option, progress_text, window_option
from quarterdeck.cli.client import admin_client, json_object
from quarterdeck.cli.model_progress import progress_line
from quarterdeck.cli.output import as_json, print_json, printable
from quarterdeck.cli.stored_files import check_writable, download
from quarterdeck.settings.environment import Environment

POLL_SECONDS = 1.0
ENDED = ("completed", "failed", "expired", "cancelled")


@click.group("batch", short_help="Execute a file of requests and write its results.")
def command() -> None:
    """Execute a file of requests and write its results."""


@command.command("run")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to. [FILE with .output.jsonl]"
)
@endpoint_option
@window_option
@click.option("--ray", "is_on_ray", is_flag=True, help="By engines of its own on Ray, without the gateway.")
@click.option(
    "--ray-address", metavar="ADDRESS", help="With --ray: a cluster to join, such as auto. [a Ray of its own]"
)
@click.option("--replicas", type=click.IntRange(min=1), help="With --ray: engines. [as many as there are GPUs for]")
@click.option("--engine", type=click.Choice(("vllm", "sim")), default="vllm", show_default=True, help="With --ray.")
@click.option(
    "--sim", "simulated", metavar="NAME=VALUE", multiple=True, help="Option of the simulated engine, as of up."
)
@as_json
def run(
    path: Path,
    output: Path | None,
    endpoint: str,
    window: str,
    is_on_ray: bool,
    ray_address: str | None,
    replicas: int | None,
    engine: str,
    simulated: tuple[str, ...],
    is_json: bool,
) -> None:
    """Execute the requests of FILE (JSON lines), follow them, and write their results.

    Failed requests are written to a file of their own. Ctrl-C cancels the batch and writes what was done by then; a
    second Ctrl-C leaves it. The exit code is 1 where not all requests were completed.

    With --ray the requests pass no gateway: the engines of their model are started on Ray, no key, limit or budget
    applies, and the ledger has no record of them. A run that was interrupted goes on where it was.
    """
    output = output or path.with_suffix(".output.jsonl")
    check_writable(output)
    errors = output.with_name(output.stem.removesuffix(".output") + ".errors.jsonl")
    for target in (output, errors):
        if target.exists() and target.samefile(path):
            raise click.ClickException(f"{target} is the input, and results would replace it: choose another --output")
    began = time.monotonic()
    if is_on_ray:
        from quarterdeck.cli.batch_ray import RayOptions, run_on_ray  # it imports what `up` needs, for a second

        options = RayOptions(engine, ray_address, replicas, simulated)
        batch = run_on_ray(path, output, errors, endpoint, options, progress_line(), Environment.read())
    else:
        batch = _run_at_gateway(path, output, errors, endpoint, window)
        batch |= _throughput(batch, time.monotonic() - began)
    if is_json:
        print_json(batch)
    else:
        _show(batch)
    counts = batch["request_counts"]
    if batch["status"] != "completed" or counts["failed"]:
        raise SystemExit(1)


def _run_at_gateway(path: Path, output: Path, errors: Path, endpoint: str, window: str) -> dict[str, Any]:
    """Returns the batch, and the files that were `written`."""
    with admin_client() as client:
        batch = create_batch(client, path, endpoint, window)
        try:
            batch = follow(client, batch)
        except KeyboardInterrupt:
            click.echo(f"cancelling {batch['id']}; Ctrl-C again leaves it", err=True)
            client.post(f"/v1/batches/{batch['id']}/cancel")
            batch = follow(client, batch)
        written = {}
        for name, target in (("output_file_id", output), ("error_file_id", errors)):
            if batch[name] is not None:
                download(client, batch[name], target)
                written[name] = str(target)
    return {**batch, "written": written}


def _throughput(batch: dict[str, Any], seconds: float) -> dict[str, float]:
    """Of a batch at the gateway, from the file's upload to the results' download."""
    counts, tokens = batch["request_counts"], (batch.get("usage") or {}).get("output_tokens", 0)
    return {
        "seconds": round(seconds, 3),
        "requests_per_second": round((counts["completed"] + counts["failed"]) / seconds, 2),
        "output_tokens_per_second": round(tokens / seconds, 1),
    }


def _show(batch: dict[str, Any]) -> None:
    click.echo(f"{batch['id'] or 'run'} {batch['status']}: {progress_text(batch)}")
    for target in batch["written"].values():
        click.echo(f"  {target}")
    if text := throughput_text(batch):
        click.echo(f"  {text}")
    for each in (batch["errors"] or {"data": []})["data"]:
        where = f"line {each['line']}: " if each["line"] else ""
        click.echo(printable(f"  {where}{each['message']}"), err=True)


def throughput_text(batch: dict[str, Any]) -> str:
    """`28.4 s, 12.0 s of it to start; 61.0 requests/s, 1,024 output tokens/s`. Empty: none executed."""
    if not batch.get("requests_per_second"):
        return ""
    start = batch.get("start_seconds", 0.0)
    started = f", {start:.1f} s of it to start" if start else ""
    tokens = batch["output_tokens_per_second"]
    tokens_text = f", {tokens:,.0f} output tokens/s" if tokens else ""
    return f"{batch['seconds']:.1f} s{started}; {batch['requests_per_second']:.1f} requests/s{tokens_text}"


def follow(client: httpx.Client, batch: dict[str, Any]) -> dict[str, Any]:
    """Wait until a batch has ended, with a line of its progress. A gateway that is away for a while is waited for."""
    line, began, first = progress_line(), time.monotonic(), 0
    try:
        while batch["status"] not in ENDED:
            time.sleep(POLL_SECONDS)
            try:
                batch = json_object(client.get(f"/v1/batches/{batch['id']}"))
            except httpx.TransportError:
                line.update(f"{batch['id']}: the gateway can't be reached")
                continue
            counts = batch["request_counts"]
            done, total = counts["completed"] + counts["failed"], counts["total"]
            if not first and done:
                began, first = time.monotonic(), done
            rate = (done - first) / max(time.monotonic() - began, 1e-9)
            left = f", {rate:.0f}/s" if rate >= 1 else ""
            line.update(f"{batch['status']}: {progress_text(batch)}{left}", done / total if total else None)
        return batch
    finally:
        line.end()
