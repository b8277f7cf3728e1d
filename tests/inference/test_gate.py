"""Admission: limits, budgets, keys that changed, and Redis unavailable."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.accounting.keys import read_bucket
from tests.accounting.spending import ORG, a_scope, money, trust
from tests.inference.bench import Bench, refused
from tests.inference.engines import and_wait, counting
from tests.inference.making import DONE, SAID, STREAM, a_principal, answer, usage
from tests.net.upstream import Upstream, answering, response, streamed, until
from tests.servers import RedisServer

from quarterdeck.accounting import redis_keys
from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.accounting.refusal_notes import read_refusals
from quarterdeck.errors import (
    AuthenticationError,
    EngineUnavailableError,
    InsufficientQuotaError,
    RateLimitError,
    ServiceUnavailableError,
)
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Limits

KEY = "key:key_1"


def who(amount: int = 10**6, *, limits: Limits | None = None, **changes: Any) -> Principal:
    return a_principal(scopes=(a_scope(KEY, amount, limits=limits or Limits(), **changes),))


@pytest.fixture
async def engine(bench: Bench) -> AsyncIterator[Upstream]:
    async with Upstream(answering(*[response(answer())] * 20)) as upstream:
        bench.add(upstream)
        yield upstream


@pytest.fixture
async def away(own_redis_server: RedisServer, tmp_path: Path, client: HttpClient) -> AsyncIterator[Bench]:
    """A pipeline whose Redis is stopped."""
    own_redis_server.stop()
    redis = Redis(own_redis_server.url())
    bench = Bench(redis, tmp_path, client)
    async with Upstream(answering(*[response(answer())] * 20)) as upstream:
        bench.add(upstream)
        yield bench
    await bench.drain()
    await redis.close()


@pytest.fixture
async def own(own_redis_server: RedisServer) -> AsyncIterator[Redis]:
    client = Redis(own_redis_server.url(), reply_timeout=0.2, retry_seconds=0.02)
    yield client
    await client.close()


# limits


async def test_what_is_left_is_told_with_the_answer(bench: Bench) -> None:
    async with Upstream(answering(response(answer()), streamed(*SAID, usage(), DONE))) as engine:
        bench.add(engine)
        principal = a_principal(limits=Limits(requests_per_minute=60, tokens_per_minute=10_000))
        reply = await bench.ask(principal=principal)
        assert dict(reply.headers)[b"x-ratelimit-remaining-requests"] == b"59"
        reply = await bench.ask(STREAM, principal=principal)
        assert dict(reply.headers)[b"x-ratelimit-remaining-requests"] == b"58"
        assert reply.stream is not None
        await reply.stream.aclose()


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(requests_per_minute=1), "1 requests per minute"),
        (Limits(tokens_per_minute=100), "100 tokens per minute"),
        (Limits(concurrent_requests=1), "1 concurrent requests"),
    ],
)
async def test_a_key_that_is_at_its_limit_is_refused_and_leaves_no_record(
    bench: Bench, limits: Limits, says: str
) -> None:
    async with Upstream(answering(and_wait(SAID[0]), counting(5))) as engine:
        bench.add(engine)
        principal = a_principal(limits=limits)
        reply = await bench.ask(STREAM, principal=principal)
        error = await refused(RateLimitError, bench, principal=principal)
        assert (error.status, error.code) == (429, "rate_limit_exceeded")
        assert says in error.message
        assert int(error.retry_after or 0) >= 1
        assert int(error.headers["retry-after-ms"]) >= 1
        assert await bench.reservations() == 1
        assert reply.stream is not None
        await reply.stream.aclose()
        assert (await bench.record()).status == "cancelled"


async def test_a_key_whose_limit_was_lifted_a_moment_ago_is_not_refused_by_it(bench: Bench) -> None:
    async with Upstream(answering(*[response(answer())] * 3)) as engine:
        bench.add(engine)
        narrow = a_principal(limits=Limits(requests_per_minute=1))
        await bench.ask(principal=narrow)
        await refused(RateLimitError, bench, principal=narrow)
        bench.fresh = a_principal(revision=1)
        await bench.redis.call("INCR", redis_keys.revision_key("default"))
        assert (await bench.ask(principal=narrow)).status == 200
        assert bench.reread_by == [("key_1", 1)]
        assert len(await bench.records()) == 2


async def test_a_place_is_free_again_when_the_stream_is_over(bench: Bench) -> None:
    async with Upstream(answering(*[streamed(*SAID, usage(), DONE)] * 5)) as engine:
        bench.add(engine)
        principal = a_principal(limits=Limits(concurrent_requests=1))
        for _ in range(5):
            await bench.stream(principal=principal)
            await bench.drain()
        assert len(await bench.records()) == 5


# budgets


@pytest.mark.usefixtures("engine")
async def test_a_request_spends_what_it_costs(bench: Bench) -> None:
    principal = who()
    await trust(bench.redis, *principal.scopes)
    await bench.ask(principal=principal)
    record = await bench.record()
    state = await money(bench.redis, KEY)
    assert record.cost > 0
    assert (state.spent, state.held) == (int(record.cost * 10**6), 0)


async def test_an_exhausted_budget_is_insufficient_quota_and_not_to_be_tried_again(
    bench: Bench, engine: Upstream
) -> None:
    principal = who(10)
    await trust(bench.redis, *principal.scopes)
    with pytest.raises(InsufficientQuotaError) as caught:
        await bench.ask(principal=principal)
    error = caught.value
    assert (error.status, error.type, error.code) == (429, "insufficient_quota", "insufficient_quota")
    assert error.headers == {"x-should-retry": "false"}
    assert "this API key" in error.message
    assert engine.requests == []
    async with asyncio.timeout(10):  # noted for the alerts of budgets, after the answer
        while not (await read_refusals(bench.redis, ORG, [KEY]))[0]:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await bench.records() == []


@pytest.mark.usefixtures("engine")
async def test_a_budget_that_warns_is_a_header(bench: Bench) -> None:
    principal = who(10, warns=True)
    await trust(bench.redis, *principal.scopes)
    reply = await bench.ask(principal=principal)
    assert (b"x-quarterdeck-budget", b"warned") in reply.headers
    await bench.record()


@pytest.mark.usefixtures("engine")
async def test_a_budget_that_is_not_counted_is_503_and_other_keys_go_on(
    redis: Redis, tmp_path: Path, client: HttpClient, engine: Upstream
) -> None:
    bench = Bench(redis, tmp_path, client, budget_wait_seconds=0.2)
    bench.add(engine)
    with pytest.raises(ServiceUnavailableError) as caught:
        await bench.ask(principal=who())
    assert (caught.value.code, caught.value.retry_after) == ("limits_unavailable", 1)
    assert (await bench.ask(principal=a_principal())).status == 200
    await bench.record()


async def test_too_many_records_that_wait_are_503_for_budgets(redis: Redis, tmp_path: Path, client: HttpClient) -> None:
    bench, principal = Bench(redis, tmp_path, client, max_waiting_records=1), who()
    await trust(redis, *principal.scopes)
    await redis.call("XADD", stream_key(ORG), "*", "record", "{}")
    with pytest.raises(ServiceUnavailableError):
        await bench.ask(principal=principal)
    assert (await money(redis, KEY)).held == 0


async def test_what_was_held_for_a_request_that_nobody_served_is_free_again(bench: Bench) -> None:
    principal = who()
    await trust(bench.redis, *principal.scopes)
    with pytest.raises(EngineUnavailableError):
        await bench.ask(principal=principal)
    await bench.drain()
    state = await money(bench.redis, KEY)
    assert (state.spent, state.held) == (0, 0)
    assert await bench.redis.call("HLEN", redis_keys.reservations_key(ORG)) == 0


# keys that changed


async def test_a_key_whose_org_has_changed_is_read_again(bench: Bench) -> None:
    async with Upstream(answering(response(answer()), response(answer()))) as engine:
        bench.add(engine)
        await bench.ask()
        await bench.redis.call("SET", redis_keys.revision_key("default"), 7)
        await bench.ask()
        assert bench.reread_by == [("key_1", 7)]


async def test_a_key_that_was_revoked_takes_nothing(bench: Bench) -> None:
    await bench.redis.call("INCR", redis_keys.revision_key("default"))
    bench.reread_error = AuthenticationError("revoked")
    principal = a_principal(limits=Limits(concurrent_requests=1))
    for _ in range(3):
        await refused(AuthenticationError, bench, principal=principal)
        await bench.drain()
    assert await bench.records() == []


async def test_a_caller_who_leaves_while_its_key_is_read_takes_nothing(bench: Bench) -> None:
    await bench.redis.call("INCR", redis_keys.revision_key("default"))
    bench.reread_gate.clear()
    task = asyncio.create_task(bench.ask())
    await until(lambda: bench.reread_by != [])
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.records() == []


async def test_a_caller_who_leaves_while_it_is_admitted_takes_nothing(bench: Bench) -> None:
    await bench.redis.call("PING")
    task = asyncio.create_task(bench.ask())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bench.records() == []


# Redis unavailable


async def test_with_redis_away_requests_go_on_and_are_recorded_later(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(own, tmp_path, client)
    own_redis_server.stop()
    async with Upstream(answering(response(answer()), streamed(*SAID, usage(), DONE))) as engine:
        bench.add(engine)
        principal = a_principal(limits=Limits(requests_per_minute=20))
        assert (await bench.ask(principal=principal)).status == 200
        assert (await bench.stream(principal=principal)).endswith(DONE)
        await bench.drain()
        assert bench.spool.waiting() == 2
        own_redis_server.start()
        running = asyncio.create_task(bench.settlement.run())
        await until(lambda: bench.spool.waiting() == 0)
        running.cancel()
        assert len(await bench.records()) == 2


async def test_a_file_may_say_that_without_redis_nothing_goes_on(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(own, tmp_path, client, on_redis_down="deny")
    own_redis_server.stop()
    error = await refused(ServiceUnavailableError, bench)
    assert (error.status, error.code, error.retry_after) == (503, "limits_unavailable", 1)
    assert (bench.seen, bench.spool.waiting()) == ([], 0)


async def test_a_redis_that_is_silent_holds_a_request_up_for_its_time_out_only(
    own_redis_server: RedisServer, own: Redis, tmp_path: Path, client: HttpClient
) -> None:
    """Once it is resumed, Redis makes the reservations that were sent to it: they must be released."""
    bench = Bench(own, tmp_path, client)
    await own.call("PING")
    own_redis_server.pause()
    async with Upstream(answering(*[response(answer())] * 20)) as engine:
        bench.add(engine)
        async with asyncio.timeout(2):
            await asyncio.gather(
                *[bench.ask(principal=a_principal(limits=Limits(concurrent_requests=200))) for _ in range(20)]
            )
        await bench.drain()
        own_redis_server.resume()
        running = asyncio.create_task(bench.settlement.run())
        await until(lambda: bench.spool.waiting() == 0)
        running.cancel()
        records = await own.call("XLEN", redis_keys.stream_key("default"))
        assert records == 20
        assert await own.call("HLEN", redis_keys.reservations_key("default")) == 0
        bucket = await read_bucket(own, "default", "key:key_1")
        assert bucket is None or bucket.running == 0


async def test_without_redis_a_share_of_each_limit_passes(away: Bench) -> None:
    principal = a_principal(limits=Limits(requests_per_minute=30))
    for _ in range(3):
        assert (await away.ask(principal=principal)).status == 200
    with pytest.raises(RateLimitError) as caught:
        await away.ask(principal=principal)
    assert caught.value.retry_after == 20
    assert (await away.ask(principal=a_principal(key="key_2"))).status == 200


async def test_without_redis_places_come_back(away: Bench) -> None:
    principal = a_principal(limits=Limits(concurrent_requests=1))
    for _ in range(5):
        assert (await away.ask(principal=principal)).status == 200


async def test_without_redis_a_budget_denies_and_a_warning_does_not(away: Bench) -> None:
    with pytest.raises(ServiceUnavailableError) as caught:
        await away.ask(principal=who())
    assert caught.value.code == "limits_unavailable"
    assert (await away.ask(principal=who(warns=True))).status == 200


@pytest.mark.parametrize("changes", [{}, {"on_redis_down": "deny"}], ids=["share", "deny"])
async def test_a_reservation_that_a_paused_redis_makes_for_a_refused_request_is_given_back(
    changes: dict[str, Any], own_redis_server: RedisServer, tmp_path: Path, client: HttpClient
) -> None:
    redis = Redis(own_redis_server.url(), reply_timeout=0.3)
    principal = who()
    await trust(redis, *principal.scopes)
    bench = Bench(redis, tmp_path, client, **changes)
    with pytest.raises(EngineUnavailableError):
        await bench.ask(principal=principal)  # loads the script
    await bench.drain()
    own_redis_server.pause()
    with pytest.raises(ServiceUnavailableError):
        await bench.ask(principal=principal)
    own_redis_server.resume()
    await bench.drain()
    assert await redis.call("HLEN", redis_keys.reservations_key(ORG)) == 0
    assert (await money(redis, KEY)).held == 0
    assert len(await bench.records()) == 1
    await redis.close()
