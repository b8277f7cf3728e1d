"""A batch's files at the gateway: sent from this machine, and brought to it."""

import os
from pathlib import Path
from typing import Any

import click
import httpx

from quarterdeck.cli.client import json_object

DOWNLOAD_SECONDS = 300.0


def upload(client: httpx.Client, path: Path) -> dict[str, Any]:
    """Store a local file as a batch's input. Raises ClickException."""
    try:
        with path.open("rb") as source:
            form = {"purpose": "batch"}
            response = client.post("/v1/files", data=form, files={"file": (path.name, source, "application/jsonl")})
    except OSError as error:
        raise click.ClickException(f"cannot read {path}: {error.strerror}") from None
    return json_object(response)


def download(client: httpx.Client, file_id: str, path: Path) -> None:
    """Write a file of the gateway to `path`, whole or not at all. Raises ClickException."""
    part = path.with_name(path.name + ".part")
    try:
        with client.stream("GET", f"/v1/files/{file_id}/content", timeout=DOWNLOAD_SECONDS) as response:
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
