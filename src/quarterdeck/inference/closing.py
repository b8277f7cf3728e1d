"""The end of a call: its attempt ends, its tokens are known, its record is settled. Once, however it ends."""

import asyncio
import logging
import time
from collections.abc import Callable

from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.accounting.settlement import Settlement
from quarterdeck.content import Level
from quarterdeck.errors import APIError
from quarterdeck.inference.attempts import Attempts
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.inference.cache.replay import hit_record
from quarterdeck.inference.call import CLIENT_CLOSED_REQUEST, FREE
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.capture.capture import Capture
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.gate import Gate
from quarterdeck.inference.metering.cached_prompts import CachedPrompts
from quarterdeck.inference.metering.meter import error_code
from quarterdeck.inference.metering.token_counting import count_received_tokens, estimate_received_tokens
from quarterdeck.net.tasks import Spawn
from quarterdeck.record import RequestRecord, Status

log = logging.getLogger(__name__)

MAX_COUNTING = 8
"""Calls whose tokens are counted at the same time: counting takes the engine's time from running requests."""
MAX_TO_COUNT = 256
"""Calls that are counted or wait for it; further ones are estimated. Each keeps its prompt and text in memory."""
MAX_LARGE = 8
"""Large contents that are cut in threads at a time; further ones are dropped. Each keeps some MB in memory."""


class Closing:
    """Ends calls. `on_record` is called with each settled record."""

    def __init__(
        self,
        engines: EngineClient,
        attempts: Attempts,
        gate: Gate,
        settlement: Settlement,
        spawn: Spawn,
        on_record: Callable[[RequestRecord], None],
        *,
        max_to_count: int = MAX_TO_COUNT,
    ) -> None:
        self._engines = engines
        self._attempts = attempts
        self._gate = gate
        self._settlement = settlement
        self._spawn = spawn
        self._on_record = on_record
        self._counting = asyncio.Semaphore(MAX_COUNTING)
        self._cached = CachedPrompts()
        self._to_count = 0
        self._large = 0
        self._max_to_count = max_to_count

    def fail(self, call: Call, error: BaseException) -> None:
        """End a call that got no answer: refused, left by its caller, or by a bug, which also leaves its record and its
        places."""
        if isinstance(error, APIError):
            self.finish(call, "error", error)
        elif isinstance(error, asyncio.CancelledError):
            self.finish(call, "cancelled", None, http_status=CLIENT_CLOSED_REQUEST)
        else:
            self.finish(call, "error", APIError("The gateway failed.", code="internal_error"))

    def finish(self, call: Call, status: Status, error: APIError | None, *, http_status: int | None = None) -> None:
        """End a call that went to an engine, or found none. It is settled at once or when its tokens are counted."""
        if call.lookup is not None and status != "ok":
            call.lookup.give_up()
        if status == "cancelled" and (repeats := call.head.repeats) is not None and repeats():
            status = "lost"  # it is sent again, and then the facts replace what is settled now
        meter, now = call.meter, time.time()
        if status != "ok":
            meter.drop_stale_usage()
        self._attempts.end(call, error, now, code="cancelled" if status == "cancelled" else None)
        if http_status is None:
            http_status = error.status if error else 200
        code = error_code(error) if error else None
        if meter.usage is None and meter.first_token is not None and call.head.operation not in FREE:
            # What is replaced is settled at once: before another gateway may reserve under the same id.
            if status != "lost" and meter.endpoint is not None and self._to_count < self._max_to_count:
                self._to_count += 1
                self._spawn(self._count_and_settle(call, meter.endpoint, status, now, http_status, code))
                return
            estimate_received_tokens(meter)
            self._cached.discount(call.request, meter)
        elif (rates := meter.served.rates).cached != rates.input:
            self._cached.note(call.request, meter)
        record = meter.record(status, now, http_status=http_status, error=code)
        if call.lookup is not None:
            call.lookup.end(record)
        self._commit(call, record)

    def finish_large(self, call: Call) -> Callable[[], None]:
        """End a call with a large whole answer. The endpoint's place is free at once; it is settled, which frees its
        key's slot, when the returned function is called. Further calls have no effect."""
        now = time.time()
        self._attempts.end(call, None, now)
        record = None
        if call.meter.usage is not None or call.head.operation in FREE:
            record = call.meter.record("ok", now)
            if call.lookup is not None:  # equal requests do not wait until this client has read
                call.lookup.end(record)
        is_over = False

        def settle() -> None:
            nonlocal is_over
            if is_over:
                return
            is_over = True
            if record is None:
                self.finish(call, "ok", None)
            else:
                self._commit(call, record)

        return settle

    def finish_from_cache(self, call: Call, found: Entry, now: float) -> None:
        """End a call that was answered from the cache."""
        if call.capture is not None:
            if found.is_stream:
                call.capture.take_stream(found.body)
            else:
                call.capture.take(found.body)
        self._settle(call, hit_record(call.meter.record("ok", now), found, now))

    async def _count_and_settle(
        self, call: Call, endpoint: Endpoint, status: Status, ended: float, http_status: int, error: str | None
    ) -> None:
        """Count the received text, as the engine gave no usage."""
        try:
            async with self._counting:
                await count_received_tokens(self._engines, endpoint, call.meter, call.body)
        finally:  # estimated if counting failed; settled in any case
            self._to_count -= 1
            if call.meter.usage is None:
                estimate_received_tokens(call.meter)
            self._cached.discount(call.request, call.meter)
            self._settle(call, call.meter.record(status, ended, http_status=http_status, error=error))

    def _settle(self, call: Call, record: RequestRecord) -> None:
        if call.lookup is not None:
            call.lookup.end(record)
        self._commit(call, record)

    def _commit(self, call: Call, record: RequestRecord) -> None:
        scope_set = call.head.principal.scope_set
        if call.is_local:
            taken = min(call.reserved.total, scope_set.most_tokens)
            self._gate.give_back(scope_set, taken - record.input_tokens - record.output_tokens)
        if call.capture is None:
            self._settlement.settle(record, scope_set)
        elif call.capture.is_large:
            if self._large >= MAX_LARGE:
                self._settlement.settle(record, scope_set)
            else:
                self._large += 1
                self._spawn(self._settle_large(call.capture, record, scope_set))
        else:
            self._settle_captured(record, scope_set, _encoded(call.capture), call.capture.level)
        self._on_record(record)

    async def _settle_large(self, capture: Capture, record: RequestRecord, scope_set: ScopeSet) -> None:
        """The reservation is renewed meanwhile, as the record is not settled."""
        content = None
        try:
            content = await asyncio.to_thread(_encoded, capture)
        finally:
            self._large -= 1
            self._settle_captured(record, scope_set, content, capture.level)

    def _settle_captured(self, record: RequestRecord, scope_set: ScopeSet, content: bytes | None, level: Level) -> None:
        if content is not None:
            record.content = level
        self._settlement.settle(record, scope_set, content)


def _encoded(capture: Capture) -> bytes | None:
    try:
        return capture.encoded()
    except Exception:  # a bug: the record must reach the ledger, with its content or without
        log.exception("could not capture a request's content")
        return None
