"""Sends a share of a route's requests to a second model as well and drops its answers: a new model under real traffic.

A mirrored request has its own id, trace and record, under the key, team and tag `mirror`. The ledger shows its cost; it
counts toward no limit or budget: it is not admitted, and settled without scopes.
"""

import asyncio
import time
from collections.abc import Callable

from quarterdeck import ids
from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError
from quarterdeck.inference.call import Head
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.metering.meter import Meter, error_code
from quarterdeck.inference.metering.token_counting import estimate_received_tokens
from quarterdeck.inference.preparation import adapt_body
from quarterdeck.inference.routing.directory import ServedModel
from quarterdeck.inference.routing.router import Router
from quarterdeck.inference.streaming.relay import Relay
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol.foreign.expected import expected_answer
from quarterdeck.protocol.requests import GenerationRequest
from quarterdeck.record import MIRROR, Attempt, RequestRecord, Status
from quarterdeck.settings.limits import Limits

MAX_RUNNING = 32
"""Mirrored requests of one gateway at a time. Further ones are not sent: bodies must not pile up for a slow model."""


class Mirror:
    """Mirrors admitted calls. `on_record` is called with each settled record."""

    def __init__(
        self,
        router: Router,
        engines: EngineClient,
        settlement: Settlement,
        spawn: Spawn,
        on_record: Callable[[RequestRecord], None] = lambda record: None,
        *,
        max_running: int = MAX_RUNNING,
    ) -> None:
        self.running = 0
        self._max_running = max_running
        self._router = router
        self._engines = engines
        self._settlement = settlement
        self._spawn = spawn
        self._on_record = on_record
        self._ids = ids.RequestIds()

    def consider(self, call: Call) -> None:
        """Mirror the call if its route has a mirror, the draw hits its share, and there is room. Returns at once."""
        route = call.selection.route
        if route.mirror is None or self.running >= self._max_running:
            return
        served, share = route.mirror
        if self._router.random() >= share:
            return
        self.running += 1
        head = call.head
        copy = Head(self._ids.next(), head.operation, _mirror_principal(head.principal.org), time.time(), head.headers)
        meter = Meter(copy, served, call.request.parsed, route=route.name, reserved=call.reserved)
        self._spawn(self._send(meter, served, call.body, call.reserved.total, route.total_seconds))

    async def _send(self, meter: Meter, served: ServedModel, body: bytes, tokens: int, seconds: float) -> None:
        try:
            loop = asyncio.get_running_loop()
            endpoint = self._router.balancer.choose(served, served.routing, tokens, None, loop.time(), ())
            if endpoint is None:
                return
            meter.endpoint = endpoint
            meter.engine_started = time.time()
            endpoint.load.begin(tokens)
            try:
                name = endpoint.spec.name_of(served.name) or served.name
                await self._call(meter, adapt_body(body, endpoint, name), loop.time() + seconds)
            except APIError as error:
                self._router.balancer.report_error(endpoint, served, error, loop.time())
                self._end(meter, body, "error", error)
            except asyncio.CancelledError:
                self._end(meter, body, "cancelled", None)
                raise
            finally:
                endpoint.load.end(tokens)
        finally:
            self.running -= 1

    async def _call(self, meter: Meter, body: bytes, deadline: float) -> None:
        """Call the endpoint and read its answer. Raises APIError until it begins; a later failure is in the record."""
        endpoint, head = meter.endpoint, meter.head
        if endpoint is None:
            return
        answer = await self._engines.open(
            endpoint,
            head.operation,
            body,
            head.engine_headers(),
            limit=deadline,
            is_stream=isinstance(meter.request, GenerationRequest) and bool(meter.request.stream),
            expected=expected_answer(head.operation, meter.request, endpoint.spec.model),
        )
        meter.first_token = time.time()
        endpoint.breaker.record_success()
        if answer.stream is None:
            meter.take_answer(answer.parsed, answer.body)
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
        if meter.attempts:  # ended by its relay
            return
        now, code = time.time(), error_code(error) if error else None
        has_begun = meter.first_token is not None
        if meter.endpoint is not None:
            engine_status = 200 if has_begun else (error.engine_status if error else 0)
            meter.attempts.append(Attempt(meter.endpoint.id, meter.engine_started, now, engine_status, code))
        if meter.usage is None and has_begun:
            estimate_received_tokens(meter)
        http_status = 200 if has_begun else (error.status if error else 0)
        record = meter.record(status, now, http_status=http_status, error=code)
        self._settlement.settle(record, meter.head.principal.scope_set)
        self._on_record(record)


class _Discard:
    """A sink that drops every piece."""

    def put(self, piece: bytes) -> bool:
        return True

    async def room(self) -> None: ...


def _mirror_principal(org: str) -> Principal:
    """The principal of an org's mirrored requests."""
    return Principal(MIRROR, MIRROR, org, MIRROR, Limits(), tags=(MIRROR,))
