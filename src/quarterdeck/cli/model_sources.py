"""What a source on the command line means."""

import re
from pathlib import Path

import click

from quarterdeck.settings.engine import PACKAGED

PACKAGED_NAMES = ("smollm2-135m-instruct", "all-minilm-l6-v2")
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def resolve_source(text: str, *, is_near: bool) -> str:
    """A repository, an absolute folder or a packaged model. `is_near`: the platform is on this machine, so a folder can
    be looked at. Raises ClickException."""
    text = text.removeprefix("hf://").removeprefix("https://huggingface.co/").rstrip("/") or "/"
    if text.startswith(PACKAGED):
        return text
    if text in PACKAGED_NAMES:
        return PACKAGED + text
    if text.startswith(("/", "./", "../", "~")) or text in (".", ".."):
        return folder_source(text, "config.json", is_near=is_near)
    if _REPOSITORY.fullmatch(text):
        if is_near and (Path(text) / "config.json").is_file():
            click.echo(f"{text} is taken as a repository on the hub; ./{text} is the folder here", err=True)
        return text
    if is_near and (Path(text) / "config.json").is_file():
        return folder_source(text, "config.json", is_near=True)
    names = ", ".join(PACKAGED_NAMES)
    raise click.ClickException(
        f"'{text}' is no repository (org/name), no folder (./folder) and no packaged model ({names})"
    )


def folder_source(text: str, file: str, *, is_near: bool) -> str:
    """The absolute path of a folder, which must hold `file`. Raises ClickException."""
    folder = Path(text).expanduser()
    if not is_near:
        if not folder.is_absolute():
            raise click.ClickException(f"'{text}': the platform is elsewhere; give the folder's whole path there")
        return str(folder)
    folder = folder.absolute()
    if not folder.is_dir():
        raise click.ClickException(f"there is no folder {folder}")
    if not (folder / file).is_file():
        raise click.ClickException(f"there is no {file} in {folder}")
    return str(folder)
