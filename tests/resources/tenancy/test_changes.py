"""A committed change takes effect here at once, and is published to the other gateways."""

import asyncio
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from quarterdeck.accounting import layouts
from quarterdeck.accounting.redis_keys import revision_key
from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.net.redis import Redis
from quarterdeck.net.redis_pubsub import Subscription
from quarterdeck.resources.tenancy.changes import CHANNEL, Announcer, Change, RedisPublisher, decode_change
from quarterdeck.settings.limits import Budget


class FakeKeys:
    """A cache of keys and a publisher, which record their calls in order."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.is_away = is_away
        self.events: list[tuple[str, Any]] = []

    async def catch_up(self, changes: Sequence[Change] | None) -> None:
        if self.is_away:
            raise ServiceUnavailableError("away")
        self.events.append(("caught up", changes))

    def forget(self, key_id: str) -> None:
        self.events.append(("forgot", key_id))

    async def publish(self, change: Change, *, unspent: Budget | None = None) -> None:
        self.events.append(("published", change))


async def test_a_change_takes_effect_here_before_it_is_published() -> None:
    keys, change = FakeKeys(), Change("default", key="key_1")
    await Announcer(keys, keys).announce(change)
    assert keys.events == [("caught up", [change]), ("published", change)]


async def test_without_a_database_the_cached_key_is_dropped() -> None:
    keys, change = FakeKeys(is_away=True), Change("default", key="key_1")
    await Announcer(keys, keys).announce(change)
    assert keys.events == [("forgot", "key_1"), ("published", change)]


async def test_a_bump_counts_up_and_says_what_has_changed(redis: Redis, redis_url: str) -> None:
    heard: asyncio.Queue[Any] = asyncio.Queue()
    subscription = Subscription(redis_url, CHANNEL, on_state=heard.put_nowait, on_message=heard.put_nowait)
    task = asyncio.create_task(subscription.run())
    changes = [Change("default", key="key_1"), Change("default", team="red"), Change("acme")]
    async with asyncio.timeout(20):
        assert await heard.get() is True
        for change in changes:
            await RedisPublisher(redis).publish(change)
        told = [decode_change(await heard.get()) for _ in changes]
    assert [(c.org, c.key, c.team, c.revision) for c in told] == [
        ("default", "key_1", None, 1),
        ("default", None, "red", 2),
        ("acme", None, None, 1),
    ]
    assert await redis.call("GET", revision_key("default")) == b"2"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_new_keys_budget_need_not_be_counted_first(redis: Redis) -> None:
    publisher = RedisPublisher(redis)
    await publisher.publish(Change("default", key="key_new"), unspent=Budget(amount=Decimal(5), period="month"))
    money = await layouts.read_money(redis, "default", "key:key_new")
    assert money is not None
    assert (money.kind, money.spent, money.held, money.is_cold) == ("month", 0, 0, False)
    await publisher.publish(Change("default", key="key_old"))
    assert await layouts.read_money(redis, "default", "key:key_old") is None


async def test_a_bump_without_redis_is_no_error() -> None:
    await RedisPublisher(Redis("unix:///nobody/listens/here")).publish(Change("default"))
