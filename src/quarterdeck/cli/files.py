"""`quarterdeck files`: files at the gateway."""

from pathlib import Path
from typing import Any

import click

from quarterdeck.cli.client import admin_client, json_object, list_all, url_of
from quarterdeck.cli.output import as_json, local_time, print_json, print_table, say, show
from quarterdeck.cli.stored_files import check_writable, download, upload
from quarterdeck.cli.suggestions import completer
from quarterdeck.settings import durations
from quarterdeck.weights.progress import size_text

PURPOSES = ("user_data", "batch", "assistants", "fine-tune", "vision", "evals")
MADE_HERE = ("batch_output",)
"""Purposes of files that the platform itself makes."""


@click.group("files", short_help="Upload, list, show, download and delete files.")
def command() -> None:
    """Upload, list, show, download and delete files. They belong to the team of the key."""


@command.command("upload")
@click.argument("path", metavar="FILE", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--purpose", type=click.Choice(PURPOSES), default=PURPOSES[0], show_default=True, help="What it is for.")
@click.option("--expires", metavar="TIME", help="Delete it after this time, such as 12h.")
@as_json
def upload_file(path: Path, purpose: str, expires: str | None, is_json: bool) -> None:
    """Send FILE to the gateway."""
    try:
        seconds = None if expires is None else int(durations.parse(expires))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--expires") from None
    with admin_client() as client:
        made = upload(client, path, purpose=purpose, expires_seconds=seconds)
    if is_json:
        print_json(made)
    else:
        click.echo(f"{made['id']} uploaded")


@command.command("list")
@click.option("--purpose", type=click.Choice((*PURPOSES, *MADE_HERE)), help="Those of one purpose.")
@as_json
def list_files(purpose: str | None, is_json: bool) -> None:
    """List files, newest first."""
    with admin_client() as client:
        found = list(list_all(client, "/v1/files", purpose=purpose))
    if is_json:
        print_json({"object": "list", "data": found})
    elif found:
        rows = [
            (each["id"], each["filename"], size_text(each["bytes"]), each["purpose"], local_time(each["created_at"]))
            for each in found
        ]
        print_table(("FILE", "NAME", "SIZE", "PURPOSE", "CREATED"), rows)
    else:
        say("no files", is_note=True)


@command.command("show")
@click.argument("file_id", shell_complete=completer("files"))
@as_json
def show_file(file_id: str, is_json: bool) -> None:
    """Show a file's name, size, purpose and expiry."""
    with admin_client() as client:
        found = json_object(client.get(url_of("/v1/files", file_id)))
    if is_json:
        print_json(found)
    else:
        show(found)


@command.command("download")
@click.argument("file_id", shell_complete=completer("files"))
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Where to. [its name, in this folder]"
)
@click.option("--force", is_flag=True, help="Replace a file that exists.")
@as_json
def download_file(file_id: str, output: Path | None, force: bool, is_json: bool) -> None:
    """Write a file's content to this machine."""
    with admin_client() as client:
        found = json_object(client.get(url_of("/v1/files", file_id)))
        path = output or local_name(found)
        if path.exists() and not force:
            raise click.ClickException(f"{path} exists: give another name with -o, or --force")
        check_writable(path)
        download(client, file_id, path)
    if is_json:
        print_json({**found, "path": str(path)})
    else:
        click.echo(f"{path}: {size_text(found['bytes'])}")


@command.command("delete")
@click.argument("file_id", shell_complete=completer("files"))
@click.option("--yes", is_flag=True, help="Do not ask.")
@as_json
def delete(file_id: str, yes: bool, is_json: bool) -> None:
    """Delete a file and its content."""
    with admin_client() as client:
        if not yes:
            found = json_object(client.get(url_of("/v1/files", file_id)))
            click.confirm(f"Delete {found['filename']} ({size_text(found['bytes'])})?", abort=True, err=True)
        gone = json_object(client.delete(url_of("/v1/files", file_id)))
    if is_json:
        print_json(gone)
    else:
        click.echo(f"{gone['id']} deleted")


def local_name(file: dict[str, Any]) -> Path:
    """The file's own name in this folder. A name that is a path, or hidden, is not taken: others may have chosen it."""
    name = str(file["filename"])
    if not name or not name.isprintable() or name.startswith(".") or Path(name).name != name:
        raise click.ClickException("the file's name can't be used on this machine: give one with -o")
    return Path(name)
