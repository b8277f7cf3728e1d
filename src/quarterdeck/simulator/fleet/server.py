"""The server process of a fleet: one port, the reconciler and the configuration beside it."""

import asyncio
import socket
from collections.abc import Callable

import uvicorn

from quarterdeck.model_lifecycle.following import follow
from quarterdeck.net.signals import on_signals
from quarterdeck.net.sockets import BACKLOG, listen
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.settings.source import ConfigSource
from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.fleet.app import FleetApp
from quarterdeck.simulator.fleet.door import FleetDoor
from quarterdeck.simulator.server import TransportProtocol
from quarterdeck.weights.pulls import Pulls


class FleetServer(EmbeddedServer):
    """Runs until SIGTERM; then running requests finish, and the exit code is 0."""

    def __init__(
        self,
        door: FleetDoor,
        pulls: Pulls,
        source: ConfigSource,
        options: SimulatorConfig,
        on_listening: Callable[[str], None],
    ) -> None:
        super().__init__(
            uvicorn.Config(
                FleetApp(door, pulls),
                http=TransportProtocol,
                ws="none",
                lifespan="off",
                loop="uvloop",
                log_level="warning",
                access_log=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=max(int(options.http_timeout_keep_alive), 1),
                timeout_graceful_shutdown=max(int(options.drain_timeout), 1),
            )
        )
        self._door, self._source, self._options = door, source, options
        self._on_listening = on_listening
        self._tasks: list[asyncio.Task[None]] = []

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        on_signals(self._stop)
        await super().serve(sockets)
        failed = [task.exception() for task in self._tasks if task.done() and not task.cancelled()]
        if failed and failed[0] is not None:
            raise failed[0]

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        opened = listen(self._options.host, self._options.port)
        host, port = opened.getsockname()[:2]
        url = f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
        self._door.runtime.url = self._options.advertise_url or url
        await super().startup([opened])
        self._tasks = [
            asyncio.create_task(self._door.reconciler.run()),
            asyncio.create_task(follow(self._source, self._door.follow)),
        ]
        for task in self._tasks:
            task.add_done_callback(lambda _: self._stop())
        self._on_listening(url)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._door.is_draining = True
        if self._options.drain_delay:
            await asyncio.sleep(self._options.drain_delay)
        await super().shutdown(sockets)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _stop(self) -> None:
        """Drain; at the second signal exit without waiting."""
        self.force_exit = self.should_exit
        self.should_exit = True
