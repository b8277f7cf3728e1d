"""Limits and budgets that hold: a request is taken from every scope or from none."""

import asyncio

import pytest
from tests.accounting.keys import ORG, TOKENS, Key, in_flight, read_bucket
from tests.accounting.spending import (
    a_scope,
    dollars,
    money,
    reserve,
    settle,
    spent_and_held,
    trust,
)

from quarterdeck.accounting import admission, layouts, redis_keys
from quarterdeck.accounting.admission import Admission
from quarterdeck.accounting.redis_keys import cold_key, reservations_key, stream_key
from quarterdeck.accounting.scopes import Scope
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Limits

KEY, TEAM, ORGS = "key:key_1", "team:default", "org"
DAY = 86_400


# limits


async def test_a_key_without_limits_leaves_no_bucket(redis: Redis) -> None:
    key = Key(redis)
    reservation, admitted = await key.reserve()
    assert admitted == Admission(None, 0)
    assert await key.bucket() is None
    assert await in_flight(redis) == (1, 1)
    assert await key.settle(reservation)
    assert await in_flight(redis) == (0, 0)


async def test_requests_are_counted_down_and_refused_with_when_to_come_back(redis: Redis) -> None:
    key = Key(redis, Limits(requests_per_minute=2))
    assert [(await key.reserve())[1].requests_left for _ in range(2)] == [1, 0]
    refused = (await key.reserve())[1]
    assert (refused.refused, refused.requests_left, refused.tokens_left) == ("requests", 0, -1)
    assert 29_000 < refused.retry_after_ms <= 30_000
    assert await in_flight(redis) == (2, 2)


async def test_tokens_are_counted_down_and_refused(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    assert (await key.reserve(700))[1].tokens_left == 300
    refused = (await key.reserve(400))[1]
    assert (refused.refused, refused.tokens_left, refused.requests_left) == ("tokens", 300, -1)
    assert 5_000 < refused.retry_after_ms <= 6_000
    assert (await key.reserve(300))[1].refused is None


async def test_a_request_that_is_larger_than_the_limit_may_run_when_the_bucket_is_full(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    reservation, admitted = await key.reserve(5000)
    assert (admitted.refused, admitted.tokens_left) == (None, -4000)
    assert (await key.reserve(1))[1].refused == "tokens"
    await key.settle(reservation, used=10)
    assert (await key.reserve(900))[1].refused is None


async def test_places_are_taken_and_given_back(redis: Redis) -> None:
    key = Key(redis, Limits(concurrent_requests=2))
    first, _ = await key.reserve()
    await key.reserve()
    refused = (await key.reserve())[1]
    assert (refused.refused, refused.retry_after_ms) == ("concurrent", 1000)
    await key.settle(first)
    assert (await key.reserve())[1].refused is None


async def test_one_key_does_not_pay_for_another(redis: Redis) -> None:
    one, other = Key(redis, Limits(requests_per_minute=1), "one"), Key(redis, Limits(requests_per_minute=1), "other")
    for key in (one, other):
        assert (await key.reserve())[1].refused is None
        assert (await key.reserve())[1].refused == "requests"


async def test_a_bucket_fills_with_time(redis: Redis) -> None:
    key = Key(redis, Limits(requests_per_minute=60, tokens_per_minute=6000))
    for _ in range(60):
        await key.reserve(100)
    assert (await key.reserve())[1].refused == "requests"
    await key.rewind(2000)
    admitted = (await key.reserve(100))[1]
    assert admitted.refused is None
    assert admitted.requests_left in (1, 2)
    assert 100 <= admitted.tokens_left < 200


async def test_no_bucket_is_fuller_than_full(redis: Redis) -> None:
    key = Key(redis, Limits(requests_per_minute=5, tokens_per_minute=1000))
    await key.reserve(100)
    await key.rewind(86_400_000)
    admitted = (await key.reserve(100))[1]
    assert (admitted.requests_left, admitted.tokens_left) == (4, 900)


async def test_a_clock_that_was_set_back_takes_nothing_away(redis: Redis) -> None:
    key = Key(redis, Limits(requests_per_minute=5))
    await key.reserve()
    await key.rewind(-3_600_000)
    assert (await key.reserve())[1].requests_left == 3


async def test_a_limit_that_is_set_later_begins_full(redis: Redis) -> None:
    """A thousand requests under another limit must not count against the new one."""
    key = Key(redis, Limits(concurrent_requests=5000))
    for _ in range(200):
        reservation, _ = await key.reserve(1000)
        await key.settle(reservation, used=900)
    key.limits = Limits(requests_per_minute=10, tokens_per_minute=1000, concurrent_requests=5000)
    admitted = (await key.reserve(100))[1]
    assert (admitted.refused, admitted.requests_left, admitted.tokens_left) == (None, 9, 900)


async def test_a_limit_that_was_taken_away_and_comes_back_begins_full(redis: Redis) -> None:
    key = Key(redis, Limits(requests_per_minute=2, tokens_per_minute=1000))
    for _ in range(2):
        await key.reserve(500)
    key.limits = Limits(concurrent_requests=10)
    assert (await key.reserve())[1].refused is None
    key.limits = Limits(requests_per_minute=2, tokens_per_minute=1000)
    admitted = (await key.reserve(100))[1]
    assert (admitted.refused, admitted.requests_left, admitted.tokens_left) == (None, 1, 900)


async def test_the_orgs_revision_is_told_with_every_answer(redis: Redis) -> None:
    key = Key(redis, Limits(requests_per_minute=1))
    assert (await key.reserve())[1].revision == 0
    await redis.call("INCR", redis_keys.revision_key(ORG))
    refused = (await key.reserve())[1]
    assert (refused.refused, refused.revision) == ("requests", 1)


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        (Limits(requests_per_minute=37), 37),
        (Limits(tokens_per_minute=3700), 37),
        (Limits(concurrent_requests=37), 37),
        (Limits(requests_per_minute=50, tokens_per_minute=3700, concurrent_requests=40), 37),
    ],
)
async def test_two_hundred_at_once_get_no_more_than_there_is(redis_url: str, limits: Limits, most: int) -> None:
    """From several gateways with a connection each. The bucket refills meanwhile, so one more may be admitted."""
    gateways = [Redis(redis_url) for _ in range(4)]
    keys = [Key(gateway, limits) for gateway in gateways]
    answers = await asyncio.gather(*[keys[n % 4].reserve(100) for n in range(200)])
    admitted = [reservation for reservation, answer in answers if answer.refused is None]
    assert most <= len(admitted) <= most + 1
    assert await in_flight(gateways[0]) == (len(admitted), len(admitted))
    await asyncio.gather(*[keys[0].settle(reservation, used=100) for reservation in admitted])
    assert await keys[0].running() == 0
    for gateway in gateways:
        await gateway.close()


# budgets


async def test_a_budget_admits_up_to_its_amount_and_not_beyond(redis: Redis) -> None:
    scope = a_scope(KEY, 1000)
    await trust(redis, scope, spent=500)
    assert (await reserve(redis, [scope], 300))[1].refused is None
    refused = (await reserve(redis, [scope], 201))[1]
    assert (refused.refused, refused.scope) == ("money", KEY)
    assert (await reserve(redis, [scope], 200))[1].refused is None
    assert await spent_and_held(redis, KEY) == [(500, 500)]


async def test_what_is_free_asks_no_budget(redis: Redis) -> None:
    scope = a_scope(KEY, 1000)
    await trust(redis, scope, spent=2000)
    assert (await reserve(redis, [scope], 0))[1].refused is None
    assert (await reserve(redis, [a_scope("key:new", 1000)], 0))[1].refused is None


async def test_a_budget_that_warns_admits_and_says_so(redis: Redis) -> None:
    scope = a_scope(TEAM, 1000, warns=True)
    await trust(redis, scope, spent=900)
    reservation, admitted = await reserve(redis, [scope], 200)
    assert (admitted.refused, admitted.warned) == (None, TEAM)
    await settle(redis, reservation, dollars(150))
    assert await spent_and_held(redis, TEAM) == [(1050, 0)]


async def test_more_money_than_a_double_holds_is_the_most_there_is(redis: Redis) -> None:
    scope = a_scope(KEY, 10**18 - 1)
    await trust(redis, scope, spent=2**53 - 3)
    assert (await reserve(redis, [scope], 1))[1].refused is None
    assert await spent_and_held(redis, KEY) == [(2**53 - 3, 1)]
    assert (await reserve(redis, [scope], 10))[1].refused == "money"


# several scopes


async def test_a_request_is_counted_in_all_its_scopes(redis: Redis) -> None:
    limits = Limits(requests_per_minute=100, tokens_per_minute=10_000, concurrent_requests=5)
    scopes = [a_scope(KEY, 1000, limits=limits), Scope(TEAM, limits), a_scope(ORGS, 5000)]
    await trust(redis, scopes[0], scopes[2])
    reservation, _ = await reserve(redis, scopes, 400, tokens=50)
    assert await spent_and_held(redis, KEY, ORGS) == [(0, 400)] * 2
    for scope in (KEY, TEAM):
        bucket = await read_bucket(redis, ORG, scope)
        assert bucket is not None
        assert (bucket.requests, bucket.tokens, bucket.running) == (99, 9950, 1)
    await settle(redis, reservation, dollars(70))
    assert await spent_and_held(redis, KEY, ORGS) == [(70, 0)] * 2
    assert await read_bucket(redis, ORG, ORGS) is None


@pytest.mark.parametrize("tight", range(3))
@pytest.mark.parametrize("what", ["requests", "tokens", "concurrent", "money"])
async def test_where_one_scope_refuses_none_takes_anything_and_it_is_named(redis: Redis, tight: int, what: str) -> None:
    wide = Limits(requests_per_minute=100, tokens_per_minute=10_000, concurrent_requests=9)
    narrow = {
        "requests": Limits(requests_per_minute=1, tokens_per_minute=10_000, concurrent_requests=9),
        "tokens": Limits(requests_per_minute=100, tokens_per_minute=70, concurrent_requests=9),
        "concurrent": Limits(requests_per_minute=100, tokens_per_minute=10_000, concurrent_requests=1),
        "money": wide,
    }[what]
    names = (KEY, TEAM, ORGS)
    scopes = [
        a_scope(name, 1000 if what == "money" and n == tight else 10**6, limits=narrow if n == tight else wide)
        for n, name in enumerate(names)
    ]
    await trust(redis, *scopes)
    first, admitted = await reserve(redis, scopes, 600, tokens=60)
    assert admitted.refused is None
    before = [(await money(redis, name), await read_bucket(redis, ORG, name)) for name in names]
    refused = (await reserve(redis, scopes, 600, tokens=60))[1]
    assert (refused.refused, refused.scope) == (what, names[tight])
    assert before == [(await money(redis, name), await read_bucket(redis, ORG, name)) for name in names]
    assert await redis.call("HKEYS", reservations_key(ORG)) == [first.id.encode()]


async def test_headers_tell_of_the_scope_with_the_least_left(redis: Redis) -> None:
    scopes = [
        Scope(KEY, Limits(requests_per_minute=10, tokens_per_minute=9000)),
        Scope(TEAM, Limits(requests_per_minute=5, tokens_per_minute=9000)),
        Scope(ORGS, Limits(requests_per_minute=7, tokens_per_minute=500)),
    ]
    admitted = (await reserve(redis, scopes, 0, tokens=100))[1]
    assert (admitted.requests_left, admitted.requests_limit) == (4, 5)
    assert (admitted.tokens_left, admitted.tokens_limit) == (400, 500)


async def test_keys_of_a_team_share_what_the_team_has(redis: Redis) -> None:
    team = a_scope(TEAM, 1000)
    await trust(redis, team)
    for key in ("a", "b"):
        assert (await reserve(redis, [Scope(f"key:{key}", Limits(concurrent_requests=9)), team], 500))[
            1
        ].refused is None
    assert (await reserve(redis, [team], 1))[1].scope == TEAM


# cached answers


async def test_a_kept_answer_takes_a_request_and_nothing_else(redis: Redis) -> None:
    scope = a_scope(KEY, 1, limits=Limits(requests_per_minute=2, tokens_per_minute=1, concurrent_requests=1))
    await trust(redis, scope, spent=5)
    await redis.call("SET", "cache:{default}:k", b"\x00kept")
    hit = (await reserve(redis, [scope], 400, tokens=9000, cache_key="cache:{default}:k"))[1]
    assert (hit.refused, hit.cached, hit.requests_left, hit.tokens_left) == (None, b"\x00kept", 1, 1)
    assert await spent_and_held(redis, KEY) == [(5, 0)]
    assert await redis.call("HLEN", reservations_key(ORG)) == 0
    assert (await reserve(redis, [scope], 400, cache_key="cache:{default}:k"))[1].cached == b"\x00kept"
    assert (await reserve(redis, [scope], 400, cache_key="cache:{default}:k"))[1].refused == "requests"


async def test_what_is_not_kept_is_admitted_as_ever(redis: Redis) -> None:
    scope = a_scope(KEY, 1000)
    await trust(redis, scope)
    miss = (await reserve(redis, [scope], 400, cache_key="cache:{default}:k"))[1]
    assert (miss.refused, miss.cached) == (None, None)
    assert await spent_and_held(redis, KEY) == [(0, 400)]


async def test_a_kept_answer_is_given_where_nothing_is_counted(redis: Redis) -> None:
    assert (await reserve(redis, [], 0, cache_key="cache:{default}:k"))[1].cached is None
    assert await redis.call("HLEN", reservations_key(ORG)) == 1
    await redis.call("SET", "cache:{default}:k", b"kept")
    assert (await reserve(redis, [], 0, cache_key="cache:{default}:k"))[1].cached == b"kept"
    assert await redis.call("HLEN", reservations_key(ORG)) == 1


# cold, full


async def test_a_budget_that_redis_does_not_know_is_cold_and_the_worker_is_told(redis: Redis) -> None:
    refused = (await reserve(redis, [a_scope(KEY, 1000, period="month")], 400))[1]
    assert (refused.refused, refused.scope) == ("cold", KEY)
    assert await redis.call("SMEMBERS", cold_key(ORG)) == [b"3 key:key_1"]
    assert await layouts.read_money(redis, ORG, KEY) is None


async def test_a_cold_budget_that_only_warns_holds_nobody_up(redis: Redis) -> None:
    scope = a_scope(KEY, 1000, warns=True)
    reservation, admitted = await reserve(redis, [scope], 400)
    assert (admitted.refused, admitted.warned) == (None, "")
    assert await redis.call("SMEMBERS", cold_key(ORG)) == [b"4 key:key_1"]
    state = await money(redis, KEY)
    assert (state.is_cold, state.held) == (True, 400)
    await settle(redis, reservation, dollars(100))
    assert await spent_and_held(redis, KEY) == [(100, 0)]


async def test_a_budget_of_another_period_is_cold(redis: Redis) -> None:
    await trust(redis, a_scope(KEY, 1000, period="total"))
    assert (await reserve(redis, [a_scope(KEY, 1000, period="day")], 1))[1].refused == "cold"


async def test_keys_without_a_budget_go_on_while_others_are_cold(redis: Redis) -> None:
    assert (await reserve(redis, [a_scope(KEY, 1000)], 1))[1].refused == "cold"
    assert (await reserve(redis, [Scope("key:other", Limits(requests_per_minute=5))], 1))[1].refused is None


async def test_where_too_many_records_wait_budgets_are_refused_and_others_are_not(redis: Redis) -> None:
    scope = a_scope(KEY, 1000)
    await trust(redis, scope)
    for _ in range(3):
        await redis.call("XADD", stream_key(ORG), "*", "record", "{}")
    full = (await reserve(redis, [scope], 1, most_waiting=3))[1]
    assert full.refused == "full"
    assert await spent_and_held(redis, KEY) == [(0, 0)]
    assert (await reserve(redis, [scope], 1, most_waiting=4))[1].refused is None
    limited = Scope("key:other", Limits(requests_per_minute=5))
    assert (await reserve(redis, [limited], 1, most_waiting=3))[1].refused is None


@pytest.mark.parametrize(("spent", "refused"), [(0, None), (95, "money")])
async def test_a_request_of_a_period_that_is_over_holds_more_only_within_the_present_one(
    redis: Redis, spent: int, refused: str | None
) -> None:
    daily = a_scope("key:a", 100, period="day")
    today = int((await redis.call("TIME"))[0]) // 86400
    await trust(redis, daily, period=today)
    wanted, admitted = await reserve(redis, [daily], 1)
    assert admitted.refused is None
    await trust(redis, daily, period=today + 1, spent=spent)  # midnight has passed
    extended = await admission.extend(redis, wanted.scope_set, wanted.id, 10)
    assert extended.refused == refused
    assert await spent_and_held(redis, "key:a") == [(spent, 0)]
