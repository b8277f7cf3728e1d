"""`quarterdeck models pull`: weights without serving them."""

import asyncio
import shutil
import subprocess
import time
from typing import Any

import click

from quarterdeck.cli import target
from quarterdeck.cli.client import admin_client
from quarterdeck.cli.model_progress import Line, progress_line
from quarterdeck.cli.model_sources import resolve_source
from quarterdeck.cli.model_store import ApiModels
from quarterdeck.cli.output import as_json, print_json, printable
from quarterdeck.settings.engine import PACKAGED
from quarterdeck.settings.environment import Environment
from quarterdeck.weights.downloads import Downloads
from quarterdeck.weights.errors import WeightsError
from quarterdeck.weights.local import Weights, hub_cache
from quarterdeck.weights.progress import Progress, size_text

POLL_SECONDS = 0.5
AWAY_SECONDS = 300.0
"""How long an engine may not answer: a restarted one takes a minute on a busy machine."""


@click.command("pull")
@click.argument("source")
@click.option("--revision", help="Branch, tag or commit. [main]")
@click.option("--cancel", "is_cancel", is_flag=True, help="End the download on the platform that --url names.")
@as_json
def pull(source: str, revision: str | None, is_cancel: bool, is_json: bool) -> None:
    """Download a model without serving it.

    An interrupted download is resumed. Files are kept in Hugging Face's cache (HF_HOME). HF_TOKEN opens gated
    repositories, HF_ENDPOINT names another hub.

    With --url, the platform there downloads. Ctrl-C ends the display only; --cancel ends the download.
    """
    is_near = target.current().is_local
    source = resolve_source(source, is_near=is_near)
    if is_cancel:
        _cancel_there(source, revision, is_near=is_near, is_json=is_json)
        return
    if source.startswith(PACKAGED):
        found = _prepare_packaged(source, is_near=is_near)
    elif source.startswith("/"):
        raise click.ClickException(f"{source} is a folder already: `quarterdeck models add {source}` serves it")
    elif is_near:
        found = _pull_here(source, revision, progress_line(is_quiet=is_json), is_quiet=is_json)
    else:
        found = _pull_there(source, revision, progress_line(is_quiet=is_json))
    if is_json:
        print_json(found)
    else:
        click.echo(f"{found['source']}: {size_text(found['size'])}, revision {found['revision']}")
        click.echo(f"in {found['folder']}")


def _pull_here(source: str, revision: str | None, line: Line, *, is_quiet: bool) -> dict[str, Any]:
    environment = Environment.read()
    variables = dict(environment.variables)
    has_size = False

    def on_progress(progress: Progress) -> None:
        nonlocal has_size
        if progress.total and not has_size:
            has_size = True
            if not is_quiet:
                line.end()
                click.echo(_size_line(source, progress, variables), err=True)
        line.update(progress.text(), progress.done / progress.total if progress.total else None)

    async def run() -> Weights:
        return await Downloads(variables, environment.cache).fetch(source, revision, on_progress)

    try:
        weights = asyncio.run(run())
    except WeightsError as error:
        line.end()
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        line.end()
        click.echo("\ninterrupted; the same command resumes it", err=True)
        raise click.Abort from None
    finally:
        line.end()
    return _object(source, weights.revision, weights.size, str(weights.folder))


def _pull_there(source: str, revision: str | None, line: Line) -> dict[str, Any]:
    with admin_client() as client:
        try:
            row = _followed(ApiModels(client, is_near=False), source, revision, line)
        except KeyboardInterrupt:
            line.end()
            click.echo(
                f"\nthe platform continues the download; cancel it with `quarterdeck models pull {source} --cancel`",
                err=True,
            )
            raise click.Abort from None
        finally:
            line.end()
    if row["state"] == "cancelled":
        raise click.ClickException(f"the download of {source} was cancelled; the same command resumes it")
    if row["error"] is not None:
        raise click.ClickException(printable(row["error"]["message"]))
    return _object(source, row["revision"], row["total"], row["folder"])


def _followed(store: ApiModels, source: str, revision: str | None, line: Line) -> dict[str, Any]:
    """Start a download and follow it to its end. An engine that is restarted meanwhile has forgotten it: it is
    resumed."""
    row = store.download(source, revision)
    answered = time.monotonic()
    while row["state"] == "downloading":
        progress = Progress(row["done"], row["total"], row.get("bytes_per_second"))
        line.update(progress.text(), progress.done / progress.total if progress.total else None)
        time.sleep(POLL_SECONDS)
        rows = store.downloads()
        if rows is None:
            if time.monotonic() - answered > AWAY_SECONDS:
                raise click.ClickException("the platform's engine, which downloads, does not answer")
            line.update("the engine does not answer; waiting for it")
            continue
        answered = time.monotonic()
        found = [each for each in rows if (each["source"], each["requested_revision"]) == (source, revision)]
        row = found[-1] if found else store.download(source, revision)
    return row


def _cancel_there(source: str, revision: str | None, *, is_near: bool, is_json: bool) -> None:
    if is_near:
        raise click.UsageError("--cancel is for a platform elsewhere (--url); Ctrl-C ends a download on this machine")
    with admin_client() as client:
        was_running = ApiModels(client, is_near=False).cancel_download(source, revision)
    if is_json:
        print_json({"source": source, "revision": revision, "was_running": was_running})
    elif was_running:
        click.echo(f"cancelled the download of {source}; what it has is kept")
    else:
        raise click.ClickException(f"no download of {source} is running")


def _prepare_packaged(source: str, *, is_near: bool) -> dict[str, Any]:
    """By the engine's environment, which has what converts them."""
    from quarterdeck.cli.up import interpreters

    if not is_near:
        raise click.ClickException("packaged models are prepared when the platform starts them: use `models add`")
    environment = Environment.read()
    name = source.removeprefix(PACKAGED)
    python = interpreters(environment).engine
    if not python.exists():
        raise click.ClickException("packaged models need the engine's environment: `quarterdeck setup engine`")
    argv = [str(python), "-m", "quarterdeck.engine.packaged", name, "--cache", str(environment.cache)]
    done = subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)  # noqa: S603
    if done.returncode:
        raise click.ClickException(printable(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else "failed"))
    folder = environment.cache / "models" / name
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return _object(source, "packaged", size, str(folder))


def _size_line(source: str, progress: Progress, variables: dict[str, str]) -> str:
    folder = hub_cache(variables)
    while not folder.exists():
        folder = folder.parent
    here = f", {size_text(progress.done)} of it here already" if progress.done else ""
    free = size_text(shutil.disk_usage(folder).free)
    return f"{source}: {size_text(progress.total)}{here}; {free} free in {hub_cache(variables)}"


def _object(source: str, revision: str, size: int, folder: str) -> dict[str, Any]:
    return {"object": "weights", "source": source, "revision": revision, "size": size, "folder": folder}
