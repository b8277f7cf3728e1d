"""Settlement: every record arrives in Redis, or in the spool until Redis is back.

Records that are settled in one turn of the event loop go to Redis in one script for each principal.
"""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from quarterdeck.accounting.admission import LEASE_SECONDS
from quarterdeck.accounting.commit import (
    MAX_WAITING_CONTENTS,
    Arguments,
    Note,
    arguments_of,
    settle_command,
    settle_note,
)
from quarterdeck.accounting.leases import NOTES_AT_ONCE, Leases
from quarterdeck.accounting.record_spool import RecordSpool
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.accounting.scripts import REQUESTS_AT_ONCE
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError, is_to_be_resent
from quarterdeck.net.redis_batches import TurnBatches
from quarterdeck.net.tasks import BackgroundTasks
from quarterdeck.record import RequestRecord
from quarterdeck.store.spool import Spool

log = logging.getLogger(__name__)

REPLAY_SECONDS = 1.0
"""Between two attempts to replay the spool."""


class _SettlementBatch:
    """Records of one principal that go to Redis together.

    It stands in for a Future that receives the reply (`redis_connection.Receiver`): a task for it would be a tenth of
    what a request costs.
    """

    __slots__ = ("_settlement", "arguments", "contents", "records", "scope_set")

    def __init__(self, scope_set: ScopeSet, settlement: "Settlement") -> None:
        self.scope_set = scope_set
        self.records: list[RequestRecord] = []
        self.arguments: list[Arguments] = []
        self.contents: dict[int, bytes] | None = None
        """What was captured, by the record's position from 1. None: nothing."""
        self._settlement = settlement

    def notes(self) -> Iterator[Note]:
        contents = self.contents or {}
        for position, record in enumerate(self.records, 1):
            yield Note(record, self.scope_set.noted, contents.get(position))

    def done(self) -> bool:
        return False

    def set_result(self, reply: object, /) -> None:
        self._settlement.batch_replied(self, None)

    def set_exception(self, error: Exception, /) -> None:
        self._settlement.batch_replied(self, error)


class Settlement:
    """Commits the records of one gateway and renews the reservations of its requests in flight.

    `lease_seconds`: a request whose reservation was not renewed for so long counts as lost. `renew_seconds`: the time
    between two renewals, by default a third of `lease_seconds`. `on_spooled` is called with the number of records that
    were written to disk.
    """

    def __init__(
        self,
        redis: Redis,
        spool: Spool,
        *,
        lease_seconds: float = LEASE_SECONDS,
        renew_seconds: float | None = None,
        replay_seconds: float = REPLAY_SECONDS,
        notes_at_once: int = NOTES_AT_ONCE,
        on_spooled: Callable[[int], None] = lambda count: None,
    ) -> None:
        self.lease_seconds = lease_seconds
        self.max_waiting_contents = MAX_WAITING_CONTENTS
        """Records that may wait for the worker before captured contents are dropped."""
        self._redis = redis
        self._renew_seconds = lease_seconds / 3 if renew_seconds is None else renew_seconds
        self._replay_seconds = replay_seconds
        self._leases = Leases(redis, seconds=lease_seconds, notes_at_once=notes_at_once)
        self.begin = self._leases.begin  # itself, as it is called for each request
        """Called when a request is in flight: its reservation is renewed until its record is settled."""
        self.spool = RecordSpool(redis, spool, on_spooled)
        """Records until Redis is back."""
        self._tasks = BackgroundTasks()
        self._in_tasks = 0
        """Records that a task commits. One whose task failed stays counted."""
        self._batches = TurnBatches(redis, self._send)
        self._sent: set[_SettlementBatch] = set()
        self._all_answered = asyncio.Event()

    @property
    def unsaved(self) -> int:
        """The number of records that are neither in Redis nor on disk."""
        in_batches = sum(len(batch.records) for batch in (*self._batches, *self._sent))
        return in_batches + self._in_tasks + self.spool.in_memory

    @property
    def can_record(self) -> bool:
        """Whether the record of another request would be safe: Redis or the disk has room for it."""
        return not self.spool.is_full

    @property
    def spool_failures(self) -> int:
        """How often the disk has refused records."""
        return self.spool.failures

    @property
    def in_memory(self) -> int:
        """Records that neither Redis nor the disk has taken."""
        return self.spool.in_memory

    def set_lease(self, seconds: float) -> None:
        """Change the lease of reservations made or renewed from now on; they are renewed every third of it."""
        self.lease_seconds = self._leases.seconds = seconds
        self._renew_seconds = seconds / 3

    def settle(self, record: RequestRecord, scope_set: ScopeSet, content: bytes | None = None) -> None:
        """Commit the record, and what was captured beside it (`content.encode`).

        Returns at once; `drain` waits until it is in Redis or on disk.
        """
        arguments = arguments_of(record)
        principal = id(scope_set)  # one object for all requests of a principal
        batch = self._batches.batch(principal, lambda: _SettlementBatch(scope_set, self))
        batch.records.append(record)
        batch.arguments.append(arguments)
        if content is not None:
            if batch.contents is None:
                batch.contents = {}
            batch.contents[len(batch.records)] = content
        if len(batch.records) == REQUESTS_AT_ONCE:
            self._batches.send(principal)

    def batch_replied(self, batch: _SettlementBatch, error: Exception | None) -> None:
        """Handle the end of a batch: Redis committed it (`error` is None) or refused it, or the connection was lost."""
        self._sent.discard(batch)
        if error is None:
            for record in batch.records:
                self._leases.end(record.org, record.id)
        elif is_to_be_resent(error):
            self._settle_one_by_one(batch)
        else:
            for note in batch.notes():
                self._spawn(self._add_to_spool(note, error))
        if not self._sent:
            self._all_answered.set()

    async def run(self) -> None:
        """Renew reservations and replay the spool, until cancelled."""
        renewed = 0.0
        await self.spool.reserve()
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(min(self._replay_seconds, self._renew_seconds))
            # Renew before the replay, which may take long: after an outage the worker waits only GRACE_SECONDS for it.
            if loop.time() - renewed > self._renew_seconds and await self._leases.renew():
                renewed = loop.time()
            try:
                await self.spool.replay(lambda note: self._spawn(self._settle(note)))
            except OSError as error:
                log.error("could not read the spool: %s", error)

    async def close(self) -> None:
        """Give the spool's reserved space back, after `drain`."""
        await self.spool.close()

    async def drain(self) -> None:
        """Wait until every record passed to `settle` so far is in Redis or on disk.

        Those that the disk refuses stay in memory: `unsaved`.
        """
        while self._batches or self._tasks or self._sent:
            self._batches.send_all()
            if self._sent:  # each ends: Redis replies, or the connection is closed after its timeout
                self._all_answered.clear()
                await self._all_answered.wait()
                continue
            await self._tasks.drain()
        await self.spool.write()  # what is still in memory: the disk may have room by now

    def _send(self, batch: _SettlementBatch) -> None:
        command = settle_command(
            batch.arguments, batch.scope_set, batch.contents, max_waiting=self.max_waiting_contents
        )
        if self._redis.send(command, batch, batch.scope_set.org):
            self._sent.add(batch)
        else:
            self._settle_one_by_one(batch)

    def _settle_one_by_one(self, batch: _SettlementBatch) -> None:
        for note in batch.notes():
            self._spawn(self._settle(note))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Start a task that commits one record."""
        self._in_tasks += 1
        self._tasks.spawn(work)

    async def _settle(self, note: Note) -> None:
        try:
            await settle_note(self._redis, note)
        except (RedisUnavailableError, RedisError) as error:
            await self._add_to_spool(note, error)
        else:
            self._in_tasks -= 1
        finally:
            self._leases.end(note.record.org, note.record.id)

    async def _add_to_spool(self, note: Note, error: Exception) -> None:
        """Redis is away, or refuses (out of memory, read-only after a fail-over, a script killed): the record waits."""
        if isinstance(error, RedisError):
            log.error("Redis refused a record; it waits in the spool: %s", error)
        self._in_tasks -= 1  # the spool counts it from here on
        try:
            await self.spool.add(note)
        finally:
            self._leases.end(note.record.org, note.record.id)
