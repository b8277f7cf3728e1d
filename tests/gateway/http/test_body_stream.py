"""A body read piece by piece, without a connection. With one: test_long_routes."""

import asyncio
from typing import cast

import pytest

from quarterdeck.errors import RequestTooLargeError
from quarterdeck.gateway.http.body_stream import BodyStream
from quarterdeck.gateway.http.exchange import Exchange
from quarterdeck.gateway.http.requests_in_flight import RequestInFlight


class Pieces:
    """The body's side of an exchange. Notes the caller's deadline while a piece is waited for."""

    def __init__(self, *pieces: bytes) -> None:
        self.left = list(pieces)
        self.in_flight: RequestInFlight | None = None
        self.deadlines: list[float] = []

    async def next_piece(self) -> bytes:
        assert self.in_flight is not None
        self.deadlines.append(self.in_flight.deadline)
        return self.left.pop(0) if self.left else b""


async def body(pieces: Pieces, *, limit: int = 10) -> BodyStream:
    pieces.in_flight = RequestInFlight(asyncio.create_task(asyncio.sleep(0)))
    return BodyStream(cast(Exchange, pieces), pieces.in_flight, limit=limit, seconds=60)


async def test_each_piece_has_a_deadline_and_the_handler_has_none() -> None:
    pieces = Pieces(b"a", b"b")
    async for _ in await body(pieces):
        assert pieces.in_flight is not None
        assert pieces.in_flight.deadline == 0
    assert len(pieces.deadlines) == 3
    assert all(pieces.deadlines)


async def test_a_body_that_ended_stays_ended() -> None:
    stream = await body(Pieces(b"a"))
    assert [piece async for piece in stream] == [b"a"]
    assert [piece async for piece in stream] == []


@pytest.mark.parametrize(("size", "closes"), [(11, False), (20, False), (100, True)])
async def test_above_the_limit_as_much_again_is_dropped(size: int, closes: bool) -> None:
    pieces = Pieces(*[b"x"] * size)
    read = 0
    with pytest.raises(RequestTooLargeError) as refused:
        async for _ in await body(pieces):
            read += 1
    assert read == 10
    assert ("connection" in refused.value.headers) == closes
    assert len(pieces.left) == max(0, size - 21)
