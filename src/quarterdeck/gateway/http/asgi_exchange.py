"""An exchange over ASGI: what the front leaves to uvicorn, and any other ASGI server."""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from quarterdeck.gateway.http.exchange import Headers
from quarterdeck.gateway.http.requests_in_flight import RequestInFlight
from quarterdeck.net.asgi import ClientGoneError, Message, Receive, Scope, Send, read_body, send_response

ABORT = "quarterdeck.abort"
"""ASGI extension of our server: `call` closes the connection and drops what it has not sent; `drain` waits until the
client has taken it."""


class AsgiExchange:
    """Once the body is read, a task waits for `http.disconnect`: ASGI reports a hang-up only to `receive`."""

    __slots__ = (
        "_content_length",
        "_has_whole_body",
        "_piece",
        "_receive",
        "_send",
        "_watcher",
        "abort",
        "count",
        "drain",
        "in_flight",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send, content_length: int | None) -> None:
        self.in_flight: RequestInFlight | None = None
        self.count: Callable[[int], None] | None = None
        self.abort = abort_of(scope)
        self.drain = drain_of(scope)
        self._receive = receive
        self._send = send
        self._content_length = content_length
        self._has_whole_body = False
        self._piece = b""
        """The one piece that waits for `room`: ASGI's `send` must be awaited."""
        self._watcher: asyncio.Task[None] | None = None

    async def read(self, limit: int) -> bytes:
        body = await read_body(counted(self._receive, self.count), limit, self._content_length)
        self.watch()
        return body

    async def next_piece(self) -> bytes:
        while not self._has_whole_body:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            self._has_whole_body = not message.get("more_body", False)
            if self._has_whole_body:
                self.watch()
            piece: bytes = message.get("body", b"")
            if piece:
                return piece
        return b""

    def watch(self) -> None:
        if self._watcher is None and self.in_flight is not None:
            self._watcher = asyncio.get_running_loop().create_task(self._watch(self.in_flight))

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        await send_response(self._send, status, body, headers)
        await self.drain()

    async def begin(self, status: int, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def put(self, piece: bytes) -> bool:
        self._piece = piece
        return False

    async def room(self) -> None:
        in_flight = self.in_flight
        if in_flight is not None:
            in_flight.deadline = monotonic() + in_flight.patience
        await self._send({"type": "http.response.body", "body": self._piece, "more_body": True})
        if in_flight is not None:
            in_flight.deadline = 0.0

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})

    def close(self) -> None:
        self.count = None
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None  # it keeps its exception, whose frame refers to this exchange

    async def _watch(self, in_flight: RequestInFlight) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # the rest of a body, or an empty end that a server repeats
        in_flight.hang_up()


def abort_of(scope: Scope) -> Callable[[], None]:
    """Our server's `abort`. Another server closes a connection whose answer was not completed."""
    abort: Callable[[], None] = (scope.get("extensions") or {}).get(ABORT, {}).get("call", _ignore)
    return abort


def drain_of(scope: Scope) -> Callable[[], Awaitable[None]]:
    """Our server's wait until the client has taken what was sent: the last `send` of an answer returns before that.

    Another server's is unknown.
    """
    drain: Callable[[], Awaitable[None]] = (scope.get("extensions") or {}).get(ABORT, {}).get("drain", _return)
    return drain


def counted(receive: Receive, count: Callable[[int], None] | None) -> Receive:
    """`receive`, which calls `count` with the size of each piece of the body."""
    if count is None:
        return receive

    async def counting() -> Message:
        message = await receive()
        count(len(message.get("body", b"")))
        return message

    return counting


def _ignore() -> None: ...


async def _return() -> None: ...
