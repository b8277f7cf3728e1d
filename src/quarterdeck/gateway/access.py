"""What is said of every request, whoever served it: a log line, a count, a request id."""

import re
import time
from collections.abc import Callable

import msgspec

from quarterdeck import ids
from quarterdeck.telemetry.access_lines import AccessLine, Timestamps
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics
from quarterdeck.telemetry.logging import request_id as current_request_id

CLIENT_CLOSED_REQUEST = 499
"""nginx's word for a caller who hung up before there was an answer. Nobody is sent it."""
MAX_CLIENT_ID = 128
MAX_PATH = 256

PROBED = frozenset({"/healthz", "/readyz", "/metrics"})
"""Asked each second by machines: not worth a line."""

_UNPRINTABLE = re.compile(rb"[^\x21-\x7e]")
_VERSION = (b"openai-version", b"2020-10-01")


class Exchange(msgspec.Struct, eq=False):
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
    _clock: float = msgspec.field(default_factory=time.perf_counter)

    @property
    def milliseconds(self) -> float:
        return (time.perf_counter() - self._clock) * 1000

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Those of every answer, as OpenAI's."""
        return [
            (b"x-request-id", self.request_id.encode()),
            (b"openai-processing-ms", b"%d" % self.milliseconds),
            _VERSION,
        ]


class AccessLog:
    """Opens and closes exchanges. `write` takes each one's line; None: nobody reads them."""

    def __init__(self, metrics: GatewayMetrics, write: Callable[[AccessLine], None] | None = None) -> None:
        self._metrics = metrics
        self._write = write
        self._timestamps = Timestamps()
        self._ids = ids.RequestIds()

    def open(self, method: str, path: str, route: str = "unmatched") -> Exchange:
        """A request came in. Every log line of this task says its id from now on."""
        exchange = Exchange(method, path, self._ids.next(), route=route)
        current_request_id.set(exchange.request_id)
        return exchange

    def close(self, exchange: Exchange) -> None:
        """Its answer is out, or nobody is there to take it."""
        self._metrics.http_requests.add((exchange.route, str(exchange.status)))
        if self._write is None or exchange.route in PROBED:
            return
        path = exchange.path[:MAX_PATH]
        self._write(
            AccessLine(
                ts=self._timestamps.of(time.time()),
                message=f"{exchange.method} {path} {exchange.status}",
                request_id=exchange.request_id,
                method=exchange.method,
                path=path,
                status=exchange.status,
                duration_ms=round(exchange.milliseconds, 3),
                key=exchange.key,
                client_request_id=exchange.client_request_id,
            )
        )


def printable(value: bytes) -> str:
    """A caller's id, fit for a log."""
    return _UNPRINTABLE.sub(b"", value[: 4 * MAX_CLIENT_ID])[:MAX_CLIENT_ID].decode("ascii")
