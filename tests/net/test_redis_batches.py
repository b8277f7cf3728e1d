"""Batches of one event-loop turn are sent together, once, at its end."""

import asyncio

from quarterdeck.net.redis import Redis
from quarterdeck.net.redis_batches import TurnBatches


async def test_what_comes_in_one_turn_is_sent_together_by_key(redis: Redis) -> None:
    await redis.call("PING")
    sent: list[list[str]] = []
    batches = TurnBatches[list[str]](redis, sent.append)
    for key, word in (("a", "one"), ("b", "two"), ("a", "three")):
        batches.batch(key, list).append(word)
    assert batches and sent == []
    await redis.call("PING")
    assert not batches and sent == [["one", "three"], ["two"]]
    batches.batch("a", list).append("four")
    await redis.call("PING")
    assert sent[2:] == [["four"]]


async def test_what_is_full_goes_at_once_and_alone(redis: Redis) -> None:
    await redis.call("PING")
    sent: list[list[str]] = []
    batches = TurnBatches[list[str]](redis, sent.append)
    batches.batch("a", list).append("one")
    batches.send("a")
    batches.batch("a", list).append("two")
    assert sent == [["one"]]
    await redis.call("PING")
    assert sent == [["one"], ["two"]]


async def test_what_somebody_waits_for_goes_first(redis: Redis) -> None:
    await redis.call("PING")
    sent: list[str] = []
    TurnBatches[str](redis, sent.append).batch("a", lambda: "nobody waits")
    TurnBatches[str](redis, sent.append, first=True).batch("a", lambda: "somebody waits")
    await redis.call("PING")
    assert sent == ["somebody waits", "nobody waits"]


async def test_it_is_sent_also_where_no_connection_is_open() -> None:
    sent: list[str] = []
    TurnBatches[str](Redis("redis://127.0.0.1:1"), sent.append).batch("a", lambda: "all the same")
    await asyncio.sleep(0)
    assert sent == ["all the same"]
