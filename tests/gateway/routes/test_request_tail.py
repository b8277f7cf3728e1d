"""Whoever follows the requests sees each that reaches the ledger once, also over a reconnection."""

import asyncio
import json
from typing import Any

import pytest
from tests.net.upstream import until
from tests.records import a_record

from quarterdeck.accounting.redis_keys import stream_key, tail_key, tailing_key
from quarterdeck.errors import BadRequestError
from quarterdeck.gateway.routes import request_tail
from quarterdeck.gateway.routes.request_tail import RequestTail
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord, encode
from quarterdeck.worker.streams import Consumer

ORG = "default"


class Client:
    """Reads a tail until it has what it wants."""

    def __init__(self) -> None:
        self.pieces = b""

    def put(self, piece: bytes) -> bool:
        self.pieces += piece
        return True

    async def room(self) -> None: ...

    @property
    def events(self) -> list[dict[str, str]]:
        found = []
        for event in self.pieces.split(b"\n\n"):
            lines = [line.partition(b": ") for line in event.splitlines() if line and not line.startswith(b":")]
            if lines:
                found.append({name.decode(): value.decode() for name, _, value in lines})
        return found

    @property
    def ids(self) -> list[str]:
        return [json.loads(event["data"])["id"] for event in self.events if "id" in event]


class Following:
    """`async with`: a client that follows."""

    def __init__(self, redis: Redis, after: bytes | None = None, **wanted: str) -> None:
        self.client = Client()
        self.tail = RequestTail(redis, ORG, wanted, after, lambda: None, poll_seconds=0.01)

    async def __aenter__(self) -> Client:
        self._task = asyncio.create_task(self.tail.pump(self.client))
        await until(lambda: self.tail._has_read or self._task.done())
        return self.client

    async def __aexit__(self, *_: Any) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])
        await self.tail.aclose()


class Worker:
    """Acknowledges records as the worker does."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._consumer = Consumer(redis, "ledger", "worker_a", idle_ms=0)

    async def enter(self, *records: RequestRecord) -> None:
        await self._consumer.join([ORG])
        for record in records:
            await self._redis.call("XADD", stream_key(ORG), "*", "record", encode(record))
        entries = await self._consumer.read(self._redis, [ORG], count=1000, block_ms=10)
        await self._consumer.commit(ORG, [entry.id for entry in entries])


async def test_requests_are_seen_as_they_reach_the_ledger(redis: Redis) -> None:
    records = [a_record() for _ in range(20)]
    worker = Worker(redis)
    async with Following(redis) as client:
        await worker.enter(*records[:10])
        await worker.enter(*records[10:])
        await until(lambda: len(client.ids) >= 20)
    assert client.ids == [record.id for record in records]


async def test_nothing_is_kept_while_nobody_follows(redis: Redis) -> None:
    await Worker(redis).enter(a_record())
    assert await redis.call("EXISTS", tail_key(ORG), tailing_key(ORG)) == 0


async def test_a_client_that_reconnects_misses_nothing_and_sees_nothing_twice(redis: Redis) -> None:
    records = [a_record() for _ in range(6)]
    worker = Worker(redis)
    async with Following(redis) as client:
        await worker.enter(*records[:2])
        await until(lambda: len(client.ids) >= 2)
    await worker.enter(*records[2:4])  # nobody is connected
    async with Following(redis, client.events[-1]["id"].encode()) as again:
        await worker.enter(*records[4:])
        await until(lambda: len(again.ids) >= 4)
    assert client.ids + again.ids == [record.id for record in records]
    assert not [event for event in again.events if event.get("event") == "gap"]


async def test_a_client_that_was_away_for_too_long_learns_of_the_gap(redis: Redis) -> None:
    async with Following(redis) as client:
        await Worker(redis).enter(a_record())
        await until(lambda: len(client.ids) >= 1)
    await redis.call("DEL", tail_key(ORG))
    async with Following(redis, client.events[-1]["id"].encode()) as again:
        await until(lambda: bool(again.events))
    assert again.events[0]["event"] == "gap"


async def test_filters_apply(redis: Redis) -> None:
    failed = a_record(status="error", error_code="engine_error", model="m")
    async with Following(redis, failed="true", model="m") as client:
        await Worker(redis).enter(a_record(model="m"), failed, a_record(status="error", model="n"))
        await until(lambda: bool(client.ids))
    assert client.ids == [failed.id]


async def test_the_stream_is_bounded_and_expires(redis: Redis) -> None:
    await redis.call("SET", tailing_key(ORG), "1", "EX", "30")
    worker = Worker(redis)
    for _ in range(3):
        await worker.enter(*[a_record() for _ in range(1000)])
    assert await redis.call("XLEN", tail_key(ORG)) < 1300
    assert 0 < await redis.call("TTL", tail_key(ORG)) <= 60


async def test_a_tail_survives_an_outage_of_redis() -> None:
    away = Redis("redis://127.0.0.1:1/0")
    client = Client()
    tail = RequestTail(away, ORG, {}, None, lambda: None, poll_seconds=0.01)
    task = asyncio.create_task(tail.pump(client))
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    await away.close()


@pytest.mark.parametrize("query", [b"colour=red", b"failed=perhaps"])
def test_a_wrong_filter_is_refused(query: bytes) -> None:
    with pytest.raises(BadRequestError):
        request_tail._filters(query)
