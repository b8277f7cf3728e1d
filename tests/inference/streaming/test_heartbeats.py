"""A waiting request's stream begins with comments."""

import asyncio

import pytest
from tests.inference.reading import Pieces, read_pieces

from quarterdeck.errors import EngineUnavailableError
from quarterdeck.inference.call import Reply, Sink
from quarterdeck.inference.streaming.heartbeats import WAITING, with_heartbeats
from quarterdeck.protocol import sse

HEADERS = ((b"content-type", b"text/event-stream"),)
SOON = 0.001


class TwoPieces:
    """A stream of two pieces."""

    def __init__(self) -> None:
        self.left = [b"data: 1\n\n", b"data: 2\n\n"]
        self.closed = 0

    async def pump(self, sink: Sink) -> None:
        while self.left:
            sink.put(self.left.pop(0))

    async def aclose(self) -> None:
        self.closed += 1


class Answer:
    """An answer that is ready once `gate` is set."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.pieces = TwoPieces()
        self.error: Exception | None = None
        self.was_cancelled = False

    async def __call__(self) -> Reply:
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.was_cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return Reply(200, HEADERS, stream=self.pieces)


class Full:
    """A sink that is full after each piece."""

    def __init__(self) -> None:
        self.taken: list[bytes] = []
        self.rooms = 0
        self.has_come = asyncio.Event()

    def put(self, piece: bytes) -> bool:
        self.taken.append(piece)
        self.has_come.set()
        return False

    async def room(self) -> None:
        self.rooms += 1


@pytest.fixture
def answer() -> Answer:
    return Answer()


async def test_an_answer_in_time_is_itself(answer: Answer) -> None:
    answer.gate.set()
    reply = await with_heartbeats(answer(), after=30, every=30, headers=HEADERS)
    assert reply.stream is answer.pieces


async def test_an_error_in_time_is_a_status(answer: Answer) -> None:
    answer.gate.set()
    answer.error = EngineUnavailableError("gone")
    with pytest.raises(EngineUnavailableError):
        await with_heartbeats(answer(), after=30, every=30, headers=HEADERS)


async def test_a_late_one_is_waited_for_with_comments(answer: Answer) -> None:
    reply = await with_heartbeats(answer(), after=SOON, every=SOON, headers=HEADERS)
    assert (reply.status, reply.headers) == (200, HEADERS)
    assert reply.stream is not None
    async with Pieces(reply.stream) as pieces:
        assert [await anext(pieces) for _ in range(3)] == [WAITING] * 3
        answer.gate.set()
        rest = [piece async for piece in pieces]
    assert [piece for piece in rest if piece != WAITING] == [b"data: 1\n\n", b"data: 2\n\n"]
    assert answer.pieces.closed == 1


async def test_a_full_sink_is_waited_for(answer: Answer) -> None:
    reply = await with_heartbeats(answer(), after=SOON, every=30, headers=HEADERS)
    assert reply.stream is not None
    sink = Full()
    pumping = asyncio.create_task(reply.stream.pump(sink))
    await sink.has_come.wait()
    answer.gate.set()
    await pumping
    assert sink.taken == [WAITING, b"data: 1\n\n", b"data: 2\n\n"]
    assert sink.rooms >= 1


async def test_once_they_have_begun_an_error_is_an_event(answer: Answer) -> None:
    reply = await with_heartbeats(answer(), after=SOON, every=30, headers=HEADERS)
    assert reply.stream is not None
    async with Pieces(reply.stream) as pieces:
        assert await anext(pieces) == WAITING
        answer.error = EngineUnavailableError("gone")
        answer.gate.set()
        (event,) = [piece async for piece in pieces]
    assert event == sse.error_event(answer.error)  # type: ignore[arg-type]


async def test_a_whole_answer_is_an_event() -> None:
    gate = asyncio.Event()

    async def whole() -> Reply:
        await gate.wait()
        return Reply(200, (), b'{"a":1}')

    reply = await with_heartbeats(whole(), after=SOON, every=30, headers=HEADERS)
    assert reply.stream is not None
    async with Pieces(reply.stream) as pieces:
        assert await anext(pieces) == WAITING
        gate.set()
        assert [piece async for piece in pieces] == [b'data: {"a":1}\n\ndata: [DONE]\n\n']


async def test_a_caller_who_leaves_early_takes_the_request_with_him(answer: Answer) -> None:
    task = asyncio.create_task(with_heartbeats(answer(), after=30, every=30, headers=HEADERS))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert answer.was_cancelled


async def test_a_caller_who_leaves_while_it_waits_as_well(answer: Answer) -> None:
    reply = await with_heartbeats(answer(), after=SOON, every=30, headers=HEADERS)
    assert reply.stream is not None
    await reply.stream.aclose()
    await reply.stream.aclose()
    assert answer.was_cancelled
    assert await read_pieces(reply.stream) == []


async def test_an_answer_that_came_just_then_is_closed(answer: Answer) -> None:
    reply = await with_heartbeats(answer(), after=SOON, every=30, headers=HEADERS)
    assert reply.stream is not None
    answer.gate.set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    await reply.stream.aclose()
    assert answer.pieces.closed == 1


async def test_an_answer_that_comes_in_the_turn_of_the_hang_up_is_closed(answer: Answer) -> None:
    task = asyncio.create_task(with_heartbeats(answer(), after=30, every=30, headers=HEADERS))
    for _ in range(3):
        await asyncio.sleep(0)
    answer.gate.set()
    await asyncio.sleep(0)  # the answer is ready, and is not passed on yet
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not answer.was_cancelled and answer.pieces.closed == 1


async def test_a_second_cancellation_does_not_lose_the_answer() -> None:
    pieces, cancelled = TwoPieces(), asyncio.Event()
    late = asyncio.Event()

    async def answer() -> Reply:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:  # it has arrived just then
            cancelled.set()
            await late.wait()
        return Reply(200, HEADERS, stream=pieces)

    reply = await with_heartbeats(answer(), after=SOON, every=30, headers=HEADERS)
    assert reply.stream is not None
    closing = asyncio.create_task(reply.stream.aclose())
    await cancelled.wait()
    closing.cancel()
    await asyncio.sleep(0)
    late.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert pieces.closed == 1
