"""A log line a request, for a gateway that serves thousands a second.

The standard library's way to such a line (a record, a look up the stack, a formatter, a write each) costs half of what
the request itself costs. These are the same lines, of the same form as `logging`'s, encoded in one go and written
together: at most FLUSH_SECONDS later, which is what a crash may lose of them.
"""

import asyncio
import sys
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from quarterdeck.telemetry.logging import redact

FLUSH_SECONDS = 0.05
FLUSH_BYTES = 64 * 1024


class AccessLine(msgspec.Struct, kw_only=True):
    """The fields in the order in which they stand in the line."""

    ts: str
    level: str = "info"
    logger: str = "quarterdeck.access"
    message: str
    service: str = "quarterdeck-gateway"
    request_id: str
    method: str
    path: str
    status: int
    duration_ms: float
    key: str | None
    client_request_id: str | None


class Timestamps:
    """ISO 8601 in UTC to the millisecond; the second's text is made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def of(self, seconds: float) -> str:
        whole = int(seconds)
        if whole != self._second:
            self._second = whole
            self._text = datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
        return f"{self._text}.{int((seconds - whole) * 1000):03d}+00:00"


class LineWriter:
    """Gathers lines and writes them to `stream` (stderr). Made and used inside the event loop's thread."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream or sys.stderr.buffer
        self._encode = msgspec.json.Encoder().encode
        self._lines: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None

    def write(self, line: AccessLine) -> None:
        encoded = self._encode(line)
        # A caller chooses its own id, and a path: whatever looks like a secret in them is hidden, as in every log line.
        plain = encoded.decode()
        redacted = redact(plain)
        if redacted is not plain:
            encoded = redacted.encode()
        self._lines.append(encoded)
        self._size += len(encoded)
        if self._size >= FLUSH_BYTES:
            self.flush()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)

    def flush(self) -> None:
        """Write what is there."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._lines:
            lines, self._lines, self._size = self._lines, [], 0
            self._stream.write(b"\n".join(lines) + b"\n")
            self._stream.flush()
