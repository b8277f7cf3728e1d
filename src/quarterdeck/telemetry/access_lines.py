"""Access log lines, one per request, for a gateway that serves thousands of requests per second.

With the standard library a line (a log record, a stack inspection, a formatter, a write) costs half as much as its
request. These lines have the format of `telemetry/logging` and are encoded and written in batches.
"""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import BinaryIO

import msgspec

from quarterdeck.telemetry.logging import may_hold_secrets, redact


class AccessLine(msgspec.Struct, kw_only=True, gc=False):
    """The fields of a line, in order."""

    ts: str
    level: str = "info"
    logger: str = "quarterdeck.access"
    message: str
    service: str = "quarterdeck-gateway"
    request_id: str
    method: str
    path: str
    status: int
    error: str | None = None
    """The code of the error that the client was sent, also as the last event of a stream."""
    duration_ms: float
    key: str | None
    client_request_id: str | None


class Timestamps:
    """ISO 8601 in UTC to the millisecond; the part up to the second is cached."""

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
    """Writes lines to `stream` (default: stderr)."""

    def __init__(self, stream: BinaryIO | None = None) -> None:
        self._stream = stream or sys.stderr.buffer
        self._encoder = msgspec.json.Encoder()
        self.lost = 0
        """Lines that could not be written."""

    def write(self, lines: Sequence[AccessLine]) -> None:
        encoded = self._encoder.encode_lines(lines)
        # Secrets are redacted, as in every log line. They can only be in fields that a caller chooses, which repeat in
        # most lines; the rest is four fifths of the text.
        chosen = {(line.method, line.path, line.key, line.client_request_id) for line in lines}
        if may_hold_secrets(self._encoder.encode(chosen).decode()):
            encoded = "\n".join(map(redact, encoded.decode().split("\n"))).encode()
        try:
            self._stream.write(encoded)
            self._stream.flush()
        except OSError:  # a full disk, or a pipe that is closed: requests go on without their lines
            self.lost += len(lines)
