"""Whoever follows the requests sees each that reaches the ledger once, also over a reconnection."""

import asyncio
import json
from typing import Any

import pytest
from tests.net.upstream import until
from tests.records import a_record

from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.redis_keys import stream_key, tail_key, tailing_key
from quarterdeck.errors import AuthenticationError, BadRequestError, RateLimitError, ServiceUnavailableError
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.routes import request_tail
from quarterdeck.gateway.routes.request_tail import RequestTail
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord, encode
from quarterdeck.settings.limits import Limits
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


async def valid() -> None:
    """The key may follow."""


def a_head(org: str = ORG, after: bytes | None = None) -> RequestHead:
    head = RequestHead(request_tail.PATH, [(b"last-event-id", after)] if after is not None else [], frozenset())
    head.principal = Principal("key_a", "a", org, "red", Limits(), is_admin=True)
    return head


class Following:
    """`async with`: a client that follows."""

    def __init__(self, redis: Redis, after: bytes | None = None, **wanted: str) -> None:
        self.client = Client()
        self.tail = RequestTail(redis, ORG, wanted, after, valid, lambda: None, poll_seconds=0.01)

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
    tail = RequestTail(away, ORG, {}, None, valid, lambda: None, poll_seconds=0.01)
    task = asyncio.create_task(tail.pump(client))
    await asyncio.sleep(0.1)
    assert not task.done()
    task.cancel()
    await asyncio.wait([task])
    await away.close()


async def test_a_key_that_may_no_longer_follow_does_not(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_tail, "RENEW_SECONDS", 0.0)
    asked = 0

    async def confirm() -> None:
        nonlocal asked
        asked += 1
        if asked == 1:
            raise ServiceUnavailableError("The database is away.")
        if asked > 2:
            raise AuthenticationError("The key was revoked.")

    tail = RequestTail(redis, ORG, {}, None, confirm, lambda: None, poll_seconds=0.01)
    with pytest.raises(AuthenticationError):
        await tail.pump(Client())
    assert asked == 3


async def test_a_listener_that_is_too_slow_learns_of_the_gap(redis: Redis) -> None:
    class Slow(Client):
        def put(self, piece: bytes) -> bool:
            super().put(piece)
            return b"data" not in piece

        async def room(self) -> None:
            """Many more requests come than the stream holds, while this client reads the first ones."""
            if len(self.ids) == request_tail.AT_ONCE:
                await worker.enter(*[a_record() for _ in range(3000)])

    worker, client = Worker(redis), Slow()
    tail = RequestTail(redis, ORG, {}, None, valid, lambda: None, poll_seconds=0.01)
    task = asyncio.create_task(tail.pump(client))
    await until(lambda: tail._has_read)
    await worker.enter(*[a_record() for _ in range(request_tail.AT_ONCE)])
    await until(lambda: any(event.get("event") == "gap" for event in client.events) or task.done())
    await until(lambda: len(client.ids) > 1000)  # and then goes on with what is there
    task.cancel()
    await asyncio.wait([task])
    assert len(client.ids) == len(set(client.ids)) < 3000


async def test_one_organisation_does_not_take_all_places(redis: Redis) -> None:
    async def confirm(principal: Principal) -> Principal:
        return principal

    tails = request_tail._Tails(redis, confirm)
    opened = []
    for _ in range(request_tail.MAX_TAILS_OF_ORG):
        opened.append(await tails.open(a_head(org="acme"), b""))
    with pytest.raises(RateLimitError):
        await tails.open(a_head(org="acme"), b"")
    other = await tails.open(a_head(org="globex"), b"")
    for reply in (*opened, other):
        assert reply.stream is not None
        await reply.stream.aclose()
    assert tails._counts.total() == 0


@pytest.mark.parametrize("after", [b"x", b"1", b"1-", b"18446744073709551616-0", b"0-99999999999999999999"])
async def test_an_id_that_redis_can_not_have_is_refused(redis: Redis, after: bytes) -> None:
    async def confirm(principal: Principal) -> Principal:
        return principal

    with pytest.raises(BadRequestError):
        await request_tail._Tails(redis, confirm).open(a_head(after=after), b"")


@pytest.mark.parametrize("query", [b"colour=red", b"failed=perhaps"])
def test_a_wrong_filter_is_refused(query: bytes) -> None:
    with pytest.raises(BadRequestError):
        request_tail._filters(query)
