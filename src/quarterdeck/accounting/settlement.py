"""Sees to it that every record arrives: in Redis, or in the spool until Redis is back.

Holds the requests under way as well, and renews their reservations, so that nobody takes a long stream for lost.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import msgspec

from quarterdeck.accounting import admission
from quarterdeck.accounting.admission import Note
from quarterdeck.accounting.scopes import Counters
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError, is_unknown_script
from quarterdeck.net.redis_batches import TurnBatches
from quarterdeck.net.tasks import BackgroundTasks
from quarterdeck.record import RequestRecord
from quarterdeck.store.spool import Spool

log = logging.getLogger(__name__)

REPLAY_SECONDS = 1.0
"""Between two looks at the spool."""
NOTES_AT_ONCE = 200
"""Reservations renewed by one script: a thousand streams must not stop Redis, nor this loop, for the time of all."""
SETTLED_AT_ONCE = 50
"""Records committed by one script."""


class _Batch:
    """Records of one principal that go to Redis together."""

    __slots__ = ("_settlement", "counters", "records", "words")

    def __init__(self, counters: Counters, settlement: "Settlement") -> None:
        self.counters = counters
        self.records: list[RequestRecord] = []
        self.words: list[admission.Words] = []
        self._settlement = settlement

    def done(self) -> bool:
        return False

    def set_result(self, reply: object, /) -> None:
        self._settlement.settled(self, None)

    def set_exception(self, error: Exception, /) -> None:
        self._settlement.settled(self, error)


class Settlement:
    """Commits records. `lease_seconds`: after how long without a word of ours a request counts as lost; `on_spooled` is
    told how many records had to wait on disk."""

    def __init__(
        self,
        redis: Redis,
        spool: Spool,
        *,
        lease_seconds: float = admission.LEASE_SECONDS,
        on_spooled: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.lease_seconds = lease_seconds
        self._redis = redis
        self._spool = spool
        self._on_spooled = on_spooled
        self._tasks = BackgroundTasks()
        self._under_way: dict[str, dict[str, Callable[[], Note]]] = defaultdict(dict)
        self._due = TurnBatches(redis, self._post)
        self._posted: set[_Batch] = set()
        self._all_answered = asyncio.Event()
        self._unspooled: list[bytes] = []
        self._writing = asyncio.Lock()

    def begin(self, org: str, request_id: str, note: Callable[[], Note]) -> None:
        """The request is under way; `note` says how far when it is asked."""
        self._under_way[org][request_id] = note

    def settle(self, record: RequestRecord, counters: Counters) -> None:
        """Commit the record; returns at once. `drain` waits for it."""
        words = admission.words_of(record)
        principal = id(counters)  # those of a principal are one object
        batch = self._due.batch(principal, lambda: _Batch(counters, self))
        batch.records.append(record)
        batch.words.append(words)
        if len(batch.records) == SETTLED_AT_ONCE:
            self._due.send(principal)

    def _post(self, batch: _Batch) -> None:
        # Not awaited in a task of its own: that would cost a tenth of all that a request costs.
        if self._redis.send(admission.settle_command(batch.words, batch.counters), batch):
            self._posted.add(batch)
        else:
            self._settle_one_by_one(batch)

    def settled(self, batch: _Batch, error: Exception | None) -> None:
        """Redis has answered."""
        self._posted.discard(batch)
        if error is None:
            for record in batch.records:
                self._end(record)
        elif is_unknown_script(error):
            self._settle_one_by_one(batch)
        else:
            for record in batch.records:
                self._tasks.spawn(self._keep(Note(record, batch.counters.noted), error))
        if not self._posted:
            self._all_answered.set()

    def _settle_one_by_one(self, batch: _Batch) -> None:
        for record in batch.records:
            self._tasks.spawn(self._settle(Note(record, batch.counters.noted)))

    async def run(self) -> None:
        """Renew reservations and replay the spool, until cancelled."""
        renewed = 0.0
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(REPLAY_SECONDS, self.lease_seconds / 3))
            # Renewing first: after Redis was away, the worker gives us GRACE_SECONDS for it, and a spool may be long.
            if loop.time() - renewed > self.lease_seconds / 3 and await self._renew():
                renewed = loop.time()
            try:
                await self._replay()
            except OSError as error:
                log.error("the spool can't be read: %s", error)

    async def drain(self) -> None:
        """Wait until every record passed to `settle` so far is in Redis or on disk."""
        while self._due or self._tasks or self._posted:
            self._due.send_all()
            if self._posted:  # Redis answers in its time or is hung up on: each of them is told
                self._all_answered.clear()
                await self._all_answered.wait()
                continue
            await self._tasks.drain()
        if self._unspooled:  # the disk was full; perhaps it is no longer
            await self._write()

    async def _settle(self, note: Note) -> None:
        try:
            await admission.settle_note(self._redis, note)
        except (RedisUnavailableError, RedisError) as error:
            await self._keep(note, error)
        finally:
            self._end(note.record)

    async def _keep(self, note: Note, error: Exception) -> None:
        """Redis is away, or refuses (out of memory, read-only after a fail-over, a script killed): the record waits."""
        if isinstance(error, RedisError):
            log.error("Redis refused a record, it waits in the spool: %s", error)
        self._unspooled.append(msgspec.json.encode(note))
        try:
            await self._write()
        finally:
            self._end(note.record)

    def _end(self, record: RequestRecord) -> None:
        self._under_way[record.org].pop(record.id, None)

    async def _write(self) -> None:
        """Write to the spool; what came while the disk was busy goes with the next write."""
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
        lines, self._unspooled = self._unspooled, []
        for line in lines:  # the disk was full: perhaps Redis is back, perhaps there is room
            self._tasks.spawn(self._settle(msgspec.json.decode(line, type=Note)))
        try:
            while (taken := await asyncio.to_thread(self._spool.take)) is not None:
                try:
                    # Asked before the file is read: it may be long, and Redis is most often still away.
                    await self._redis.call("PING")
                    await self._replay_file(taken)
                finally:
                    self._spool.put_back(taken)  # does nothing once it is removed
        except (RedisUnavailableError, RedisError):
            return  # the file stays; settled lines are recognised the next time

    async def _replay_file(self, taken: Path) -> None:
        lines = await asyncio.to_thread(lambda: list(self._spool.read(taken)))
        unreadable: list[bytes] = []
        for line in lines:
            try:
                note = msgspec.json.decode(line, type=Note)
            except (msgspec.DecodeError, UnicodeDecodeError):
                unreadable.append(line)
                continue
            await admission.settle_note(self._redis, note)
        if unreadable:
            aside = await asyncio.to_thread(self._spool.set_aside, unreadable)
            log.error("%d spooled records can't be read and were set aside in %s", len(unreadable), aside)
        await asyncio.to_thread(self._spool.remove, taken)
        log.info("replayed %d records from the spool", len(lines) - len(unreadable))

    async def _renew(self) -> bool:
        """False where Redis is away: to be tried again soon."""
        for org, under_way in tuple(self._under_way.items()):
            ids = tuple(under_way)
            for start in range(0, len(ids), NOTES_AT_ONCE):
                notes = [(id, under_way[id]()) for id in ids[start : start + NOTES_AT_ONCE] if id in under_way]
                try:
                    await admission.renew(self._redis, org, notes, lease_seconds=self.lease_seconds)
                except (RedisUnavailableError, RedisError) as error:
                    log.debug("reservations were not renewed: %s", error)
                    return False
        return True
