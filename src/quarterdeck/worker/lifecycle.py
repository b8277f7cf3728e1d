"""Runs a worker: migrates the database, runs the loops until a stop, lets them finish their batches."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from quarterdeck.net.tasks import keep_running
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.store.database import Database, DatabaseUnavailableError
from quarterdeck.store.migration import MigrationError
from quarterdeck.worker.conditions import Backoff, Condition

log = logging.getLogger(__name__)

STOP_SECONDS = 15.0
"""How long the loops may take to finish their batches after a stop."""

Job = Callable[[], Coroutine[Any, Any, None]]


class Loop(Protocol):
    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish the batch that was started."""
        ...


class Worker:
    """One worker process; any number may run at once.

    `books` are the loops that need the tables: they begin when the database is migrated, which sets `is_migrated`.
    `loops` need none, and `endless` jobs are cancelled at a stop. `close` releases connections.
    """

    def __init__(
        self,
        name: str,
        *,
        database: Database,
        database_condition: Condition,
        is_migrated: asyncio.Event,
        books: Sequence[Loop],
        loops: Mapping[str, Loop],
        endless: Mapping[str, Job],
        server: EmbeddedServer,
        listening: socket.socket,
        trace_sinks: Sequence[str],
        close: Callable[[], Awaitable[None]],
    ) -> None:
        self._name = name
        self._database = database
        self._database_condition = database_condition
        self._is_migrated = is_migrated
        self._books = books
        self._loops = loops
        self._endless = endless
        self._server = server
        self._listening = listening
        self._trace_sinks = trace_sinks
        self._close = close

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop` is set, then finish the batches that were started."""
        jobs: dict[str, Job] = {"books": partial(self._keep_books, stop)}
        for name, loop in self._loops.items():
            jobs[name] = partial(loop.run, stop)
        endless = {asyncio.create_task(keep_running(name, job)) for name, job in self._endless.items()}
        serving = asyncio.create_task(self._server.serve(sockets=[self._listening]))
        tasks = {asyncio.create_task(keep_running(name, job, fatal=(MigrationError,))) for name, job in jobs.items()}
        port = self._listening.getsockname()[1]
        log.info("worker started", extra={"consumer": self._name, "port": port, "trace_sinks": self._trace_sinks})
        try:
            await _until(stop, tasks, endless)
        finally:
            stop.set()
            self._server.should_exit = True
            for task in (*endless, *tasks):
                task.cancel()
            await asyncio.gather(*endless, *tasks, serving, return_exceptions=True)
            await self._close()
            log.info("worker stopped")

    async def _keep_books(self, stop: asyncio.Event) -> None:
        """Migrate, then insert records and rebuild budgets. Raises MigrationError if the tables are newer."""
        backoff = Backoff(stop)
        while not stop.is_set():
            try:
                await self._database.migrate()
                break
            except DatabaseUnavailableError as error:
                self._database_condition.failed(error.message)
                await backoff.pause()
        if stop.is_set():
            return
        self._database_condition.ok()
        self._is_migrated.set()
        await asyncio.gather(*(loop.run(stop) for loop in self._books))


async def _until(stop: asyncio.Event, tasks: "set[asyncio.Task[None]]", endless: "set[asyncio.Task[None]]") -> None:
    """Wait for `stop`, then for the loops. Raises what a task raised before."""
    stopping = asyncio.create_task(_wait(stop))
    await asyncio.wait({stopping, *endless, *tasks}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in endless:
        if task.done():
            task.result()
    if stop.is_set():
        await asyncio.wait(tasks, timeout=STOP_SECONDS)
    for task in tasks:
        if task.done():
            task.result()
    if not all(task.done() for task in tasks):
        log.warning("stopping before all loops finished; their records stay in Redis")


async def _wait(event: asyncio.Event) -> None:
    await event.wait()
