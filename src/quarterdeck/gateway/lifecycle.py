"""Runs a gateway until SIGTERM or SIGINT, then shuts it down in order.

1. `/readyz` turns 503. For `shutdown_delay_seconds` requests are served, and each answer closes its connection.
2. No new request is admitted; requests in progress may finish within `drain_seconds`.
3. The rest is cancelled; each caller gets an error.
4. The server and the background jobs stop; then every record is brought to Redis or to disk.
5. Connections are closed.

A second signal ends steps 1 and 2. What is run is built in `composition`.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.accounting.settlement import Settlement
from quarterdeck.gateway.connectivity import Connectivity
from quarterdeck.gateway.http.access_log import AccessLog
from quarterdeck.gateway.http.requests_in_flight import RequestsInFlight
from quarterdeck.gateway.live_config import ConfigReloader
from quarterdeck.net.signals import on_signals
from quarterdeck.net.tasks import BackgroundTasks, keep_running
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.settings.shutdown import CLOSE_SECONDS, FLUSH_SECONDS, WORK_SECONDS
from quarterdeck.store.migration import MigrationError

log = logging.getLogger(__name__)

Job = Callable[[], Coroutine[Any, Any, None]]
"""Runs until it is cancelled. One that fails is started again; a MigrationError ends the process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """One gateway, ready to run."""

    server: EmbeddedServer
    config: Live[Config]
    reloader: ConfigReloader
    requests_in_flight: RequestsInFlight
    jobs: Mapping[str, Job]
    on_job_failure: Callable[[str], None]
    tasks: BackgroundTasks
    settlement: Settlement
    connectivity: Connectivity
    connections: Sequence[Callable[[], Awaitable[None]]]
    """What closes them, in this order."""
    access: AccessLog
    shutdown_delay: float = 0.0
    """Seconds of step 1, where the configuration does not say it."""

    async def run(self, listener: socket.socket) -> bool:
        """Serve until SIGTERM or SIGINT, then shut down in order.

        Returns whether every record is in Redis or on disk; those that are not are lost with the process.
        """
        stop, hurry = asyncio.Event(), asyncio.Event()
        on_signals(lambda: (hurry if stop.is_set() else stop).set())
        on_signals(self.reloader.reload, (signal.SIGHUP,))
        jobs = [
            asyncio.create_task(keep_running(name, job, fatal=(MigrationError,), on_failure=self.on_job_failure))
            for name, job in self.jobs.items()
        ]
        serving = asyncio.create_task(self.server.serve([listener]))
        log.info("listening", extra={"host": self.server.config.host, "port": listener.getsockname()[1]})
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({stopping, serving, *jobs}, return_when=asyncio.FIRST_COMPLETED)
            for task in (serving, *jobs):
                if task.done():  # before any signal: its exception ends the process
                    task.result()
            await self._drain(hurry)
        finally:
            stopping.cancel()
            await self._stop(serving, jobs)
            is_safe = await self._flush()
            await self._close()
            log.info("stopped")
        return is_safe

    async def _drain(self, hurry: asyncio.Event) -> None:
        """Let requests in flight end, within `shutdown_delay_seconds` and `drain_seconds` together."""
        gateway = self.config.current.gateway
        delay = self.shutdown_delay if gateway.shutdown_delay_seconds is None else gateway.shutdown_delay_seconds
        loop = asyncio.get_running_loop()
        until = loop.time() + delay + gateway.drain_seconds
        if delay:
            # Half of the drain at most: a request that is admitted later would not have the time to end.
            await self.requests_in_flight.serve_on(delay, delay + gateway.drain_seconds / 2, hurry)
        await self.requests_in_flight.drain(max(0.0, until - loop.time()), hurry)

    async def _stop(self, serving: "asyncio.Task[None]", jobs: "list[asyncio.Task[None]]") -> None:
        self.server.should_exit = True
        await asyncio.wait({serving})
        for task in jobs:
            task.cancel()
        await asyncio.gather(*jobs, return_exceptions=True)

    async def _flush(self) -> bool:
        """Bring every record to Redis or to disk. Returns whether all of them are there."""
        is_drained = False
        try:
            async with asyncio.timeout(FLUSH_SECONDS):
                # Tasks first: they settle records, which the settlement then brings to Redis or to disk.
                await self.tasks.drain(cancel_after=WORK_SECONDS)
                await self.settlement.drain()
                is_drained = True
                await self.tasks.drain(cancel_after=WORK_SECONDS)  # writes to the cache that the last responses began
        except TimeoutError:
            log.error("post-request tasks and records were not completed within %g s", FLUSH_SECONDS)
        if unsaved := self.settlement.unsaved:
            log.critical("%d records are lost: they are neither in Redis nor on disk", unsaved)
        return is_drained and not unsaved

    async def _close(self) -> None:
        self.connectivity.stop()
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                for close in self.connections:
                    await close()
        except TimeoutError:
            log.warning("connections were not closed within %g s", CLOSE_SECONDS)
        self.access.flush()
