"""The fast way to the hot path: requests to models are taken off before there is an ASGI scope.

uvicorn's cycle of scope, events and messages costs twice what the pipeline does (docs/adr/0010-front-before-asgi.md).
What is ordinary (POST to a model's route over HTTP/1.1, a content-length within bounds, a key in memory) is read and
answered here; everything else goes uvicorn's way on the same connection, request by request, and reaches the same
`HotPath` over ASGI. An exchange looks to uvicorn like one of its own cycles, so that pipelined requests, its shutdown
and its keep-alive go on working.
"""

import asyncio
from functools import partial
from time import monotonic
from typing import Any, cast

import uvicorn
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from quarterdeck.errors import APIError
from quarterdeck.gateway.http.callers import Caller
from quarterdeck.gateway.http.lifecycle import OPERATIONS_BY_TARGET, Asked, HotPath
from quarterdeck.gateway.http.server import KEEP_ALIVE_SECONDS, MAX_HEAD_BYTES, BoundedProtocol
from quarterdeck.gateway.http.wire import Headers
from quarterdeck.net.asgi import ClientGoneError
from quarterdeck.net.sockets import BACKLOG
from quarterdeck.net.uvicorn_server import EmbeddedServer
from quarterdeck.net.write_batching import WriteBatches

CLOSE = (b"connection", b"close")
MAX_PIPELINED = 16
"""Requests that wait on one connection while it is still read."""


class Exchange:
    """One request and its answer: body, wire, and what uvicorn looks at of a cycle."""

    __slots__ = (
        "_caller",
        "_flow",
        "_protocol",
        "_state",
        "_waiter",
        "asked",
        "disconnected",
        "is_whole",
        "keep_alive",
        "message_event",
        "pieces",
        "response_complete",
        "transport",
    )

    def __init__(self, protocol: "FrontProtocol", asked: Asked, *, keep_alive: bool) -> None:
        self.asked = asked
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.is_whole = False
        """The body has come."""
        self.transport: asyncio.Transport = protocol.transport
        self.message_event = protocol.news
        self._protocol = protocol
        self._flow: FlowControl = protocol.flow
        self._state: ServerState = protocol.server_state
        self.pieces: list[bytes] = []
        """Of the body, as they come."""
        self._caller: Caller | None = None
        self._waiter: asyncio.Future[None] | None = None

    # the body

    def complete(self) -> None:
        self.is_whole = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def read(self, limit: int) -> bytes:
        """Its content-length was found to be within the limit."""
        if not self.is_whole:
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        if self.disconnected:
            raise ClientGoneError
        pieces, self.pieces = self.pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def watch(self, caller: Caller) -> None:
        self._caller = caller

    def close(self) -> None:
        self._caller = None
        if not self.response_complete and not self.disconnected:
            self.transport.abort()  # an answer that was not finished must not be taken for one that was

    def hang_up(self) -> None:
        """The caller is gone."""
        self.disconnected = True
        if self._caller is not None:
            self._caller.hang_up()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # the wire

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        if self.disconnected:
            return
        lines = self._head(status, headers)
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        lines.append(body)
        self.transport.write(b"".join(lines))
        if self._flow.write_paused:
            await self._flow.drain()
        self._protocol.end(self)

    async def begin(self, status: int, headers: Headers) -> None:
        if self.disconnected:
            return
        lines = self._head(status, headers)
        lines.append(b"transfer-encoding: chunked\r\n\r\n")
        self.transport.write(b"".join(lines))

    def sink(self, caller: Caller) -> "Exchange":
        return self  # `watch` has set the caller

    async def write(self, piece: bytes) -> None:
        if not self.put(piece):
            await self.room()

    def put(self, piece: bytes) -> bool:
        if not self.disconnected:
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return not self._flow.write_paused

    async def room(self) -> None:
        caller = self._caller
        if caller is not None:
            caller.deadline = monotonic() + caller.patience
        await self._flow.drain()
        if caller is not None:
            caller.deadline = 0.0

    async def end(self) -> None:
        if self.disconnected:
            return
        self.transport.write(b"0\r\n\r\n")
        self._protocol.end(self)

    def abort(self) -> None:
        self.transport.abort()

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        if CLOSE in headers:
            self.keep_alive = False
        return [STATUS_LINE[status], *[b"%b: %b\r\n" % each for each in (*self._state.default_headers, *headers)]]


class FrontProtocol(BoundedProtocol):
    """One connection. `config.loaded_app` is the HotPath."""

    def __init__(self, writes: WriteBatches, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._writes = writes
        self._hot: HotPath = self.config.loaded_app
        self._arriving: Exchange | None = None
        self._answering: Exchange | None = None
        self._task: asyncio.Task[None] | None = None
        self._started: asyncio.Future[None] | None = None
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self.news = asyncio.Event()
        """What uvicorn sets to wake a cycle; an exchange has its own way."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(cast(asyncio.Transport, self._writes.wrap(transport)))

    def connection_lost(self, exc: Exception | None) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._answering is not None:
            self._answering.hang_up()
        if self._started is not None:
            self._started.cancel()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        """uvicorn's scope is made once it is known that it is needed."""
        self._is_in_head = self._has_begun = True
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        exchange = self._taken()
        if exchange is not None:
            self._is_in_head = False
            if self._head_timer is not None:
                self._end_head_timer()
            self._arriving = self.cycle = exchange  # type: ignore[assignment]  # looks like one of uvicorn's
            self._start(exchange)  # it runs once this piece is parsed, and most often that has the body
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        if self._answering is not None and len(self.pipeline) < MAX_PIPELINED:
            # uvicorn stops reading while a request waits for its turn; we would not see the caller go.
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        if self._arriving is not None:
            self._framing = 0
            self._arriving.pieces.append(body)
        else:
            super().on_body(body)

    def on_message_complete(self) -> None:
        exchange, self._arriving = self._arriving, None
        if exchange is None:
            super().on_message_complete()
            return
        exchange.complete()
        self._end_message()

    def end(self, exchange: Exchange) -> None:
        """The answer is written."""
        exchange.response_complete = True
        self._answering = None
        if self._arriving is exchange:  # refused before its body had come: the rest is dropped, as uvicorn drops it
            self._arriving = None
        self.server_state.total_requests += 1
        transport = self.transport
        if not exchange.keep_alive:
            transport.close()
        if transport.is_closing():
            return
        if self.pipeline:
            self.on_response_complete()
            return
        self._idle_since = self.loop.time()
        if self._idle_timer is None:  # one timer a connection, not one a request
            self._idle_timer = self.loop.call_later(KEEP_ALIVE_SECONDS, self._close_if_idle)

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _taken(self) -> Exchange | None:
        """The request, where it is an ordinary one and nothing else is under way on this connection."""
        operation = OPERATIONS_BY_TARGET.get(self.url)
        parser = self.parser
        if (
            operation is None
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or parser.should_upgrade()
            or self.expect_100_continue
            or self._answering is not None
            or (self.cycle is not None and not self.cycle.response_complete)
            or (self._head_bytes + self._piece > MAX_HEAD_BYTES and self._is_head_too_large())
        ):
            return None
        asked = self._hot.ordinary(operation, self.headers)
        return None if asked is None else Exchange(self, asked, keep_alive=parser.should_keep_alive())

    def _start(self, exchange: Exchange) -> None:
        self._answering = exchange
        if self._started is not None:
            self._started.set_result(None)
            self._started = None
        elif self._task is None or self._task.done():
            self._task = self.loop.create_task(self._serve())

    async def _serve(self) -> None:
        """One exchange after the other: a task of its own for each would cost as much as authentication does."""
        task = self._task
        while task is not None and (exchange := self._answering) is not None:
            await self._hot.serve(exchange.asked, exchange, exchange, task)
            if not exchange.response_complete or self.transport.is_closing():
                break
            if self._answering is None:
                self._started = self.loop.create_future()
                await self._started

    def _refuse(self, error: APIError) -> None:
        if self._answering is not None:  # nothing may be written into an answer that is under way
            self._abort()
            return
        super()._refuse(error)

    def _abort(self) -> None:
        if self._answering is not None:
            self._answering.hang_up()
        super()._abort()

    def _close_if_idle(self) -> None:
        self._idle_timer = None
        if self.transport.is_closing():
            return
        left = self._idle_since + KEEP_ALIVE_SECONDS - self.loop.time()
        is_busy = self._arriving is not None or (self.cycle is not None and not self.cycle.response_complete)
        if left <= 0 and not is_busy:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(max(left, 1.0), self._close_if_idle)


def create_server(app: HotPath, host: str, port: int) -> EmbeddedServer:
    """Configured for the gateway: uvloop and httptools, no access log (ours is `access`), no websockets."""
    return EmbeddedServer(
        uvicorn.Config(
            app,
            host=host,
            port=port,
            http=partial(FrontProtocol, WriteBatches()),  # type: ignore[arg-type]  # it is only called
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            # What is under way has been waited for before uvicorn is told to end.
            timeout_graceful_shutdown=2,
            backlog=BACKLOG,
        )
    )
