"""What a person sees of `up`: one line a step, with the time since the start.

The children's own output goes to their logs; here stands only what changes what the person can do.
"""

import sys
import time
from collections.abc import Callable
from typing import TextIO


class Terminal:
    """Lines like `[  3.1s] gateway   ready on http://127.0.0.1:8000`."""

    def __init__(self, out: TextIO = sys.stdout, clock: Callable[[], float] = time.monotonic) -> None:
        self._out = out
        self._clock = clock
        self._started = clock()

    @property
    def elapsed(self) -> float:
        return self._clock() - self._started

    def step(self, part: str, text: str) -> None:
        """`part` is who, `text` what. Further lines of `text` are indented below."""
        first, *rest = text.splitlines() or [""]
        self._write([f"[{self.elapsed:6.1f}s] {part:<9} {first}", *(f"{'':11}{line}" for line in rest)])

    def block(self, text: str) -> None:
        """A piece to read and copy from, as it is."""
        self._write(["", *text.splitlines(), ""])

    def _write(self, lines: list[str]) -> None:
        try:
            self._out.write("\n".join(lines) + "\n")
            self._out.flush()
        except (BrokenPipeError, ValueError):
            pass  # nobody reads any more; the platform is not ended by that
