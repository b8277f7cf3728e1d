"""Messages arrive in order, and a subscriber is told each time that it may have missed some."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from tests.servers import RedisServer

from quarterdeck.net.redis import Redis
from quarterdeck.net.redis_pubsub import Subscription


class Listener:
    """A subscription that runs, and what it said, in order."""

    def __init__(self, url: str, channel: str = "news") -> None:
        self.said: asyncio.Queue[bytes | bool] = asyncio.Queue()
        subject = Subscription(
            url,
            channel,
            on_state=self.said.put_nowait,
            on_message=self.said.put_nowait,
            ping_seconds=0.05,
            retry_seconds=0.02,
        )
        self.task = asyncio.create_task(subject.run())

    async def next(self) -> bytes | bool:
        async with asyncio.timeout(20):
            return await self.said.get()

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def listener(redis_url: str) -> AsyncIterator[Listener]:
    made = Listener(redis_url)
    yield made
    await made.close()


async def test_what_is_published_is_heard_in_order(listener: Listener, redis: Redis) -> None:
    assert await listener.next() is True
    for word in (b"a", b"", b"c" * 100_000):
        await redis.call("PUBLISH", "news", word)
    await redis.call("PUBLISH", "other", "x")
    await redis.call("PUBLISH", "news", b"last")
    assert [await listener.next() for _ in range(4)] == [b"a", b"", b"c" * 100_000, b"last"]


async def test_a_lost_connection_is_opened_again_and_said(listener: Listener, redis: Redis) -> None:
    assert await listener.next() is True
    await redis.call("CLIENT", "KILL", "TYPE", "pubsub")
    assert [await listener.next() for _ in range(2)] == [False, True]
    await redis.call("PUBLISH", "news", b"again")
    assert await listener.next() == b"again"


async def test_a_redis_that_comes_late_is_waited_for(own_redis_server: RedisServer) -> None:
    own_redis_server.stop()
    listener = Listener(own_redis_server.url())
    assert await listener.next() is False
    own_redis_server.start()
    assert await listener.next() is True
    await listener.close()


async def test_a_redis_that_says_nothing_is_given_up_and_asked_anew(own_redis_server: RedisServer) -> None:
    listener = Listener(own_redis_server.url())
    assert await listener.next() is True
    own_redis_server.pause()
    assert await listener.next() is False
    own_redis_server.resume()
    assert await listener.next() is True
    await listener.close()


async def test_a_password_is_said_before_anything_else(own_redis_server: RedisServer) -> None:
    client = Redis(own_redis_server.url())
    await client.call("CONFIG", "SET", "requirepass", "secret")
    wrong = Listener(own_redis_server.url())
    url = own_redis_server.url()
    right = Listener(url.replace("unix://", "unix://:secret@"))
    assert await right.next() is True
    assert await wrong.next() is False
    for listener in (right, wrong):
        await listener.close()
    await client.close()


async def test_a_user_who_may_not_subscribe_is_logged_with_the_reason(
    redis_url: str, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    await redis.call("ACL", "SETUSER", "deaf", "on", ">pw", "~*", "resetchannels", "+@all")
    listener = Listener(redis_url.replace("unix://", "unix://deaf:pw@"))
    try:
        assert await listener.next() is False
        assert "cannot subscribe to news: NOPERM" in caplog.text
    finally:
        await listener.close()
        await redis.call("ACL", "DELUSER", "deaf")
