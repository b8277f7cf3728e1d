"""What one rendering may use: work and output are counted while the template runs, and past a bound it ends.

A step is one node of the template that is evaluated in a loop, or 64 bytes that a filter, a comparison or the output
reads. A step takes well under a microsecond, so the event loop is held for tens of milliseconds at most.
"""

from quarterdeck.templating.errors import RenderError

MAX_STEPS = 100_000
MAX_BYTES = 1024 * 1024
"""Of all messages of a prompt together, in UTF-8."""
BYTES_A_STEP = 64


class Allowance:
    """Counts down. One is shared by all messages of a prompt."""

    __slots__ = ("_max_bytes", "_max_steps", "bytes_left", "steps_left")

    def __init__(self, max_steps: int = MAX_STEPS, max_bytes: int = MAX_BYTES) -> None:
        self._max_steps = self.steps_left = max_steps
        self._max_bytes = self.bytes_left = max_bytes

    def work(self, steps: int) -> None:
        """Raises RenderError."""
        self.steps_left -= steps
        if self.steps_left < 0:
            raise RenderError(f"the template takes more than {self._max_steps} steps")

    def read(self, size: int) -> None:
        """Text of this length is read. Raises RenderError."""
        self.work(1 + size // BYTES_A_STEP)

    def check_size(self, size: int) -> None:
        """Text of this length is about to be made. Raises RenderError where no output could hold it."""
        self.read(size)
        if size > self._max_bytes:
            raise self._too_large()

    def write(self, text: str) -> None:
        """A piece of the output. Raises RenderError."""
        self.bytes_left -= len(text) if text.isascii() else len(text.encode())
        if self.bytes_left < 0:
            raise self._too_large()

    def _too_large(self) -> RenderError:
        return RenderError(f"the rendered prompt is larger than {self._max_bytes} bytes")
