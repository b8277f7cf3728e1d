"""Terminal output of `up`: one line per step, with the time since the start.

The processes' own output goes to their logs.
"""

import sys
import time
from collections.abc import Callable
from typing import TextIO


class Terminal:
    """Prints lines such as `[  3.1s] gateway   up (pid 4711)`."""

    def __init__(self, out: TextIO = sys.stdout, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._started = clock()

    @property
    def elapsed(self) -> float:
        return self._clock() - self._started

    def step(self, part: str, text: str) -> None:
        """Print a step of a part of the platform. Further lines of `text` are indented."""
        first, *rest = text.splitlines() or [""]
        self._write([f"[{self.elapsed:6.1f}s] {part:<9} {first}", *(f"{'':11}{line}" for line in rest)])

    def block(self, text: str) -> None:
        """Print a block of text unchanged."""
        self._write(["", *text.splitlines(), ""])

    def started(self) -> None:
        """Gateway and worker serve. Notifies the service manager."""

    def stopping(self) -> None:
        """The platform begins to stop."""

    def _write(self, lines: list[str]) -> None:
        try:
            self._out.write("\n".join(lines) + "\n")
            self._out.flush()
        except (BrokenPipeError, ValueError):
            pass  # the reader has closed the pipe; the platform keeps running
