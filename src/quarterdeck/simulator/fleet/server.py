"""The server process of a fleet: one port, the reconciler and the configuration beside it."""

import asyncio
import socket
from collections.abc import Callable

from quarterdeck.model_lifecycle.following import follow
from quarterdeck.net.signals import on_signals
from quarterdeck.net.sockets import listen
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.settings.source import ConfigSource
from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.fleet.app import FleetApp
from quarterdeck.simulator.fleet.door import FleetDoor
from quarterdeck.simulator.server import server_config, url_of
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
        drain_seconds = max(int(options.drain_timeout), 1)
        super().__init__(server_config(FleetApp(door, pulls), options, drain_seconds=drain_seconds))
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
        url = url_of(opened)
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
