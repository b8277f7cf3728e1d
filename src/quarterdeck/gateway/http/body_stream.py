"""A request's body for a handler that reads it piece by piece."""

from time import monotonic
from typing import NoReturn, Self

from quarterdeck.gateway.http.exchange import Exchange
from quarterdeck.gateway.http.requests_in_flight import RequestInFlight
from quarterdeck.net.asgi import too_large

MIN_BYTES_PER_SECOND = 16 * 1024
"""On average: one that is slower holds its place and its connection for days. A modem is four times as fast."""
DROPPED_BYTES = 64 * 1024 * 1024
"""The most that is read and dropped of a body that is refused."""


class BodyStream:
    """An async iterator of pieces. While the handler takes none, none is read from the connection: a body of any size
    holds some 320 KiB of memory.

    Each piece must come within `seconds`, and of all together MIN_BYTES_PER_SECOND after that. A body above `limit`
    bytes raises RequestTooLargeError. The handler should read to the end before it does other long work: until then a
    hang-up shows only to a read, as ClientGoneError.
    """

    __slots__ = ("_exchange", "_in_flight", "_limit", "_seconds", "_size", "_started")

    def __init__(self, exchange: Exchange, in_flight: RequestInFlight, *, limit: int, seconds: float) -> None:
        self._exchange = exchange
        self._in_flight = in_flight
        self._limit = limit
        self._seconds = seconds
        self._size = 0
        self._started = monotonic()

    def limit_to(self, limit: int) -> None:
        """Lower the limit, before the first piece."""
        self._limit = min(self._limit, limit)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        piece = await self._next()
        if not piece:
            raise StopAsyncIteration
        self._size += len(piece)
        if self._size > self._limit:
            await self.refuse()
        return piece

    async def refuse(self) -> NoReturn:
        """Always raises RequestTooLargeError. Before that, up to twice `limit` bytes are read and dropped: a client
        whose connection is closed while it writes sees a broken connection instead of the 413."""
        until = min(2 * self._limit, self._size + DROPPED_BYTES)
        while self._size <= until:
            piece = await self._next()
            if not piece:
                raise too_large(self._limit, unread=False)
            self._size += len(piece)
        raise too_large(self._limit, unread=True)

    async def _next(self) -> bytes:
        in_time = self._started + self._seconds + self._size / MIN_BYTES_PER_SECOND
        self._in_flight.deadline = min(monotonic() + self._seconds, in_time)
        piece = await self._exchange.next_piece()
        self._in_flight.deadline = 0.0
        return piece
