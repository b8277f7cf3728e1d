"""How an answer reaches its caller: the little of HTTP that the hot path needs, and ASGI's way of saying it.

`front` has the other way, for callers whose requests are taken off before ASGI.
"""

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Protocol

from quarterdeck.gateway.http.callers import Caller
from quarterdeck.inference.call import Sink
from quarterdeck.net.asgi import Scope, Send

Headers = Sequence[tuple[bytes, bytes]]

ABORT = "quarterdeck.abort"
"""The ASGI extension by which our server lets a connection be dropped with what is not yet sent."""


class Wire(Protocol):
    """One answer: `answer` alone, or `begin`, any number of `write`, `end`. Each returns when there is room again."""

    def sink(self, caller: Caller) -> Sink:
        """Destination of a streamed answer's pieces, after `begin`. While it waits for room, the caller has a
        deadline of `caller.patience` seconds."""
        ...

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """All of it. `headers` names no content-length."""
        ...

    async def begin(self, status: int, headers: Headers) -> None: ...

    async def write(self, piece: bytes) -> None: ...

    async def end(self) -> None: ...

    def abort(self) -> None:
        """Drop the connection with all that waits in it."""
        ...


class AsgiWire:
    """Over `send`."""

    __slots__ = ("_send", "abort")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._send = send
        # Another server has no way to drop a connection; it closes it when the answer is not finished.
        self.abort: Callable[[], None] = scope.get("extensions", {}).get(ABORT, {}).get("call", _keep)

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        await self.begin(status, [*headers, (b"content-length", b"%d" % len(body))])
        await self._send({"type": "http.response.body", "body": body})

    async def begin(self, status: int, headers: Headers) -> None:
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    def sink(self, caller: Caller) -> Sink:
        return AsgiSink(self, caller)

    async def write(self, piece: bytes) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b""})


class AsgiSink:
    """Holds one piece at a time: ASGI's `send` has to be awaited, which `room` does."""

    __slots__ = ("_caller", "_piece", "_wire")

    def __init__(self, wire: AsgiWire, caller: Caller) -> None:
        self._wire = wire
        self._caller = caller
        self._piece = b""

    def put(self, piece: bytes) -> bool:
        self._piece = piece
        return False

    async def room(self) -> None:
        self._caller.deadline = monotonic() + self._caller.patience
        await self._wire.write(self._piece)
        self._caller.deadline = 0.0


def _keep() -> None: ...
