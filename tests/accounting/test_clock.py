"""Redis' clock steps back, as after a fail-over to a slower one: nothing is held for ever, refused or forgotten."""

import itertools
import struct
import time
from decimal import Decimal

import pytest
from tests.accounting.keys import Key, expire, in_flight, read_bucket
from tests.accounting.spending import (
    ORG,
    a_reservation,
    a_scope,
    dollars,
    money,
    reserve,
    settle,
    spent_and_held,
    trust,
)

from quarterdeck.accounting import admission, leases
from quarterdeck.accounting.periods import PERIODS, period_kind, period_number, period_start
from quarterdeck.accounting.recount import ColdBudget, Recount
from quarterdeck.accounting.redis_keys import bucket_key, cold_key, deadlines_key
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.net.lua_scripts import read_lua
from quarterdeck.net.redis import Redis, Script
from quarterdeck.settings.limits import Limits

DAY = 86_400
START_OF = Script(
    read_lua("quarterdeck.accounting", "period.lua")
    + "return start_of(tonumber(ARGV[1]), period_of(tonumber(ARGV[1]), tonumber(ARGV[2])))"
)


async def now(redis: Redis) -> int:
    return int((await redis.call("TIME"))[0])


@pytest.mark.parametrize("period", PERIODS[1:])
async def test_scripts_know_the_first_second_of_a_period(redis: Redis, period: str) -> None:
    for day in range(19_000, 24_000, 3):
        second = day * DAY + 4711
        start = await redis.run(START_OF, (), (period_kind(period), second))
        assert start == period_start(period, second)


@pytest.mark.parametrize("period", ["day", "week", "month"])
async def test_a_budget_that_is_in_the_next_period_stays_there(redis: Redis, period: str) -> None:
    scope = a_scope("key:key_1", 1000, period=period)
    following = period_number(period, await now(redis)) + 1
    await trust(redis, scope, period=following)
    for _ in range(10):
        reservation, answer = await reserve(redis, [scope], 100)
        assert answer.refused is None
        assert (await money(redis, scope.id)).held == 100
        await settle(redis, reservation, dollars(100))
    assert await spent_and_held(redis, scope.id) == [(1000, 0)]
    assert (await money(redis, scope.id)).period == following
    _, answer = await reserve(redis, [scope], 100)
    assert answer.refused == "money"


async def test_scopes_of_several_kinds_keep_what_they_held(redis: Redis) -> None:
    second = await now(redis)
    scopes = [a_scope(f"team:{period}", 1000, period=period) for period in ("day", "month", "week", "total")]
    for ahead in itertools.product((0, 1), repeat=3):
        numbers = [period_number(p, second) + a for p, a in zip(("day", "month", "week"), ahead, strict=True)]
        for scope, number in zip(scopes, (*numbers, 0), strict=True):
            await trust(redis, scope, period=number)
        reservation, answer = await reserve(redis, scopes, 100)
        assert answer.refused is None
        assert [held for _, held in await spent_and_held(redis, *[s.id for s in scopes])] == [100] * 4
        await settle(redis, reservation, dollars(40))
        assert await spent_and_held(redis, *[scope.id for scope in scopes]) == [(40, 0)] * 4


async def test_a_request_that_was_in_flight_over_the_step_is_settled_where_it_was_held(redis: Redis) -> None:
    scope = a_scope("key:key_1", 1000, period="day")
    today = period_number("day", await now(redis))
    await trust(redis, scope, period=today + 1)
    first, _ = await reserve(redis, [scope], 300)
    # The worker recounts by a clock that is right, which moves the budget into today.
    await redis.call("SADD", cold_key(ORG), f"1 {scope.id}")
    recount = Recount(redis, ORG, "token")
    assert await recount.lock(60)
    begun = await recount.begin([ColdBudget("day", scope.id)])
    assert begun is not None
    assert await recount.finish({ColdBudget("day", scope.id): 50}, begun) == 1
    assert ((await money(redis, scope.id)).period, await spent_and_held(redis, scope.id)) == (today, [(50, 300)])
    await settle(redis, first, dollars(200))
    assert ((await money(redis, scope.id)).period, await spent_and_held(redis, scope.id)) == (today, [(250, 0)])


async def test_a_budget_of_a_clock_that_was_wrong_is_recounted(redis: Redis) -> None:
    scope = a_scope("key:key_1", 1000, period="day")
    today = period_number("day", await now(redis))
    await trust(redis, scope, period=today + 400, spent=900, held=70)
    _, answer = await reserve(redis, [scope], 100)
    assert answer.refused == "cold"
    assert await redis.call("SMEMBERS", cold_key(ORG)) == [f"1 {scope.id}".encode()]
    warning = a_scope("key:key_1", 1000, period="day", warns=True)
    reservation, answer = await reserve(redis, [warning], 100)
    assert answer.refused is None
    state = await money(redis, scope.id)
    assert (state.period, state.is_cold, state.held) == (today, True, 170)
    await settle(redis, reservation, dollars(10))
    assert (await money(redis, scope.id)).held == 70


async def test_a_bucket_whose_time_is_in_the_future_fills_from_now_on(redis: Redis) -> None:
    key = Key(redis, Limits(requests_per_minute=60, tokens_per_minute=60_000))
    hour = 3_600_000
    future = time.time() * 1000 + hour
    await redis.call("SET", bucket_key(ORG, key.name), struct.pack("<4d", future, 0.5, 0.0, 0))
    wanted = key.wants(tokens=100)
    answer = await admission.reserve(redis, wanted)
    assert answer.refused == "requests"
    assert answer.retry_after_ms <= 1000
    bucket = await read_bucket(redis, ORG, key.name)
    assert bucket is not None
    assert bucket.at <= time.time() * 1000 + 1000
    await key.rewind(1000)
    assert (await admission.reserve(redis, wanted)).refused is None


async def test_what_a_dead_gateway_held_is_released_though_the_clock_was_ahead(redis: Redis) -> None:
    scope = a_scope("key:key_1", 1000)
    await trust(redis, scope)
    wanted = a_reservation(ScopeSet(ORG, (scope,)), 300)
    await admission.reserve(redis, wanted)
    ahead = (await now(redis) + 7 * DAY) * 1000
    await redis.call("ZADD", deadlines_key(ORG), ahead, wanted.id)
    assert await leases.settle_expired(redis, ORG, grace_seconds=0) == 0
    deadline = float(await redis.call("ZSCORE", deadlines_key(ORG), wanted.id))
    assert deadline <= (await now(redis) + leases.MAX_LEASE_SECONDS + 1) * 1000
    await expire(redis, wanted)
    assert await leases.settle_expired(redis, ORG, grace_seconds=0) == 1
    assert await in_flight(redis) == (0, 0)
    assert (await money(redis, scope.id)).held == 0


async def test_a_lease_of_the_longest_kind_is_not_shortened(redis: Redis) -> None:
    scope = a_scope("key:key_1", 1000)
    await trust(redis, scope)
    wanted = a_reservation(ScopeSet(ORG, (scope,)), 300, lease_seconds=leases.MAX_LEASE_SECONDS)
    await admission.reserve(redis, wanted)
    before = await redis.call("ZSCORE", deadlines_key(ORG), wanted.id)
    assert await leases.settle_expired(redis, ORG) == 0
    assert await redis.call("ZSCORE", deadlines_key(ORG), wanted.id) == before


async def test_holds_of_the_next_period_are_released_in_any_order(redis: Redis) -> None:
    scope = a_scope("key:key_1", 10_000_000, period="day")
    today = period_number("day", await now(redis))
    await trust(redis, scope, period=today + 1)
    held = []
    for number in range(60):
        reservation, answer = await reserve(redis, [scope], 100 + number)
        assert answer.refused is None
        held.append(reservation)
        if number % 3 == 2:
            await settle(redis, held.pop(number % len(held)), Decimal(0))
    for reservation in held:
        await settle(redis, reservation, Decimal(0))
    assert await spent_and_held(redis, scope.id) == [(0, 0)]
