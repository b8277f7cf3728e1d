"""Sends a share of a route's requests to another model as well, and drops the answers: how a new model bears real
traffic, before anybody depends on it.

A mirrored request is one of its own: own id, own trace, own record, of the key, team and tag `mirror`. So it is in the
ledger with what it cost, and on nobody's limits or budget: it asks for no admission and is settled in no scope.
"""

import asyncio
import time
from collections.abc import Callable

from quarterdeck import ids
from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError, EngineError
from quarterdeck.inference.call import Head
from quarterdeck.inference.endpoints.circuit_breaker import report_failure, report_success
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.metering.meter import Meter, error_code
from quarterdeck.inference.metering.token_counting import estimate_what_was_received
from quarterdeck.inference.preparation import for_endpoint
from quarterdeck.inference.routing.directory import Route, ServedModel
from quarterdeck.inference.routing.router import Router
from quarterdeck.inference.streaming.relay import Relay
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol.requests import AnyRequest
from quarterdeck.record import MIRROR, Attempt, RequestRecord, Status
from quarterdeck.settings.limits import Limits

AT_ONCE = 32
"""Mirrored requests under way in one gateway. Past it none is sent: a slow copy must not pile up bodies."""


class Mirror:
    """Asked once for each request of a route that has a mirror."""

    def __init__(
        self,
        router: Router,
        engines: EngineClient,
        settlement: Settlement,
        spawn: Spawn,
        on_record: Callable[[RequestRecord], None] = lambda record: None,
    ) -> None:
        self.under_way = 0
        self._router = router
        self._engines = engines
        self._settlement = settlement
        self._spawn = spawn
        self._on_record = on_record
        self._ids = ids.RequestIds()

    def consider(self, head: Head, route: Route, request: AnyRequest, body: bytes, tokens: int) -> None:
        """Send it, if the dice say so and there is room; returns at once. `body` as it goes to the route's target."""
        if route.mirror is None or self.under_way >= AT_ONCE:
            return
        served, share = route.mirror
        if self._router.random() >= share:
            return
        self.under_way += 1
        copy = Head(self._ids.next(), head.operation, _nobody(head.principal.org), time.time(), head.headers)
        meter = Meter(copy, served, request)
        meter.route = route.name
        self._spawn(self._send(meter, served, body, tokens, route.total_seconds))

    async def _send(self, meter: Meter, served: ServedModel, body: bytes, tokens: int, seconds: float) -> None:
        try:
            loop = asyncio.get_running_loop()
            endpoint = self._router.choose(served, served.routing, tokens, None, loop.time(), ())
            if endpoint is None:
                return
            meter.endpoint = endpoint
            meter.engine_started = time.time()
            endpoint.begin(tokens)
            try:
                await self._ask(meter, for_endpoint(body, endpoint, served.name), loop.time() + seconds)
            except APIError as error:
                if isinstance(error, EngineError):
                    report_failure(endpoint, loop.time(), self._router.serving(served))
                self._end(meter, body, "error", error)
            except asyncio.CancelledError:
                self._end(meter, body, "cancelled", None)
                raise
            finally:
                endpoint.end(tokens)
        finally:
            self.under_way -= 1

    async def _ask(self, meter: Meter, body: bytes, deadline: float) -> None:
        """Raises APIError until there is an answer; what follows it is in the record."""
        endpoint, head = meter.endpoint, meter.head
        if endpoint is None:
            return
        answer = await self._engines.open(endpoint, head.operation, body, head.engine_headers, limit=deadline)
        meter.first_token = time.time()
        report_success(endpoint)
        if answer.stream is None:
            meter.read_answer(answer.parsed, answer.body)
            self._end(meter, body, "ok", None)
            return
        relay = Relay(
            answer.stream,
            meter,
            shows_usage=True,
            deadline=deadline,
            on_end=lambda status, error: self._end(meter, body, status, error),
        )
        try:
            await relay.pump(_Discard())
        finally:
            await relay.aclose()

    def _end(self, meter: Meter, body: bytes, status: Status, error: APIError | None) -> None:
        if meter.attempts:  # its stream has ended and told so
            return
        now, code = time.time(), error_code(error) if error else None
        http_status = 200 if meter.first_token else (error.engine_status if error else 0)
        if meter.endpoint is not None:
            meter.attempts.append(Attempt(meter.endpoint.id, meter.engine_started, now, http_status, code))
        if meter.usage is None and meter.first_token is not None:
            estimate_what_was_received(meter, body)
        record = meter.record(
            status, now, http_status=200 if meter.first_token else (error.status if error else 0), error=code
        )
        self._settlement.settle(record, meter.head.principal.counters)
        self._on_record(record)


class _Discard:
    """A sink that drops every piece."""

    def put(self, piece: bytes) -> bool:
        return True

    async def room(self) -> None: ...


def _nobody(org: str) -> Principal:
    """Whom mirrored requests belong to."""
    return Principal(MIRROR, MIRROR, org, MIRROR, Limits(), tags=(MIRROR,))
