"""What one gateway changed, the others read again: once, in order, and all of it where a message may be missing."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import pytest

from quarterdeck.accounting import layouts
from quarterdeck.accounting.redis_keys import revision_key
from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.gateway.auth import invalidation
from quarterdeck.gateway.auth.invalidation import CHANNEL, Change, Follower, RedisRevisions, change_of
from quarterdeck.net.redis import Redis
from quarterdeck.net.redis_pubsub import Subscription
from quarterdeck.settings.limits import Budget


class Desk:
    """Someone who catches up, and can be away or slow."""

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Sequence[Change] | None] = asyncio.Queue()
        self.error: Exception | None = None
        self.gate = asyncio.Event()
        self.gate.set()
        self.subject = Follower(self._catch_up)

    async def _catch_up(self, changes: Sequence[Change] | None) -> None:
        self.calls.put_nowait(changes)
        await self.gate.wait()
        if self.error is not None:
            raise self.error

    async def next(self) -> Sequence[Change] | None:
        async with asyncio.timeout(20):
            return await self.calls.get()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    made = Desk()
    task = asyncio.create_task(made.subject.run())
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def message(revision: int, key: str) -> bytes:
    return b'%d {"org":"default","key":"%s"}' % (revision, key.encode())


async def test_a_bump_counts_up_and_says_what_has_changed(redis: Redis, redis_url: str) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    subscription = Subscription(redis_url, CHANNEL, on_state=heard.put_nowait, on_message=heard.put_nowait)
    task = asyncio.create_task(subscription.run())
    changes = [Change("default", key="key_1"), Change("default", team="red"), Change("acme")]
    async with asyncio.timeout(20):
        assert await heard.get() is True
        for change in changes:
            await RedisRevisions(redis).bump(change)
        told = [change_of(await heard.get()) for _ in changes]
    assert [(c.org, c.key, c.team, c.revision) for c in told] == [
        ("default", "key_1", None, 1),
        ("default", None, "red", 2),
        ("acme", None, None, 1),
    ]
    assert await redis.call("GET", revision_key("default")) == b"2"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_new_keys_budget_need_not_be_counted_first(redis: Redis) -> None:
    revisions = RedisRevisions(redis)
    await revisions.bump(Change("default", key="key_new"), unspent=Budget(amount=Decimal(5), period="month"))
    money = await layouts.read_money(redis, "default", "key:key_new")
    assert money is not None
    assert (money.kind, money.spent, money.held, money.is_cold) == ("month", 0, 0, False)
    await revisions.bump(Change("default", key="key_old"))
    assert await layouts.read_money(redis, "default", "key:key_old") is None


async def test_a_bump_without_redis_is_no_error() -> None:
    await RedisRevisions(Redis("unix:///nobody/listens/here")).bump(Change("default"))


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
    for i in range(invalidation.MOST_WAITING + 1):
        desk.subject.hear(message(i + 2, "b"))
    desk.gate.set()
    assert await desk.next() is None


@pytest.mark.parametrize("error", [ServiceUnavailableError("away"), ValueError("a row that nobody can read")], ids=str)
async def test_what_can_not_be_read_is_tried_until_all_is_read(
    error: Exception, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(invalidation, "RETRY_SECONDS", 0)
    desk.error = error
    desk.subject.hear(message(1, "a"))
    assert await desk.next() == [Change("default", "a", revision=1)]
    assert await desk.next() is None
    desk.error = None
    assert await desk.next() is None


async def test_who_hears_nothing_reads_everything_again_and_again(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invalidation, "DEAF_SECONDS", 0)
    desk.subject.listen(False)
    assert [await desk.next() for _ in range(3)] == [None] * 3
    desk.subject.listen(True)
    while (changes := await desk.next()) is None:  # the last of before, and the one for what was missed
        desk.subject.hear(message(1, "a"))
    assert Change("default", "a", revision=1) in changes
