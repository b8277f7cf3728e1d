"""`quarterdeck logs`: the log files of the platform on this machine, by part or by model."""

import json
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from quarterdeck.cli.managed_process import last_lines
from quarterdeck.cli.output import printable
from quarterdeck.cli.safe_output import safe
from quarterdeck.settings.environment import Environment

POLL_SECONDS = 0.2
LEVEL_COLORS = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}
_SHOWN_APART = ("ts", "level", "logger", "message", "service")


@click.command("logs", short_help="Show the logs of the platform on this machine.")
@click.argument("part", required=False, shell_complete=lambda ctx, param, text: _complete(text))
@click.option("-f", "--follow", is_flag=True, help="Print new lines until Ctrl-C.")
@click.option("-n", "--lines", type=click.IntRange(0), default=20, show_default=True, help="Last lines of each log.")
@click.option("--raw", is_flag=True, help="Print lines as they are in the file, also on a terminal.")
def command(part: str | None, follow: bool, lines: int, raw: bool) -> None:
    """Show the last lines of PART's log: gateway, worker, engine, redis, or a model. Without PART: of all parts.

    On a terminal, JSON lines are shown as text.
    """
    try:
        folder = Environment.read().state / "logs"
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    found = log_files(folder)
    if part is not None and part not in found:
        known = ", ".join(found) or f"none in {folder}"
        raise click.ClickException(f"no log of '{printable(part)}' (there are: {known})")
    if not found:
        raise click.ClickException(f"no logs in {folder}: start the platform with `quarterdeck up`")
    chosen = {part: found[part]} if part is not None else found
    printer = _Printer(max(map(len, chosen)) if part is None else 0, is_text=sys.stdout.isatty() and not raw)
    ends = {name: _size(file) for name, file in chosen.items()}
    for name, file in chosen.items():
        for line in last_lines(file, lines).splitlines() if lines and ends[name] else ():
            printer.echo(name, line)
    if follow:
        try:
            for name, line in follow_files(chosen, ends):
                printer.echo(name, line)
        except KeyboardInterrupt:
            click.echo(err=True)


def log_files(folder: Path) -> dict[str, Path]:
    """The logs by part, then by model."""
    parts = {file.stem: file for file in sorted(folder.glob("*.log"))}
    return parts | {file.stem: file for file in sorted(folder.glob("models/*.log")) if file.stem not in parts}


def follow_files(files: dict[str, Path], ends: dict[str, int]) -> Iterator[tuple[str, str]]:
    """New whole lines of the files, from `ends` (bytes) on. A file that shrinks was rotated: it is read from its
    beginning."""
    ends, rest = dict(ends), dict.fromkeys(files, b"")
    while True:
        for name, file in files.items():
            size = _size(file)
            if size < ends[name]:
                ends[name], rest[name] = 0, b""
            if size == ends[name]:
                continue
            with file.open("rb") as log:
                log.seek(ends[name])
                piece = log.read(2**20)
            ends[name] += len(piece)
            *whole, rest[name] = (rest[name] + piece).split(b"\n")
            for line in whole:
                yield name, line.decode("utf-8", errors="replace")
        sys.stdout.flush()
        time.sleep(POLL_SECONDS)


def line_text(line: str) -> str:
    """A JSON line as text: time, level, message and the other members; any other line as it is."""
    try:
        data = json.loads(line) if line.startswith("{") else None
    except ValueError:
        data = None
    if not isinstance(data, dict):
        return printable(line, keep="\t")
    level = str(data.get("level", "")).upper()
    message = str(data.get("message", ""))
    others = " ".join(f"{name}={_value(value)}" for name, value in data.items() if name not in _SHOWN_APART)
    words = [
        _time(data),
        click.style(printable(level).ljust(7), fg=LEVEL_COLORS.get(level)),
        printable(message, keep="\n\t"),
    ]
    return " ".join([*words, click.style(printable(others), dim=True)] if others else words)


def _time(data: dict[str, Any]) -> str:
    try:
        return datetime.fromisoformat(str(data.get("ts"))).astimezone().strftime("%H:%M:%S")
    except ValueError:
        return printable(str(data.get("ts", "")))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


class _Printer:
    """Prints lines with their part in front where there are several."""

    def __init__(self, width: int, *, is_text: bool) -> None:
        self._width = width
        self._is_text = is_text

    def echo(self, name: str, line: str) -> None:
        front = click.style(f"{name.ljust(self._width)} | ", fg="cyan") if self._width else ""
        click.echo(front + (line_text(line) if self._is_text else safe(line)))


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _complete(text: str) -> list[str]:
    try:
        return [name for name in log_files(Environment.read().state / "logs") if name.startswith(text)]
    except ValueError:
        return []
