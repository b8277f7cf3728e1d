"""Requests that arrive in one turn of the event loop are reserved together: one script for each principal.

A gateway under load has some ten of them a turn, and a script's start and end cost Redis as much as several requests.
A caller that cancels a reservation releases it as well. The release follows it on the connection; only where the
reservation waits for a connection or a script it may be overtaken, and is released again after Redis' reply.
"""

import asyncio
import logging
from itertools import compress
from typing import Any

from quarterdeck.accounting import commit
from quarterdeck.accounting.admission import Reservation, reserve_command
from quarterdeck.accounting.scripts import REQUESTS_AT_ONCE, RESERVE
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError, is_to_be_resent
from quarterdeck.net.redis_batches import TurnBatches
from quarterdeck.net.tasks import Spawn

log = logging.getLogger(__name__)

RELEASE_SECONDS = 0.5
"""Between two attempts to release a reservation. Redis' own reconnects are no faster."""


class _ReservationBatch:
    """Requests of one principal with their futures, and the receiver of Redis' reply."""

    __slots__ = ("_reservations", "futures", "wanted")

    def __init__(self, reservations: "Reservations") -> None:
        self._reservations = reservations
        self.wanted: list[Reservation] = []
        self.futures: list[asyncio.Future[Any]] = []

    def drop_cancelled(self) -> None:
        """Those whose requests were cancelled before anything was sent."""
        waits = [not future.done() for future in self.futures]
        self.wanted = list(compress(self.wanted, waits))
        self.futures = list(compress(self.futures, waits))

    def done(self) -> bool:
        return False

    def set_result(self, answers: list[Any], /) -> None:
        for future, answer in zip(self.futures, answers, strict=True):
            if not future.done():  # else it was cancelled
                future.set_result(answer)

    def set_exception(self, error: Exception, /) -> None:
        if is_to_be_resent(error):
            self._reservations.send_again(self)
            return
        for future in self.futures:
            if not future.done():
                future.set_exception(error)


class Reservations:
    """Batches the reservations of one gateway. `spawn` starts a task for a batch that has to wait for a connection."""

    def __init__(self, redis: Redis, spawn: Spawn) -> None:
        self._redis = redis
        self._spawn = spawn
        self._batches = TurnBatches(redis, self._send, first=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    def reserve(self, wanted: Reservation) -> asyncio.Future[Any]:
        """RESERVE's answer for the request (`read_admission`). Raises RedisUnavailableError and RedisError.

        A caller that cancels the future must call `release`.
        """
        principal = id(wanted.scope_set)  # one object for all requests of a principal
        batch = self._batches.batch(principal, lambda: _ReservationBatch(self))
        if self._loop is None:  # kept: to find it is a system call
            self._loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = self._loop.create_future()
        batch.wanted.append(wanted)
        batch.futures.append(future)
        if len(batch.wanted) == REQUESTS_AT_ONCE:
            self._batches.send(principal)
        return future

    def send_again(self, batch: _ReservationBatch) -> None:
        """Send it from a task, which can wait for a connection, load the script and follow a fail-over."""
        self._spawn(self._execute(batch))

    def _send(self, batch: _ReservationBatch) -> None:
        if not self._redis.send(reserve_command(batch.wanted), batch, batch.wanted[0].scope_set.org):
            self.send_again(batch)

    async def _execute(self, batch: _ReservationBatch) -> None:
        batch.drop_cancelled()
        try:
            if batch.wanted:
                org = batch.wanted[0].scope_set.org
                batch.set_result(await self._redis.execute(RESERVE, reserve_command(batch.wanted), org))
        except (RedisUnavailableError, RedisError) as error:
            for future in batch.futures:
                if not future.done():
                    future.set_exception(error)
        for wanted, future in zip(batch.wanted, batch.futures, strict=True):
            if future.cancelled():  # meanwhile: the release may have come first
                self.release(wanted)

    def release(self, wanted: Reservation) -> None:
        """Release a reservation that was made, or that may still be made, for a request that does not use it."""
        self._spawn(self._release(wanted))

    async def _release(self, wanted: Reservation) -> None:
        """Retried while Redis is unavailable: its lease would end with a record."""
        while True:
            try:
                await commit.release(self._redis, wanted)
            except RedisUnavailableError:
                await asyncio.sleep(RELEASE_SECONDS)
                continue
            except RedisError as error:
                log.warning("could not release reservation; it will expire: %s", error)
            return
