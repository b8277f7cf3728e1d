"""Follows a model until it is ready: on a terminal's last line or, where piped, a line for each change."""

import shutil
import sys
import time
from typing import Any, Protocol

import click

from quarterdeck.cli.model_store import ModelStore
from quarterdeck.cli.output import printable

POLL_SECONDS = 0.5
SETTLE_SECONDS = 3.0
"""How long an engine may take to begin with a change: it looks at the files each second."""
STOP_SECONDS = 900.0
"""The longest that a request may take, by default."""
GRACE_SECONDS = 10.0
"""How long a model may have no state of its own after a change: the engine has to follow it first."""
BAR = 24


class Line(Protocol):
    def update(self, text: str, fraction: float | None = None) -> None: ...

    def end(self) -> None: ...


class LiveLine:
    """One line that is written over, on a terminal."""

    def __init__(self) -> None:
        self._width = 0

    def update(self, text: str, fraction: float | None = None) -> None:
        if fraction is not None:
            done = round(BAR * min(1.0, fraction))
            text = f"[{'#' * done}{'.' * (BAR - done)}] {text}"
        text = printable(text)[: shutil.get_terminal_size().columns - 1]
        click.echo(f"\r{text}{' ' * max(0, self._width - len(text))}", nl=False, err=True)
        self._width = len(text)

    def end(self) -> None:
        if self._width:
            click.echo(f"\r{' ' * self._width}\r", nl=False, err=True)
        self._width = 0


class PlainLines:
    """A line for each change of the words before the first digit: a log is no place for each percent."""

    def __init__(self) -> None:
        self._last = ""

    def update(self, text: str, fraction: float | None = None) -> None:
        kind = text.rstrip("0123456789").split(" ")[0] if fraction is None else f"download {int(fraction * 10)}"
        if kind != self._last:
            self._last = kind
            click.echo(printable(text), err=True)

    def end(self) -> None:
        pass


class NoLines:
    def update(self, text: str, fraction: float | None = None) -> None:
        pass

    def end(self) -> None:
        pass


def progress_line(*, is_quiet: bool = False) -> Line:
    if is_quiet:
        return NoLines()
    return LiveLine() if sys.stderr.isatty() else PlainLines()


def wait_until_stopped(store: ModelStore, name: str, *, is_quiet: bool = False) -> dict[str, Any]:
    """Wait until requests in flight have ended and the engine is gone, for STOP_SECONDS at most."""
    line, until = progress_line(is_quiet=is_quiet), time.monotonic() + STOP_SECONDS
    try:
        while True:
            found = store.retrieve(name)
            if not store.is_running or (not found["replicas"] and found.get("phase") in (None, "stopped")):
                return found
            if time.monotonic() > until:
                raise click.ClickException(f"{name} is still stopping: {printable(state_text(found))}")
            line.update(f"{name}: {state_text(found)}")
            time.sleep(POLL_SECONDS)
    finally:
        line.end()


def follow(store: ModelStore, name: str, *, settle_seconds: float = 0, is_quiet: bool = False) -> dict[str, Any]:
    """Wait until the model serves. `settle_seconds`: of a model that serves already, how long its engine has to begin
    with a change. Raises ClickException with the reason where it can't serve; Ctrl-C leaves it starting."""
    if not store.is_running:
        return store.retrieve(name)
    line, began = progress_line(is_quiet=is_quiet), time.monotonic()
    try:
        while True:
            found = store.retrieve(name)
            state = found.get("phase") or found["state"]
            is_settled = time.monotonic() - began >= settle_seconds
            settle_seconds = 0 if state == "updating" else settle_seconds
            if found["state"] == "ready" and state != "updating" and is_settled:
                line.end()
                if not is_quiet:
                    click.echo(f"{name} is ready after {time.monotonic() - began:.0f} s: quarterdeck chat -m {name}")
                return found
            if found["stopped"]:
                return found
            has_failed = state == "failed" or (state == "unavailable" and time.monotonic() - began > GRACE_SECONDS)
            if has_failed:
                raise click.ClickException(
                    f"{name} does not start: {printable(str(found.get('detail') or 'no reason is known'))}"
                )
            text = "starting" if state == "unavailable" else state_text(found)  # its engine has not seen it yet
            line.update(f"{name}: {text}", found.get("progress"))
            time.sleep(POLL_SECONDS)
    except KeyboardInterrupt:
        line.end()
        click.echo(f"\n{name} goes on starting in the background: quarterdeck models show {name}", err=True)
        raise click.Abort from None
    finally:
        line.end()


def state_text(model: dict[str, Any]) -> str:
    """`loading weights (about 40 s)`: the state in words."""
    detail = model.get("detail") or str(model.get("phase") or model["state"]).replace("_", " ")
    left = model.get("seconds_left")
    return f"{detail} (about {left:.0f} s)" if left and "about" not in detail else str(detail)
