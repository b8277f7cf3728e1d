"""Sees to it that every record arrives: in Redis, or in the spool until Redis is back.

Holds the requests under way as well, and renews their reservations, so that nobody takes a long stream for lost.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from quarterdeck.inference import admission
from quarterdeck.inference.admission import Note
from quarterdeck.record import RequestRecord
from quarterdeck.store.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.store.spool import Spool

log = logging.getLogger(__name__)

REPLAY_SECONDS = 1.0


class Settlement:
    """Commits records. `on_spooled` is told how many had to wait on disk."""

    def __init__(self, redis: Redis, spool: Spool, *, on_spooled: Callable[[int], None] = lambda count: None) -> None:
        self._redis = redis
        self._spool = spool
        self._on_spooled = on_spooled
        self._tasks: set[asyncio.Task[None]] = set()
        self._under_way: dict[str, Callable[[], Note]] = {}
        self._unspooled: list[bytes] = []
        self._writing = asyncio.Lock()

    def begin(self, request_id: str, note: Callable[[], Note]) -> None:
        """The request is under way; `note` says how far when it is asked."""
        self._under_way[request_id] = note

    def settle(self, record: RequestRecord, reserved: int) -> None:
        """Commit the record; returns at once. `drain` waits for it."""
        self.spawn(self._settle(Note(reserved, record)))

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Work that belongs to a request that is over and must be done before the process ends."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        """Renew reservations and replay the spool, until cancelled."""
        renewed = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(REPLAY_SECONDS)
            await self._replay()
            if loop.time() - renewed > admission.LEASE_SECONDS / 3:
                renewed = loop.time()
                await self._renew()

    async def drain(self) -> None:
        """Wait until every record given so far is in Redis or on disk."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _settle(self, note: Note) -> None:
        try:
            await admission.settle(self._redis, note.record, note.reserved)
        except (RedisUnavailableError, RedisError) as error:
            # RedisError as well: out of memory, read-only after a fail-over, a script killed: the record must wait.
            if isinstance(error, RedisError):
                log.error("Redis refused a record, it waits in the spool: %s", error)
            await self._keep(note)
        self._under_way.pop(note.record.id, None)

    async def _keep(self, note: Note) -> None:
        """Write to the spool; what came while the disk was busy goes with the next write."""
        self._unspooled.append(msgspec.json.encode(note))
        async with self._writing:
            lines, self._unspooled = self._unspooled, []
            if not lines:
                return
            try:
                await asyncio.to_thread(self._spool.append, lines)
            except OSError as error:
                self._unspooled = lines + self._unspooled
                log.critical(
                    "the spool can't be written, %d records are in memory only: %s", len(self._unspooled), error
                )
                return
            self._on_spooled(len(lines))

    async def _replay(self) -> None:
        """Bring spooled records into Redis, file by file."""
        if self._unspooled:
            lines, self._unspooled = self._unspooled, []
            for line in lines:
                self.spawn(self._settle(msgspec.json.decode(line, type=Note)))
        while (taken := await asyncio.to_thread(self._spool.take)) is not None:
            lines = await asyncio.to_thread(lambda path: list(self._spool.read(path)), taken)
            try:
                for line in lines:
                    note = msgspec.json.decode(line, type=Note)
                    await admission.settle(self._redis, note.record, note.reserved)
            except (RedisUnavailableError, RedisError):
                return  # the file stays; settled lines are recognised the next time
            await asyncio.to_thread(self._spool.remove, taken)
            log.info("replayed %d records from the spool", len(lines))

    async def _renew(self) -> None:
        by_org: dict[str, list[tuple[str, Note]]] = defaultdict(list)
        for request_id, note in tuple(self._under_way.items()):
            now = note()
            by_org[now.record.org].append((request_id, now))
        for org, notes in by_org.items():
            try:
                await admission.renew(self._redis, org, notes)
            except (RedisUnavailableError, RedisError) as error:
                log.debug("reservations were not renewed: %s", error)
