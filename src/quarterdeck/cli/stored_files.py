"""Files at the gateway: sent from this machine, and brought to it."""

import os
from pathlib import Path
from typing import Any

import click
import httpx

from quarterdeck.cli.client import json_object

TRANSFER_SECONDS = 300.0
"""Between two pieces of a file."""


def upload(
    client: httpx.Client, path: Path, *, purpose: str = "batch", expires_seconds: int | None = None
) -> dict[str, Any]:
    """Store a local file at the gateway. Returns its object. Raises ClickException."""
    form = {"purpose": purpose}
    if expires_seconds is not None:
        form |= {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(expires_seconds)}
    try:
        with path.open("rb") as source:
            content = (path.name, source, "application/octet-stream")
            response = client.post("/v1/files", data=form, files={"file": content}, timeout=TRANSFER_SECONDS)
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    return json_object(response)


def check_writable(path: Path) -> None:
    """Before hours of work whose result is written there. Raises ClickException."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise click.ClickException(f"cannot write {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise click.ClickException(f"cannot write {path}: {folder} is read-only")


def download(client: httpx.Client, file_id: str, path: Path) -> None:
    """Write a file of the gateway to `path`, whole or not at all. Raises ClickException."""
    part = path.with_name(path.name + ".part")
    try:
        with client.stream("GET", f"/v1/files/{file_id}/content", timeout=TRANSFER_SECONDS) as response:
            if response.is_error:
                json_object(response)
            with part.open("wb") as target:
                for piece in response.iter_bytes():
                    target.write(piece)
        os.replace(part, path)
    except OSError as error:
        raise click.ClickException(f"cannot write {path}: {error.strerror}") from None
    finally:
        part.unlink(missing_ok=True)
