"""`quarterdeck batches`: batches of requests at the gateway."""

from pathlib import Path
from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object, list_all, url_of
from quarterdeck.cli.output import as_json, local_time, print_json, print_table, say, show
from quarterdeck.cli.stored_files import upload
from quarterdeck.cli.suggestions import completer

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses")

endpoint_option = click.option(
    "--endpoint", type=click.Choice(ENDPOINTS), default=ENDPOINTS[0], show_default=True, help="Of all its requests."
)
window_option = click.option(
    "--window", default="24h", show_default=True, help="What is not executed by then expires: 30m, 24h, 7d."
)


@click.group("batches", short_help="Create, list, show and cancel batches of requests.")
def command() -> None:
    """Create, list, show and cancel batches of requests."""


@command.command("create")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@endpoint_option
@window_option
@as_json
def create(path: Path, endpoint: str, window: str, is_json: bool) -> None:
    """Send FILE (JSON lines) and create a batch of it. `quarterdeck batch run` waits for its results as well."""
    with admin_client() as client:
        made = create_batch(client, path, endpoint, window)
    if is_json:
        print_json(made)
    else:
        click.echo(f"{made['id']} created")


@command.command("list")
@as_json
def list_batches(is_json: bool) -> None:
    """List batches, newest first."""
    with admin_client() as client:
        found = list(list_all(client, "/v1/batches"))
    if is_json:
        print_json({"object": "list", "data": found})
    elif found:
        rows = [
            (each["id"], each["status"], progress_text(each), each["model"] or "", local_time(each["created_at"]))
            for each in found
        ]
        print_table(("BATCH", "STATUS", "REQUESTS", "MODEL", "CREATED"), rows)
    else:
        say("no batches", is_note=True)


@command.command("show")
@click.argument("batch_id", shell_complete=completer("batches"))
@as_json
def show_batch(batch_id: str, is_json: bool) -> None:
    """Show a batch: its progress, its files and its errors."""
    with admin_client() as client:
        found = json_object(client.get(url_of("/v1/batches", batch_id)))
    if is_json:
        print_json(found)
        return
    errors = found.pop("errors") or {"data": []}
    show({name: value for name, value in found.items() if value is not None})
    if errors["data"]:
        click.echo()
        rows = [(str(each["line"] or ""), each["code"], each["message"]) for each in errors["data"]]
        print_table(("LINE", "CODE", "ERROR"), rows)


@command.command("cancel")
@click.argument("batch_id", shell_complete=completer("batches"))
@as_json
def cancel(batch_id: str, is_json: bool) -> None:
    """Cancel a batch. What was executed by then is in its files."""
    with admin_client() as client:
        found = json_object(client.post(f"{url_of('/v1/batches', batch_id)}/cancel"))
    if is_json:
        print_json(found)
    else:
        click.echo(f"{found['id']} {found['status']}")


def create_batch(client: Any, path: Path, endpoint: str, window: str) -> dict[str, Any]:
    """Raises ClickException."""
    file = upload(client, path)
    body = {"input_file_id": file["id"], "endpoint": endpoint, "completion_window": window}
    return json_object(client.post("/v1/batches", json=body))


def progress_text(batch: dict[str, Any]) -> str:
    """`812 of 1000, 3 failed`."""
    counts = batch["request_counts"]
    text = f"{counts['completed'] + counts['failed']} of {counts['total']}"
    return f"{text}, {counts['failed']} failed" if counts["failed"] else text
