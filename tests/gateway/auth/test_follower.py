"""Changes of other gateways are read again: once, in order, and everything where a message may be missing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.gateway.auth.follower import MOST_WAITING, Follower
from quarterdeck.resources.tenancy.changes import Change, decode_change


class Desk:
    """A follower, and a `catch_up` that can fail or be slow."""

    def __init__(self, **seconds: float) -> None:
        self.calls: asyncio.Queue[Sequence[Change] | None] = asyncio.Queue()
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.subject = Follower(self._catch_up, decode_change, **seconds)

    async def _catch_up(self, changes: Sequence[Change] | None) -> None:
        self.calls.put_nowait(changes)
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    async def next(self) -> Sequence[Change] | None:
        async with asyncio.timeout(20):
            return await self.calls.get()


@asynccontextmanager
async def running(**seconds: float) -> AsyncIterator[Desk]:
    made = Desk(**seconds)
    task = asyncio.create_task(made.subject.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with running() as made:
        yield made


def message(revision: int, key: str) -> bytes:
    return b'%d {"org":"default","key":"%s"}' % (revision, key.encode())


async def test_what_is_heard_while_another_is_read_comes_next_and_at_once(desk: Desk) -> None:
    desk.gate.clear()
    desk.subject.hear(message(1, "a"))
    assert await desk.next() == [Change("default", "a", revision=1)]
    desk.subject.hear(message(2, "b"))
    desk.subject.hear(message(3, "c"))
    desk.gate.set()
    assert await desk.next() == [Change("default", "b", revision=2), Change("default", "c", revision=3)]


@pytest.mark.parametrize("words", [b"", b"1", b"x {}", b"1 {}", b'1 {"org": 5}', b'1 {"org":"a"', b"\xff\xfe {}"])
async def test_a_message_that_says_nothing_has_everything_read(words: bytes, desk: Desk) -> None:
    desk.subject.hear(words)
    assert await desk.next() is None


async def test_a_new_connection_has_everything_read(desk: Desk) -> None:
    desk.subject.hear(message(1, "a"))
    desk.subject.listen(True)
    assert await desk.next() is None


async def test_more_than_can_wait_is_everything(desk: Desk) -> None:
    desk.gate.clear()
    desk.subject.hear(message(1, "a"))
    await desk.next()
    for i in range(MOST_WAITING + 1):
        desk.subject.hear(message(i + 2, "b"))
    desk.gate.set()
    assert await desk.next() is None


@pytest.mark.parametrize("error", [ServiceUnavailableError("away"), ValueError("a row that nobody can read")], ids=str)
async def test_what_can_not_be_read_is_tried_until_all_is_read(error: Exception) -> None:
    async with running(retry_seconds=0) as desk:
        desk.error = error
        desk.subject.hear(message(1, "a"))
        assert await desk.next() == [Change("default", "a", revision=1)]
        assert await desk.next() is None
        desk.error = None
        assert await desk.next() is None


async def test_without_the_channel_everything_is_read_again_and_again() -> None:
    async with running(poll_seconds=0) as desk:
        desk.subject.listen(False)
        assert [await desk.next() for _ in range(3)] == [None] * 3
        desk.subject.listen(True)
        while (changes := await desk.next()) is None:  # the last poll, and the read for what was missed
            desk.subject.hear(message(1, "a"))
        assert Change("default", "a", revision=1) in changes


async def test_everything_is_read_now_and_then_also_while_the_channel_is_subscribed() -> None:
    async with running(refresh_seconds=0.01) as desk:
        desk.subject.listen(True)
        assert [await desk.next() for _ in range(3)] == [None, None, None]
