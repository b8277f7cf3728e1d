"""The loop of a consumer of Redis streams: takes batches, handles them, survives outages.

A batch that could not be handled stays in its stream and is retried. The loop is an error boundary: an unexpected error
is caught here, logged with its traceback, and retried too: the entries are still there, and its cause may be fixed.
"""

import asyncio
import logging

import msgspec

from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.record import RequestRecord, decode
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.telemetry.traces.exporter import OTLPError
from quarterdeck.worker.conditions import Backoff, Condition, pause
from quarterdeck.worker.org_loop import Orgs
from quarterdeck.worker.streams import Consumer, StreamEntry

log = logging.getLogger(__name__)

BATCH = 256
"""Records in one transaction and one acknowledgement: a few ms of database and Redis time."""
BLOCK_MS = 500
"""How long a read waits for the first record, and so the longest that a stop waits for it."""
CLAIM_SECONDS = 2.0
"""Interval at which entries of dead workers are claimed."""
LINGER_SECONDS = 0.1
"""Pause after a batch that was not full. A batch costs a worker and Redis many times what a record does: without it a
busy stream is handled a few records at a time, with all the processor that is free (348 µs of it a record at 500 a
second, instead of 68)."""


class StreamLoop:
    """Takes entries in batches, passes them to `_handle`, and keeps a batch until it is handled."""

    def __init__(
        self,
        consumer: Consumer,
        blocking: Redis,
        orgs: Orgs,
        condition: Condition,
        *,
        block_ms: int = BLOCK_MS,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        """`blocking` is a connection for reads that wait; nothing else may use it."""
        self._consumer = consumer
        self._blocking = blocking
        self._orgs = orgs
        self._condition = condition
        self._block_ms = block_ms
        self._linger_seconds = linger_seconds
        self._is_full = False
        """The last batch was as large as it may be: more is waiting."""
        self._joined: frozenset[str] = frozenset()
        self._batch: list[StreamEntry] = []
        self._claim_at = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Run until `stop` is set, then finish the current batch, unless a dependency is unavailable."""
        backoff = Backoff(stop)
        while not stop.is_set():
            wait = await self._attempt(stop)
            if wait is None:
                backoff.reset()
                if not self._is_full and self._linger_seconds:
                    await pause(stop, self._linger_seconds)
            else:
                await backoff.pause(wait)
        if not self._batch:
            await self._leave()

    async def _attempt(self, stop: asyncio.Event) -> float | None:
        """Handle one batch. Returns None on success, else the least seconds to wait before the next attempt."""
        try:
            if not self._batch:
                self._batch = await self._take()
                self._is_full = len(self._batch) >= self._count(len(self._orgs()))
            if self._batch:
                await self._handle(self._batch, stop)
                self._batch = []
            self._condition.ok()
        except (RedisUnavailableError, DatabaseUnavailableError) as error:
            self._condition.failed(str(error))
            return 0.0
        except RedisError as error:
            self._joined = frozenset()  # NOGROUP: Redis was emptied; the groups are created again
            self._condition.failed(f"Redis answered {error}")
            return 0.0
        except OTLPError as error:
            self._condition.failed(str(error))
            return error.retry_after or 1.0
        except Exception as error:  # an error boundary: see the module docstring
            self._condition.failed(f"{type(error).__name__}: {error}", trace=error)
            return 1.0
        return None

    async def _take(self) -> list[StreamEntry]:
        orgs = tuple(self._orgs())
        count = self._count(len(orgs))
        if not self._joined.issuperset(orgs):
            await self._consumer.join(orgs)
            self._joined = frozenset(orgs)
        now = asyncio.get_running_loop().time()
        if now >= self._claim_at:
            for org in orgs:
                if entries := await self._consumer.claim(org, count=count):
                    return entries
            self._claim_at = now + CLAIM_SECONDS
        return await self._consumer.read(self._blocking, orgs, count=count, block_ms=self._block_ms)

    def _count(self, orgs: int) -> int:
        """Entries of each org to take at a time."""
        return BATCH

    async def _handle(self, entries: list[StreamEntry], stop: asyncio.Event) -> None:
        raise NotImplementedError

    async def _leave(self) -> None:
        try:
            await self._consumer.leave(sorted(self._joined))
        except (RedisUnavailableError, RedisError) as error:
            # another worker removes it after a day
            log.info("could not remove this consumer from its groups: %s", error)


def read_record(entry: StreamEntry) -> tuple[RequestRecord | None, str]:
    """Decode an entry's record. Returns None and the reason if it is unreadable."""
    if entry.data is None:
        return None, "the entry has no field 'record'"
    try:
        return decode(entry.data), ""
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        return None, str(error)
