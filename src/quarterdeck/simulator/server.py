"""The server process: uvicorn on a port, extended for fault injection.

Apps get the connection's transport as an ASGI extension, so that a fault can close it, and a fault can close the port
for some time. On SIGTERM the engine drains, the port closes, running requests finish, and the exit code is 0.
"""

import asyncio
import socket
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from quarterdeck.net.asgi import ASGIApp
from quarterdeck.net.signals import on_signals
from quarterdeck.net.sockets import BACKLOG, http_url, listen
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.simulator.app import App
from quarterdeck.simulator.client_connection import TRANSPORT
from quarterdeck.simulator.config import SimulatorConfig
from quarterdeck.simulator.engine import Engine


class TransportProtocol(HttpToolsProtocol):
    """uvicorn's protocol with the transport in the scope."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}


def server_config(app: ASGIApp, options: SimulatorConfig, *, drain_seconds: int | None = None) -> uvicorn.Config:
    """uvicorn's configuration for `app`. `drain_seconds`: for running requests at the end. None: without a limit."""
    return uvicorn.Config(
        app,
        http=TransportProtocol,
        ws="none",
        lifespan="off",
        loop="uvloop",
        log_level="warning",
        access_log=False,
        server_header=False,
        backlog=BACKLOG,
        timeout_keep_alive=max(int(options.http_timeout_keep_alive), 1),
        timeout_graceful_shutdown=drain_seconds,
    )


def url_of(opened: socket.socket) -> str:
    """The URL of a listening socket."""
    host, port = opened.getsockname()[:2]
    return http_url(host, port)


class Server(EmbeddedServer):
    def __init__(self, engine: Engine, on_listening: Callable[[str], None]) -> None:
        super().__init__(server_config(App(engine), engine.config))
        self._engine = engine
        self._on_listening = on_listening
        self._reopening: asyncio.Task[None] | None = None
        self._address = (engine.config.host, engine.config.port)
        engine.listener = self

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        on_signals(self._stop)
        await super().serve(sockets)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        opened = listen(*self._address)
        self._address = opened.getsockname()[:2]
        url = url_of(opened)
        self._engine.url = self._engine.url or url
        await super().startup([opened])
        self._on_listening(url)

    def refuse(self, seconds: float) -> None:
        """Close the port for `seconds`: new connections are refused, open ones continue."""
        if self._reopening is None:
            for server in self.servers:
                server.close()
            self._reopening = asyncio.get_running_loop().create_task(self._reopen(seconds))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._engine.draining = True
        if self._engine.config.drain_delay:
            await asyncio.sleep(self._engine.config.drain_delay)
        if self._reopening is not None:
            self._reopening.cancel()
        self.config.timeout_graceful_shutdown = max(int(self._engine.config.drain_timeout), 1)
        await super().shutdown(sockets)

    def _stop(self) -> None:
        """Drain; at the second signal exit without waiting."""
        self.force_exit = self.should_exit
        self.should_exit = True

    async def _reopen(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await super().startup([listen(*self._address)])
        self._reopening = None
