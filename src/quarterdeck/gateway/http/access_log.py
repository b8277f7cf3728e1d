"""What is said of every request, whoever served it: a log line, a count, a request id.

Requests that are over are only noted. Their lines are made and written together: at most FLUSH_SECONDS later, which is
what a crash may lose of them. They are counted then, too, or when somebody reads the counter before.
"""

import asyncio
import re
import time
from collections.abc import Callable, Sequence

import msgspec

from quarterdeck import ids
from quarterdeck.telemetry.access_lines import AccessLine, Timestamps
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.logging import request_id as current_request_id

MAX_CLIENT_ID = 128
MAX_PATH = 256

FLUSH_SECONDS = 0.05
FLUSH_EXCHANGES = 128
"""Some 48 KB of lines, made in less than half a millisecond: nobody else has a turn meanwhile."""

PROBED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked each second by machines: not worth a line."""

_UNPRINTABLE = re.compile(rb"[^\x21-\x7e]")
_VERSION = (b"openai-version", b"2020-10-01")


class Exchange(msgspec.Struct, eq=False, gc=False):
    """One HTTP request and what became of it."""

    method: str
    path: str
    request_id: str
    """Ours, not the caller's: it names the record, so it must be unique and nobody's to choose."""
    client_request_id: str | None = None
    """What the caller calls it, logged beside ours."""
    route: str = "unmatched"
    """The route's template: bounded, so that it can be a label."""
    key: str | None = None
    """The key's id."""
    status: int = 0
    started: float = msgspec.field(default_factory=time.time)
    opened: int = msgspec.field(default_factory=time.perf_counter_ns)
    closed: int = 0
    """In nanoseconds of `perf_counter`, as `opened` is: a duration must not follow the wall clock's corrections."""

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Those of every answer, as OpenAI's."""
        return [
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", b"%d" % ((time.perf_counter_ns() - self.opened) // 1_000_000)),
            _VERSION,
        ]


class AccessLog:
    """Opens and closes exchanges. `write` takes their lines; None: nobody reads them."""

    def __init__(self, metrics: GatewayMetrics, write: Callable[[Sequence[AccessLine]], None] | None = None) -> None:
        self._http_requests = metrics.http_requests
        self._write = write
        self._timestamps = Timestamps()
        self._next_id = ids.RequestIds().next
        self._over: list[Exchange] = []
        self._counted = 0
        """So many of them are in the counter."""
        self._timer: asyncio.TimerHandle | None = None
        metrics.before_reading(self._count)

    def open(self, method: str, path: str, route: str = "unmatched") -> Exchange:
        """A request came in. Every log line of this task says its id from now on."""
        request_id = self._next_id()
        current_request_id.set(request_id)
        return Exchange(method, path, request_id, None, route)

    def close(self, exchange: Exchange) -> None:
        """Its answer is out, or nobody is there to take it."""
        exchange.closed = time.perf_counter_ns()
        self._over.append(exchange)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(FLUSH_SECONDS, self.flush)
        elif len(self._over) >= FLUSH_EXCHANGES:
            self.flush()

    def flush(self) -> None:
        """Count those that are over, and write their lines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._count()
        over, self._over, self._counted = self._over, [], 0
        if self._write is not None and (lines := self._lines(over)):
            self._write(lines)

    def _count(self) -> None:
        new = self._over[self._counted :]
        self._counted += len(new)
        self._http_requests.add_each([(exchange.route, str(exchange.status)) for exchange in new])

    def _lines(self, over: list[Exchange]) -> list[AccessLine]:
        wall = time.time_ns() - time.perf_counter_ns()
        return [
            AccessLine(
                ts=self._timestamps.of((wall + exchange.closed) / 1e9),
                message=f"{exchange.method} {exchange.path[:MAX_PATH]} {exchange.status}",
                request_id=exchange.request_id,
                method=exchange.method,
                path=exchange.path[:MAX_PATH],
                status=exchange.status,
                duration_ms=(exchange.closed - exchange.opened) // 1000 / 1000,
                key=exchange.key,
                client_request_id=exchange.client_request_id,
            )
            for exchange in over
            if exchange.route not in PROBED
        ]


def printable(value: bytes) -> str:
    """A caller's id, fit for a log."""
    return _UNPRINTABLE.sub(b"", value[: 4 * MAX_CLIENT_ID])[:MAX_CLIENT_ID].decode("ascii")
