"""Redis killed, paused, emptied or unreachable: no request is rejected or delayed, no record is lost or doubled."""

import asyncio

import pytest
from tests.faults import ledger_check
from tests.faults.client import Shape, ask
from tests.faults.stack import TIMEOUTS, Stack, mixed, until
from tests.faults.traffic import Traffic

from quarterdeck.settings.limits import Limits

pytestmark = pytest.mark.faults

PATIENCE = 15.0
"""Upper bound of a mixed request's time in seconds; its own time is below 0.3."""


async def test_a_killed_redis_costs_no_request_and_no_record(stack: Stack) -> None:
    key = await stack.key("redis-killed")
    async with (
        stack.client(key) as client,
        Traffic(client, mixed) as traffic,
        traffic.around("Redis was killed and came back"),
    ):
        stack.redis.kill()
        await traffic.answered(25)
        assert stack.spooled() > 0, "records wait on disk meanwhile"
        await stack.start(stack.redis)
    assert set(traffic.outcomes()) == {"ok"}
    assert traffic.slowest < PATIENCE
    await stack.all_settled()
    ledger_check.check(traffic.answers, await stack.rows(key))


@pytest.mark.long
async def test_a_redis_that_is_killed_again_and_again_counts_nothing_twice(stack: Stack) -> None:
    key = await stack.key("redis-killed-often")
    async with stack.client(key) as client, Traffic(client, mixed, rate=40) as traffic:
        for _ in range(4):
            await traffic.answered(8)
            stack.redis.kill()
            await traffic.answered(4)
            await stack.start(stack.redis)
    assert set(traffic.outcomes()) == {"ok"}
    await stack.all_settled()
    ledger_check.check(traffic.answers, await stack.rows(key))


async def test_a_paused_redis_is_waited_for_once_and_not_by_every_request(stack: Stack) -> None:
    key = await stack.key("redis-paused")
    async with stack.client(key) as client, Traffic(client, mixed) as traffic, traffic.around("Redis was paused"):
        stack.redis.pause()
        await traffic.answered(60)  # more than two seconds of traffic
        stack.redis.resume()
    assert set(traffic.outcomes()) == {"ok"}
    assert traffic.slowest < PATIENCE
    quick = sorted(answer.seconds for answer in traffic.answers)[len(traffic.answers) // 2]
    assert quick < 1.0, "the median request is not delayed"
    await stack.all_settled()
    ledger_check.check(traffic.answers, await stack.rows(key))


async def test_limits_are_given_back_after_a_pause(stack: Stack) -> None:
    """A paused Redis executes a reservation after it resumes, when the request is over."""
    key = await stack.key("redis-paused-limits", Limits(concurrent_requests=3))
    async with stack.client(key) as client:
        async with Traffic(client, mixed, rate=6) as traffic:
            stack.redis.pause()
            await traffic.answered(5)
            stack.redis.resume()
            await stack.whole()
        await stack.all_settled()
        async with Traffic(client, mixed, rate=6) as after:
            await after.answered(3)
    assert set(after.outcomes()) <= {"ok", "429 rate_limit_exceeded"}
    await stack.all_settled()
    ledger_check.check(traffic.answers + after.answers, await stack.rows(key))


@pytest.mark.long
async def test_a_redis_that_comes_back_empty_is_filled_again(stack: Stack) -> None:
    key = await stack.key("redis-empty", Limits(requests_per_minute=100_000))
    async with (
        stack.client(key) as client,
        Traffic(client, mixed) as traffic,
        traffic.around("Redis came back empty"),
    ):
        held = await stack.lose_redis()
        await traffic.answered(5)
        await stack.start(stack.redis)
    assert set(traffic.outcomes()) == {"ok"}
    await stack.all_settled()
    rows = await stack.rows(key)
    tags = {row.user for row in rows}
    lost = {answer.tag for answer in traffic.answers} - tags
    assert lost <= held, "only what Redis held, and the worker had not taken yet"
    ledger_check.check([answer for answer in traffic.answers if answer.tag in tags], rows)


async def test_where_limits_are_law_a_dead_redis_refuses_at_once(stack: Stack) -> None:
    key = await stack.key("redis-deny")
    await stack.configure(stack.configuration(on_redis_down="deny"))
    async with (
        stack.client(key) as client,
        Traffic(client, mixed) as traffic,
        traffic.around("Redis was killed, and limits are law"),
    ):
        stack.redis.kill()
        await traffic.answered(20, "503 limits_unavailable")
        await until(lambda: stack.gateway.get("/readyz")[0] == 503)
        await stack.start(stack.redis)
    assert set(traffic.outcomes()) == {"ok", "503 limits_unavailable"}
    refused = [answer for answer in traffic.answers if answer.status == 503]
    assert all(answer.headers["retry-after"] == "1" for answer in refused)
    assert traffic.slowest < PATIENCE
    await stack.all_settled()
    ledger_check.check(traffic.answers, await stack.rows(key))


async def test_a_key_that_is_revoked_after_redis_came_back_empty_is_refused_at_once(stack: Stack) -> None:
    """Revisions restart there below those seen by the gateway."""
    key = await stack.key("revoked-after-empty")
    chat = Shape("chat", max_tokens=3)
    async with stack.client(key) as client:
        for _ in range(3):
            await stack.bump_revision()
        assert (await ask(client, chat, "mixed-two")).outcome == "ok"
        stack.redis.kill()
        stack.forget_redis()
        await stack.start(stack.redis)
        await until(lambda: stack.ready()["parts"]["redis"] == "ready" and stack.metric("quarterdeck_redis_up") == 1)
        assert (await ask(client, chat, "mixed-two")).outcome == "ok"
        await stack.revoke(key)
        assert (await ask(client, chat, "mixed-two")).outcome == "401 invalid_api_key"


async def test_streams_outlive_a_redis_that_was_away_for_longer_than_their_lease(stack: Stack) -> None:
    key = await stack.key("redis-away-long")
    shape = Shape("chat", stream=True, asks_usage=True, max_tokens=900)  # about four seconds
    lost = stack.metric("quarterdeck_lost_requests_total", stack.worker)
    async with stack.client(key) as client:
        asking = [asyncio.create_task(ask(client, shape, "mixed-two", deadline=60)) for _ in range(3)]
        await until(lambda: stack.a.running() + stack.b.running() == 3)
        stack.redis.kill()
        await asyncio.sleep(TIMEOUTS["reservation_lease_seconds"] + 0.5)  # the lease must expire
        await stack.start(stack.redis)
        answers = await asyncio.gather(*asking)
    assert {answer.outcome for answer in answers} == {"ok"}
    await stack.all_settled()
    ledger_check.check(answers, await stack.rows(key))
    assert stack.metric("quarterdeck_lost_requests_total", stack.worker) == lost


@pytest.mark.long
async def test_a_redis_that_is_paused_for_half_a_minute_is_no_matter(stack: Stack) -> None:
    key = await stack.key("redis-paused-long")
    async with stack.client(key) as client, Traffic(client, mixed, rate=50) as traffic, traffic.around("Redis slept"):
        stack.redis.pause()
        await traffic.answered(1500, seconds=60)
        stack.redis.resume()
    assert set(traffic.outcomes()) == {"ok"}
    assert traffic.slowest < PATIENCE
    await stack.all_settled(seconds=60)
    ledger_check.check(traffic.answers, await stack.rows(key))
