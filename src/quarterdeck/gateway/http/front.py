"""The fast path: ordinary requests to registered routes are served before there is an ASGI scope.

uvicorn's cycle of scope, events and messages costs twice as much as the pipeline (docs/adr/0010-front-before-asgi.md).
An ordinary request is a POST to a route without parameters over HTTP/1.1, with a content-length within bounds and a key
in memory. All others go through uvicorn on the same connection, request by request, and reach the same
`RequestLifecycle` over ASGI.

This is a subclass of uvicorn's protocol and relies on its attributes `cycle`, `pipeline`, `flow` and `server_state`,
its parser callbacks (`on_*`) and what `front_exchange` says of cycles.
"""

import asyncio
from collections.abc import Sequence
from typing import Any, cast

from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, RequestResponseCycle

from quarterdeck.errors import APIError, ServiceUnavailableError
from quarterdeck.gateway.http import error_responses
from quarterdeck.gateway.http.bounded_protocol import MAX_HEAD_BYTES, BoundedProtocol
from quarterdeck.gateway.http.connections import MAX_LINGERING, Connections
from quarterdeck.gateway.http.front_exchange import FrontExchange
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.net.sockets import discard_unread, has_unread
from quarterdeck.net.write_batching import BatchedTransport, WriteBatches

LINGER_SECONDS = 0.5
"""For a refused connection, so that its client can read why."""
MAX_PIPELINED = 16
"""Requests that may wait on one connection while it is still read."""
MAX_WAITING = 64
"""Requests that may wait on one connection: a piece of 256 KiB could hold ten thousand, of some 6 KB each. The
connection is closed when these are answered; its client sends the others again, as RFC 9112 has it."""
TOO_MANY_CONNECTIONS = STATUS_LINE[503] + error_responses.closing(
    ServiceUnavailableError("The gateway has too many open connections.", code="overloaded")
)
"""The answer to a connection that is refused."""


class TooManyPipelinedError(Exception):
    """Stops the parser."""


class FrontProtocol(BoundedProtocol):
    """One connection. `config.loaded_app` is the RequestLifecycle."""

    def __init__(
        self, connections: Connections, write_batches: WriteBatches, head_seconds: float, *args: Any, **kwargs: Any
    ) -> None:
        super().__init__(head_seconds, *args, **kwargs)
        self._admitted = connections
        self._made = 0.0
        self._is_input_dropped = False
        """Nothing more is read: the connection is refused, or about to be closed."""
        self._linger_timer: asyncio.TimerHandle | None = None
        self._write_batches = write_batches
        self._lifecycle: RequestLifecycle = self.config.loaded_app
        self._arriving: FrontExchange | None = None
        """Its body is being received."""
        self._answering: FrontExchange | None = None
        self._task: asyncio.Task[None] | None = None
        """Serves this connection's exchanges, one after the other."""
        self._next_exchange: asyncio.Future[None] | None = None
        self._idle_since = 0.0
        self._idle_timer: asyncio.TimerHandle | None = None
        self.unused_event = asyncio.Event()
        """uvicorn sets it to wake a cycle; an exchange does not wait for it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        wrapped = self._write_batches.wrap(transport)
        wrapped.on_unsent = self._bound_close
        super().connection_made(cast(asyncio.Transport, wrapped))
        self._made = self.loop.time()
        if not self._admitted.admit(self):
            self._refuse_connection()

    def connection_lost(self, exc: Exception | None) -> None:
        self._admitted.discard(self)
        if self._linger_timer is not None:
            self._linger_timer.cancel()
            self._admitted.lingering -= 1
        if self._idle_timer is not None:
            self._idle_timer.cancel()
        if self._next_exchange is not None:
            self._next_exchange.set_result(None)  # not cancelled: a task would keep the exception, and that its frame
            self._next_exchange = None
        super().connection_lost(exc)
        # References in a circle would keep the bodies and buffers of lost connections until a full garbage collection.
        self.scope = self.cycle = self._running = None  # type: ignore[assignment]
        self._arriving = self._answering = None
        cast(BatchedTransport, self.transport).on_unsent = None

    def data_received(self, data: bytes) -> None:
        if not self._is_input_dropped:
            super().data_received(data)

    @property
    def has_unread(self) -> bool:
        """Whether its client has sent what was not read yet."""
        return has_unread(self.transport)

    @property
    def waiting_since(self) -> tuple[bool, float] | None:
        """Whether it has had a request with a valid key, and since when it waits. None: a request is being served."""
        return None if self._is_answering() else (self._task is not None, self._idle_since or self._made)

    def evict(self) -> None:
        """Close it for a new one. Its client may be about to send its first request, and reads why it fails."""
        if self._task is None and not self._has_begun:
            self.transport.write(TOO_MANY_CONNECTIONS)
            discard_unread(self.transport)
        self.transport.close()
        self.loop.call_later(LINGER_SECONDS, self.transport.abort)  # it may still hold an answer that is not read

    def _refuse_connection(self) -> None:
        """Answer before anything is read. A connection that is closed before its request was read is reset, and its
        client may lose the answer: some stay open for a moment, and from the others what has arrived is read."""
        self._is_input_dropped = True
        self._end_head_timer()
        self.transport.write(TOO_MANY_CONNECTIONS)
        if self._admitted.lingering < MAX_LINGERING:
            self._admitted.lingering += 1
            self._linger_timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)
        else:
            discard_unread(self.transport)
            self.transport.close()

    def on_message_begin(self) -> None:
        """uvicorn's scope is made later, if it turns out to be needed."""
        self._is_in_head = self._has_begun = True
        self.url = b""
        self.headers = []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._set_offer_aside()
            return
        if len(self.pipeline) >= MAX_WAITING:
            self._is_input_dropped = True
            self.pipeline[0][0].keep_alive = False  # the latest
            raise TooManyPipelinedError
        exchange = self._take()
        if exchange is not None:
            self._is_in_head = False
            if self._head_timer is not None:
                self._end_head_timer()
            self._arriving = self.cycle = exchange  # type: ignore[assignment]  # stands in for one of uvicorn's
            self._start(exchange)  # it runs after this piece is parsed, which mostly contains the body
            return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()
        if self._answering is not None and len(self.pipeline) < MAX_PIPELINED:
            # uvicorn stops reading while a pipelined request waits; a hang-up would go unnoticed.
            self.flow.resume_reading()

    def on_body(self, body: bytes) -> None:
        exchange = self._arriving
        if exchange is None:
            super().on_body(body)
            return
        self._framing = 0
        exchange.pieces.append(body)
        if exchange.count is not None:
            exchange.count(len(body))
        if exchange.route.body.is_streamed:
            exchange.piece_arrived(len(body))

    def on_message_complete(self) -> None:
        exchange, self._arriving = self._arriving, None
        if exchange is None:
            super().on_message_complete()
            return
        exchange.body_arrived()
        self._end_message()

    def end(self, exchange: FrontExchange) -> None:
        """The answer is written."""
        exchange.response_complete = True
        self._answering = None
        if self._arriving is exchange:  # answered before its body was received: the rest is dropped, as uvicorn does
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
        if self._idle_timer is None:  # one timer per connection, not per request
            self._idle_timer = self.loop.call_later(self._lifecycle.keep_alive.current, self._close_if_idle)

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        self.timeout_keep_alive = self._lifecycle.keep_alive.current  # type: ignore[assignment]  # only call_later's
        super().on_response_complete()

    def _take(self) -> FrontExchange | None:
        """The request as an exchange, if it is ordinary and no other is in flight on this connection."""
        route = self._lifecycle.registry.posts.get(self.url)
        parser = self.parser
        if (
            route is None
            or parser.get_method() != b"POST"
            or parser.get_http_version() != "1.1"
            or self.expect_100_continue
            or self._answering is not None
            or (self.cycle is not None and not self.cycle.response_complete)
            or (self._head_bytes + self._piece > MAX_HEAD_BYTES and self._is_head_too_large())
        ):
            return None
        head = self._lifecycle.head_for_front(route, self.headers)
        if head is None:
            return None
        keep_alive = parser.should_keep_alive() and self._lifecycle.keeps_connections
        return FrontExchange(self, route, head, keep_alive=keep_alive)

    def _start(self, exchange: FrontExchange) -> None:
        self._answering = exchange
        if self._next_exchange is not None:
            self._next_exchange.set_result(None)
            self._next_exchange = None
        elif self._task is None or self._task.done():
            self._task = self.loop.create_task(self._serve())

    async def _serve(self) -> None:
        """One exchange after the other: a task for each would cost as much as authentication does."""
        task = self._task
        while task is not None and (exchange := self._answering) is not None:
            await self._lifecycle.serve(exchange.route, exchange.head, exchange, task)
            if not exchange.response_complete or self.transport.is_closing():
                break
            if self._answering is None:
                self._next_exchange = self.loop.create_future()
                await self._next_exchange

    def send_400_response(self, msg: str) -> None:
        if self._is_input_dropped:
            return
        if self._is_in_head and self._is_answering() and not self.transport.is_closing():
            # Bytes after a whole request, mostly of a Content-Length that counts characters: its answer says what is
            # wrong, and is the connection's last.
            self._is_input_dropped = True
            latest = self.pipeline[0][0] if self.pipeline else self._answering or self._running
            if latest is not None:
                latest.keep_alive = False
            return
        super().send_400_response(msg)

    def _refusal_headers(self, headers: list[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        return self._lifecycle.cross_origin(headers)

    def _refused(self, error: APIError) -> None:
        self._lifecycle.log_refusal(error)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        cycle.keep_alive = cycle.keep_alive and self._lifecycle.keeps_connections
        super()._start_asgi_task(cycle, app)

    def _is_answering(self) -> bool:
        return self._answering is not None or super()._is_answering()

    def _hang_up(self) -> None:
        if self._answering is not None:
            self._answering.hang_up()
        super()._hang_up()

    def _bound_close(self) -> None:
        """The connection was closed with an answer that its client has not read."""
        self.loop.call_later(self._lifecycle.write_seconds, self.transport.abort)

    def _close_if_idle(self) -> None:
        self._idle_timer = None
        if self.transport.is_closing():
            return
        left = self._idle_since + self._lifecycle.keep_alive.current - self.loop.time()
        is_busy = self._arriving is not None or (self.cycle is not None and not self.cycle.response_complete)
        if left <= 0 and not is_busy:
            self.transport.close()
        else:
            self._idle_timer = self.loop.call_later(max(left, 1.0), self._close_if_idle)
