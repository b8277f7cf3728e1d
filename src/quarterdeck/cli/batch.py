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

POLL_SECONDS = 1.0
ENDED = ("completed", "failed", "expired", "cancelled")


@click.group("batch", short_help="Execute a file of requests and write its results.")
def command() -> None:
    """Execute a file of requests and write its results."""


@command.command("run")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="[FILE with .output.jsonl]")
@endpoint_option
@window_option
@as_json
def run(path: Path, output: Path | None, endpoint: str, window: str, is_json: bool) -> None:
    """Execute the requests of FILE (JSON lines), follow them, and write their results.

    Failed requests are written to a file of their own. Ctrl-C cancels the batch and writes what was done by then; a
    second Ctrl-C leaves it. The exit code is 1 where not all requests were completed.
    """
    output = output or path.with_suffix(".output.jsonl")
    check_writable(output)
    errors = output.with_name(output.stem.removesuffix(".output") + ".errors.jsonl")
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
    if is_json:
        print_json({**batch, "written": written})
    else:
        click.echo(f"{batch['id']} {batch['status']}: {progress_text(batch)}")
        for target_path in written.values():
            click.echo(f"  {target_path}")
        for each in (batch["errors"] or {"data": []})["data"]:
            where = f"line {each['line']}: " if each["line"] else ""
            click.echo(printable(f"  {where}{each['message']}"), err=True)
    counts = batch["request_counts"]
    if batch["status"] != "completed" or counts["failed"]:
        raise SystemExit(1)


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
