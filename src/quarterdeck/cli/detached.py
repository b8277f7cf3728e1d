"""`up -d`: the platform in the background, and its options for `restart`.

`up` runs in a session of its own and writes to `<state>/logs/up.log`. Once the platform can be used it sends the text
for the user through a pipe: it has the key, which must not be in a log.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from quarterdeck.cli import state
from quarterdeck.cli.managed_process import open_private

POLL_SECONDS = 0.2
OPTIONS_FILE = "up.json"
INTERRUPTED = 130


def start(arguments: Sequence[str], folder: Path) -> int:
    """Start `up` with these options in the background. Shows its steps until it can be used, or has ended. Returns the
    exit status. Raises StateError."""
    for text in state.prepare(folder):
        click.echo(text, err=True)
    log = folder / "logs" / "up.log"
    reader, writer = os.pipe()
    with open_private(log, "wb") as out:
        process = subprocess.Popen(  # noqa: S603  # this program
            [sys.executable, "-m", "quarterdeck.cli", "up", *arguments, "--ready-fd", str(writer)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
            pass_fds=(writer,),
        )
    os.close(writer)
    try:
        text = _followed(reader, log)
    except KeyboardInterrupt:
        click.echo("\nstopping", err=True)
        process.terminate()
        process.wait()
        return INTERRUPTED
    finally:
        os.close(reader)
    if text:
        click.echo(f"\n{text}\n")
        return 0
    return process.wait() or 1


def _followed(reader: int, log: Path) -> str:
    """Print the lines of the log until the pipe's writer has closed it. Returns what it wrote."""
    shown, pieces = 0, b""
    while True:
        is_readable = bool(select.select([reader], [], [], POLL_SECONDS)[0])
        piece = os.read(reader, 65_536) if is_readable else None
        with log.open("rb") as file:
            file.seek(shown)
            fresh = file.read()
        shown += len(fresh)
        click.echo(fresh.decode("utf-8", errors="replace"), nl=False)
        if piece == b"":
            return pieces.decode()
        pieces += piece or b""


def tell(descriptor: int, text: str) -> None:
    """Send the text to the process that waits for it, once. It may have been interrupted."""
    try:
        os.write(descriptor, text.encode())
        os.close(descriptor)
    except OSError:
        return


def keep_options(arguments: Sequence[str], folder: Path) -> None:
    """Remember the options of `up` for `restart`."""
    (folder / OPTIONS_FILE).write_text(json.dumps(list(arguments)), encoding="utf-8")


def kept_options(folder: Path) -> list[str]:
    """The options of the last `up`. Raises ClickException where there was none."""
    try:
        return [str(word) for word in json.loads((folder / OPTIONS_FILE).read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        raise click.ClickException(f"`quarterdeck up` has not run on {folder} yet: start it once") from None
