"""An exchange on the connection itself, without ASGI.

uvicorn takes it for one of its own `RequestResponseCycle`s (`FrontProtocol.cycle`), so that pipelining, shutdown and
keep-alive stay uvicorn's. Of a cycle it reads `response_complete`; it sets `keep_alive` (shutdown) and `disconnected`
(connection lost), and calls `message_event.set()`. All four are here; uvicorn is pinned, and tests/gateway/http/
test_front.py fails where a later version reads more.
"""

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Protocol

from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE
from uvicorn.server import ServerState

from quarterdeck.gateway.http.exchange import Headers
from quarterdeck.gateway.http.registry import Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.http.requests_in_flight import RequestInFlight
from quarterdeck.net.asgi import ClientGoneError

CLOSE = (b"connection", b"close")
_with_colon = b": ".join
LARGE_BYTES = 64 * 1024
"""Larger answers are written apart from their heads."""


class Connection(Protocol):
    """What an exchange needs of FrontProtocol."""

    transport: asyncio.Transport
    flow: FlowControl
    server_state: ServerState
    unused_event: asyncio.Event

    def end(self, exchange: "FrontExchange") -> None:
        """The answer is written."""
        ...


class FrontExchange:
    """Made by FrontProtocol when a request's head has come."""

    __slots__ = (
        "_connection",
        "_flow",
        "_is_dropping",
        "_state",
        "_unread",
        "_waiter",
        "count",
        "disconnected",
        "has_whole_body",
        "head",
        "in_flight",
        "keep_alive",
        "message_event",
        "pieces",
        "response_complete",
        "route",
        "transport",
    )

    def __init__(self, connection: Connection, route: Route, head: RequestHead, *, keep_alive: bool) -> None:
        self.route = route
        self.head = head
        self.keep_alive = keep_alive
        self.disconnected = False
        self.response_complete = False
        self.has_whole_body = False
        self.transport: asyncio.Transport = connection.transport
        self.message_event = connection.unused_event
        self.pieces: list[bytes] = []
        """Of the body, as they arrive."""
        self.in_flight: RequestInFlight | None = None
        self.count: Callable[[int], None] | None = None
        self._connection = connection
        self._flow = connection.flow
        self._state = connection.server_state
        self._unread = 0
        self._is_dropping = False
        self._waiter: asyncio.Future[None] | None = None

    # called by FrontProtocol

    def piece_arrived(self, size: int) -> None:
        """Of a streamed body: reading from the connection pauses while much of it waits here."""
        if self._is_dropping:
            self.pieces.clear()
            return
        self._unread += size
        if self._unread > HIGH_WATER_LIMIT:
            self._flow.pause_reading()
        self._wake()

    def body_arrived(self) -> None:
        self.has_whole_body = True
        self._wake()

    def hang_up(self) -> None:
        """The connection is lost, or about to be closed."""
        self.disconnected = True
        if self.in_flight is not None:
            self.in_flight.hang_up()

    # the body

    async def read(self, limit: int) -> bytes:
        # Nothing to check: a content-length above the limit does not come this way.
        if not self.has_whole_body:
            await self._wait()
        if self.disconnected:
            raise ClientGoneError
        pieces, self.pieces = self.pieces, []
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def next_piece(self) -> bytes:
        while not self.pieces and not self.has_whole_body:
            await self._wait()
        if self.disconnected:
            raise ClientGoneError
        pieces, self.pieces = self.pieces, []
        self._unread = 0
        self._flow.resume_reading()
        return b"".join(pieces)

    def watch(self) -> None:
        """A connection whose reading is paused does not report its loss."""
        self._is_dropping = True
        self.pieces.clear()
        self._flow.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

    # the answer

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        if self.disconnected:
            return
        lines = self._head(status, headers)
        lines.append(b"content-length: %d\r\n\r\n" % len(body))
        if len(body) <= LARGE_BYTES:
            lines.append(body)
            self.transport.write(b"".join(lines))
        else:  # without a copy
            self.transport.write(b"".join(lines))
            self.transport.write(body)
        if self._flow.write_paused:
            await self._flow.drain()
        self._connection.end(self)

    async def begin(self, status: int, headers: Headers) -> None:
        if self.disconnected:
            return
        lines = self._head(status, headers)
        lines.append(b"transfer-encoding: chunked\r\n\r\n")
        self.transport.write(b"".join(lines))

    def put(self, piece: bytes) -> bool:
        if piece and not self.disconnected:  # an empty chunk would end the answer
            self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
        return not self._flow.write_paused

    async def room(self) -> None:
        in_flight = self.in_flight
        if in_flight is not None:
            in_flight.deadline = monotonic() + in_flight.patience
        await self._flow.drain()
        if in_flight is not None:
            in_flight.deadline = 0.0

    async def end(self) -> None:
        if self.disconnected:
            return
        self.transport.write(b"0\r\n\r\n")
        self._connection.end(self)

    def abort(self) -> None:
        self.transport.abort()

    def close(self) -> None:
        self.in_flight = self.count = None
        self.pieces = []  # the connection refers to this exchange until the next request
        if self._unread:  # the rest of a streamed body is dropped, so that the next request is read
            self._flow.resume_reading()
        if not self.response_complete and not self.disconnected:
            self.transport.abort()  # an incomplete answer must not look complete

    def _head(self, status: int, headers: Headers) -> list[bytes]:
        if status >= 400 and CLOSE in headers:  # only errors have it
            self.keep_alive = False
        elif not self.keep_alive:
            headers = (*headers, CLOSE)
        lines = b"\r\n".join(map(_with_colon, (*self._state.default_headers, *headers)))  # without a loop of ours
        return [STATUS_LINE[status], lines, b"\r\n"]
