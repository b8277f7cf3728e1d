"""The end of a request, however it ends: it leaves the counts, its tokens are known, its record is settled. Once."""

import asyncio
import time
from collections.abc import Callable

from quarterdeck.accounting.settlement import Settlement
from quarterdeck.errors import APIError
from quarterdeck.inference.attempts import Attempts
from quarterdeck.inference.cache.entry import Entry, hit
from quarterdeck.inference.call import FREE
from quarterdeck.inference.call_state import Call
from quarterdeck.inference.endpoints.sources import Endpoint
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.gate import Gate
from quarterdeck.inference.metering.meter import error_code
from quarterdeck.inference.metering.token_counting import count_what_was_received, estimate_what_was_received
from quarterdeck.net.tasks import Spawn
from quarterdeck.record import RequestRecord, Status

COUNTED_AT_ONCE = 8
"""Answers whose tokens are counted at the same time: it is the engine's time, and others wait for it."""
MOST_TO_COUNT = 256
"""Answers that wait for it; the next one is estimated. Each holds its prompt and text."""


class Closing:
    """`on_record` is told of each request that is over."""

    def __init__(
        self,
        engines: EngineClient,
        attempts: Attempts,
        gate: Gate,
        settlement: Settlement,
        spawn: Spawn,
        on_record: Callable[[RequestRecord], None],
    ) -> None:
        self._engines = engines
        self._attempts = attempts
        self._gate = gate
        self._settlement = settlement
        self._spawn = spawn
        self._on_record = on_record
        self._counting = asyncio.Semaphore(COUNTED_AT_ONCE)
        self._to_count = 0

    def finish(self, call: Call, status: Status, error: APIError | None, *, http_status: int | None = None) -> None:
        """An engine was asked, or none could be. Settled at once, or when its tokens are counted."""
        if call.lookup is not None and status != "ok":
            call.lookup.give_up()
        meter, now = call.meter, time.time()
        self._attempts.end(call, error, now, code="cancelled" if status == "cancelled" else None)
        if http_status is None:
            http_status = error.status if error else 200
        code = error_code(error) if error else None
        if meter.usage is None and meter.first_token is not None and call.head.operation not in FREE:
            if meter.endpoint is not None and self._to_count < MOST_TO_COUNT:
                self._to_count += 1
                self._spawn(self._count_and_settle(call, meter.endpoint, status, now, http_status, code))
                return
            estimate_what_was_received(meter, call.body)
        self._settle(call, meter.record(status, now, http_status=http_status, error=code))

    def finish_with(self, call: Call, found: Entry, now: float) -> None:
        """A kept answer was given, and no engine asked."""
        self._settle(call, hit(call.meter.record("ok", now), found, now))

    async def _count_and_settle(
        self, call: Call, endpoint: Endpoint, status: Status, ended: float, http_status: int, error: str | None
    ) -> None:
        """No usage came: the text received is counted, off the hot path."""
        try:
            async with self._counting:
                await count_what_was_received(self._engines, endpoint, call.meter, call.body)
        finally:  # estimated, if it must be; never unsettled
            self._to_count -= 1
            if call.meter.usage is None:
                estimate_what_was_received(call.meter, call.body)
            self._settle(call, call.meter.record(status, ended, http_status=http_status, error=error))

    def _settle(self, call: Call, record: RequestRecord) -> None:
        if call.is_local:
            self._gate.give_back(call, record)
        if call.lookup is not None:
            call.lookup.end(record)
        self._settlement.settle(record, call.head.principal.counters)
        self._on_record(record)
