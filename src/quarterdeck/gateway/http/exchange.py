"""A request and its answer on a connection, as the request lifecycle sees them.

Two implementations: `front_exchange.FrontExchange` on the connection itself, `asgi_exchange.AsgiExchange` over ASGI.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from quarterdeck.gateway.http.requests_in_flight import RequestInFlight

Headers = Sequence[tuple[bytes, bytes]]


class Exchange(Protocol):
    """Read the body with `read` or with `next_piece`. Then `answer`, or `begin`, any number of `put`, `end`.

    Each of the asynchronous methods returns when the connection has room again: of a whole answer, when all of it but
    some KiB has left this process. Written to a client that is gone, an answer is dropped.
    """

    in_flight: RequestInFlight | None
    """Set by the lifecycle before the body is read. A hang-up cancels it; a body being read over ASGI is an exception:
    there it is a ClientGoneError."""

    count: Callable[[int], None] | None
    """Called with the size of each piece of the body as it arrives. Set by the lifecycle for a body that may be large;
    None: its size is not counted before it is complete."""

    async def read(self, limit: int) -> bytes:
        """The whole body, of at most `limit` bytes. Raises RequestTooLargeError and ClientGoneError."""
        ...

    async def next_piece(self) -> bytes:
        """The next piece of the body; b"" after the last. Reading from the connection pauses while pieces wait here.

        Raises ClientGoneError.
        """
        ...

    def watch(self) -> None:
        """Watch for a hang-up although the body was not read to its end; the rest is dropped."""
        ...

    async def answer(self, status: int, headers: Headers, body: bytes) -> None:
        """Write a whole answer. `headers` lack the content-length."""
        ...

    async def begin(self, status: int, headers: Headers) -> None:
        """Write the head of a streamed answer."""
        ...

    def put(self, piece: bytes) -> bool:
        """Write a piece. False: the connection is full, and `room` must be awaited before the next."""
        ...

    async def room(self) -> None:
        """Wait until there is room, with `in_flight.patience` seconds as the caller's deadline."""
        ...

    async def end(self) -> None:
        """Complete a streamed answer."""
        ...

    def abort(self) -> None:
        """Close the connection and drop what it has not sent."""
        ...

    def close(self) -> None:
        """The lifecycle is done with the request."""
        ...
