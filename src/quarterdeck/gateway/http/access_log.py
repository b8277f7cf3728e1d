"""A log line, a count and a request id for every request, on whichever path it is served.

Requests that ended are collected. Their lines are made and written together, at most FLUSH_SECONDS later: that much is
lost in a crash. They are counted then, or earlier when the counter is read.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence
from urllib.parse import quote

import msgspec

from quarterdeck import ids
from quarterdeck.telemetry.access_lines import AccessLine, Timestamps
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.logging import request_id as current_request_id

MAX_CLIENT_ID = 128
MAX_PATH = 256

FLUSH_SECONDS = 0.05
FLUSH_RECORDS = 128
"""Some 48 KB of lines, made in less than half a millisecond, during which the event loop is blocked."""

PROBED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Polled every second: not worth a line."""

ASKED = "/demand"
"""Asked every second by the operator; who asks without its token gets a line."""

CLIENT_DISCONNECTED = "client_disconnected"
"""The error of a request whose client did not wait for the answer, or for its end."""

_UNPRINTABLE = re.compile(rb"[^\x21-\x7e]")
_VERSION = (b"openai-version", b"2020-10-01")


class AccessRecord(msgspec.Struct, eq=False, gc=False):
    """One HTTP request and its outcome."""

    method: str
    path: str
    request_id: str
    """Made here, never the client's: it names the ledger's record, so it must be unique."""
    client_request_id: str | None = None
    """The client's own id, logged beside ours."""
    route: str = "unmatched"
    """The route's template: few values, so that it can be a label."""
    key: str | None = None
    """The key's id."""
    status: int = 0
    error: str | None = None
    """The code of the error that the client was sent. `client_disconnected`: it did not wait for the answer."""
    cross_origin: Sequence[tuple[bytes, bytes]] = ()
    """Headers for a browser's page of another origin (`cors`)."""
    started: float = msgspec.field(default_factory=time.time)
    opened: int = msgspec.field(default_factory=time.perf_counter_ns)
    closed: int = 0
    """Nanoseconds of `perf_counter`, as `opened`: a duration must not follow corrections of the wall clock."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers of every response, named as OpenAI's."""
        return [
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", b"%d" % ((time.perf_counter_ns() - self.opened) // 1_000_000)),
            _VERSION,
            *self.cross_origin,
        ]


class AccessLog:
    """Opens and closes records. `write` is called with their lines; None: no lines are made."""

    def __init__(
        self,
        metrics: GatewayMetrics,
        write: Callable[[Sequence[AccessLine]], None] | None = None,
        *,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        self._http_requests = metrics.http_requests
        self._write = write
        self._flush_seconds = flush_seconds
        self._timestamps = Timestamps()
        self._next_id = ids.RequestIds().next
        self._closed: list[AccessRecord] = []
        self._counted = 0
        """Number of closed records that the counter includes."""
        self._timer: asyncio.TimerHandle | None = None
        metrics.before_reading(self._count)

    def open(self, method: str, path: str, route: str = "unmatched") -> AccessRecord:
        """A request arrived. From here on, log lines of the current task carry its id."""
        request_id = self._next_id()
        current_request_id.set(request_id)
        return AccessRecord(method, path, request_id, None, route)

    def close(self, record: AccessRecord) -> None:
        """Its response is written, or its client is gone."""
        record.closed = time.perf_counter_ns()
        self._closed.append(record)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._flush_seconds, self.flush)
        elif len(self._closed) >= FLUSH_RECORDS:
            self.flush()

    def flush(self) -> None:
        """Count the closed records and write their lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._count()
        closed, self._closed, self._counted = self._closed, [], 0
        if self._write is not None and (lines := self._lines(closed)):
            self._write(lines)

    def _count(self) -> None:
        new = self._closed[self._counted :]
        self._counted += len(new)
        self._http_requests.add_each([(record.route, str(record.status)) for record in new])

    def _lines(self, closed: list[AccessRecord]) -> list[AccessLine]:
        wall = time.time_ns() - time.perf_counter_ns()
        return [
            AccessLine(
                ts=self._timestamps.of((wall + record.closed) / 1e9),
                message=f"{record.method} {(path := _visible(record.path[:MAX_PATH]))} {record.status}",
                request_id=record.request_id,
                method=record.method,
                path=path,
                status=record.status,
                error=record.error,
                duration_ms=(record.closed - record.opened) // 1000 / 1000,
                key=record.key,
                client_request_id=record.client_request_id,
            )
            for record in closed
            if record.route not in PROBED and not (record.route == ASKED and record.status == 200)
        ]


def _visible(path: str) -> str:
    """JSON leaves C1 controls and marks that hide or reorder text as they are, which a terminal obeys: they are shown
    as they were sent, percent-encoded."""
    return path if path.isprintable() else "".join(each if each.isprintable() else quote(each) for each in path)


def printable(value: bytes) -> str:
    """A client's id, safe for a log: printable ASCII, at most MAX_CLIENT_ID characters."""
    return _UNPRINTABLE.sub(b"", value[: 4 * MAX_CLIENT_ID])[:MAX_CLIENT_ID].decode("ascii")
