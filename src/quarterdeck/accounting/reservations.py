"""Requests that come in one turn of the event loop are admitted together: one script for each principal.

A gateway under load has some ten of them a turn. Redis runs a script's beginning and end once for all, and so do we.
"""

import asyncio
from itertools import compress
from typing import Any

from quarterdeck.accounting.admission import RESERVE, Reservation, reserve_command
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError, is_unknown_script
from quarterdeck.net.redis_batches import TurnBatches
from quarterdeck.net.tasks import Spawn

RESERVED_AT_ONCE = 50
"""Requests admitted by one script: Redis serves nobody else meanwhile."""


class _Batch:
    """Requests of one principal, and who waits for each of them."""

    __slots__ = ("_reserving", "waiting", "wanted")

    def __init__(self, reserving: "Reserving") -> None:
        self._reserving = reserving
        self.wanted: list[Reservation] = []
        self.waiting: list[asyncio.Future[Any]] = []

    def leave_out_who_is_gone(self) -> None:
        """Their release may overtake a reservation that waits for a connection."""
        here = [not future.done() for future in self.waiting]
        self.wanted = list(compress(self.wanted, here))
        self.waiting = list(compress(self.waiting, here))

    def done(self) -> bool:
        return False

    def set_result(self, answers: list[Any], /) -> None:
        for future, answer in zip(self.waiting, answers, strict=True):
            if not future.done():  # its caller hung up
                future.set_result(answer)

    def set_exception(self, error: Exception, /) -> None:
        if is_unknown_script(error):
            self._reserving.send_again(self)
            return
        for future in self.waiting:
            if not future.done():
                future.set_exception(error)


class Reserving:
    """`spawn` runs what goes on by itself."""

    def __init__(self, redis: Redis, spawn: Spawn) -> None:
        self._redis = redis
        self._spawn = spawn
        self._due = TurnBatches(redis, self._send, first=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def reserve(self, wanted: Reservation) -> asyncio.Future[Any]:
        """What *reserve* says of it (`read_admission`), or RedisUnavailableError or RedisError."""
        principal = id(wanted.counters)  # those of a principal are one object
        batch = self._due.batch(principal, lambda: _Batch(self))
        if self._loop is None:  # kept, as finding it is a system call
            self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = self._loop.create_future()
        batch.wanted.append(wanted)
        batch.waiting.append(future)
        if len(batch.wanted) == RESERVED_AT_ONCE:
            self._due.send(principal)
        return future

    def send_again(self, batch: _Batch) -> None:
        """In a task, which may wait: for a connection, or for the script to be loaded."""
        self._spawn(self._execute(batch))

    def _send(self, batch: _Batch) -> None:
        if not self._redis.send(reserve_command(batch.wanted), batch):
            self.send_again(batch)

    async def _execute(self, batch: _Batch) -> None:
        batch.leave_out_who_is_gone()
        try:
            if batch.wanted:
                batch.set_result(await self._redis.execute(RESERVE, reserve_command(batch.wanted)))
        except (RedisUnavailableError, RedisError) as error:
            for future in batch.waiting:
                if not future.done():
                    future.set_exception(error)
