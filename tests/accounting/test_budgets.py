"""Money: held before, spent after, in every scope or in none."""

import asyncio
import itertools
import struct
from datetime import UTC, datetime
from decimal import Decimal

import pytest
from tests.accounting.spending import (
    ORG,
    a_bill,
    a_reservation,
    a_scope,
    dollars,
    money,
    reserve,
    settle,
    spent_and_held,
    trust,
)
from tests.accounting.test_admission import expire

from quarterdeck.accounting import admission, commit, layouts, leases, scripts
from quarterdeck.accounting.commit import Note
from quarterdeck.accounting.periods import PERIODS, period_number, period_start
from quarterdeck.accounting.redis_keys import cold_key, reservations_key, stream_key
from quarterdeck.accounting.scopes import Scope, ScopeSet
from quarterdeck.accounting.scripts import PERIOD
from quarterdeck.net.redis import Redis, RedisError, Script
from quarterdeck.record import RequestRecord, decode
from quarterdeck.settings.limits import Limits

KEY, TEAM, ORGS = "key:key_1", "team:default", "org"
DAY = 86_400


# what is held and spent


async def settle_together(redis: Redis, scope_set: ScopeSet, bills: list[RequestRecord]) -> int:
    command = commit.settle_command([commit.arguments_of(bill) for bill in bills], scope_set)
    return int(await redis.execute(scripts.SETTLE, command))


async def test_requests_are_settled_together_as_they_are_one_by_one(redis: Redis) -> None:
    limits = Limits(tokens_per_minute=10_000, concurrent_requests=9)
    scope, team = a_scope(KEY, 1000, limits=limits), a_scope(TEAM, 5000)
    await trust(redis, scope, team)
    reservations = [(await reserve(redis, [scope, team], 100, tokens=500))[0] for _ in range(4)]
    scope_set = reservations[0].scope_set
    unseen = a_reservation(scope_set, 100)  # Redis was away when it came
    bills = [a_bill(each, dollars(30), input_tokens=200) for each in (*reservations[:3], unseen)]
    assert await settle(redis, reservations[0], dollars(30), input_tokens=200)
    assert await settle_together(redis, scope_set, [*bills, bills[1]]) == 3
    assert await spent_and_held(redis, KEY, TEAM) == [(120, 100)] * 2
    bucket = await layouts.read_bucket(redis, ORG, KEY)
    assert bucket is not None
    assert (bucket.running, round(bucket.tokens, -3)) == (1, 9_000)  # 3 * 200 used, 500 held
    ids = [decode(fields[1]).id for _, fields in await redis.call("XRANGE", stream_key(ORG), "-", "+")]
    assert ids == [bill.id for bill in bills]


async def test_what_redis_could_not_take_is_settled_when_it_is_sent_again(redis: Redis) -> None:
    scope = a_scope(KEY, 1000)
    await trust(redis, scope)
    reservations = [(await reserve(redis, [scope], 100))[0] for _ in range(2)]
    scope_set, bills = reservations[0].scope_set, [a_bill(each, dollars(30)) for each in reservations]
    await redis.call("SET", stream_key(ORG), "no stream")
    with pytest.raises(RedisError, match="WRONGTYPE"):
        await settle_together(redis, scope_set, bills)
    assert await spent_and_held(redis, KEY) == [(0, 200)]
    await redis.call("DEL", stream_key(ORG))
    assert await settle_together(redis, scope_set, bills) == 2
    assert await spent_and_held(redis, KEY) == [(60, 0)]


async def test_what_is_reserved_is_held_and_what_is_settled_is_spent(redis: Redis) -> None:
    scope = a_scope(KEY, 1000)
    await trust(redis, scope)
    reservation, admitted = await reserve(redis, [scope], 400)
    assert (admitted.refused, admitted.warned) == (None, "")
    assert await spent_and_held(redis, KEY) == [(0, 400)]
    assert await settle(redis, reservation, dollars(150))
    assert await spent_and_held(redis, KEY) == [(150, 0)]
    assert not await settle(redis, reservation, dollars(150))
    assert await spent_and_held(redis, KEY) == [(150, 0)]


async def test_a_cost_is_rounded_up_with_each_request(redis: Redis) -> None:
    scope = a_scope(KEY, 1000)
    await trust(redis, scope)
    for _ in range(3):
        reservation, _ = await reserve(redis, [scope], 1)
        await settle(redis, reservation, Decimal("0.0000010000001"))
    assert await spent_and_held(redis, KEY) == [(6, 0)]


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


async def test_a_request_that_is_given_back_costs_nothing(redis: Redis) -> None:
    scope = a_scope(KEY, 1000)
    await trust(redis, scope, spent=10)
    reservation, _ = await reserve(redis, [scope], 400)
    await commit.release(redis, reservation)
    await commit.release(redis, reservation)
    assert await spent_and_held(redis, KEY) == [(10, 0)]


async def test_a_request_that_redis_never_saw_is_spent_all_the_same(redis: Redis) -> None:
    """It went on while Redis was away, and comes from the spool."""
    scope = a_scope(KEY, 1000)
    await trust(redis, scope)
    unseen = a_reservation(ScopeSet(ORG, (scope,)), 400)
    assert await settle(redis, unseen, dollars(30))
    assert not await settle(redis, unseen, dollars(30))
    assert await spent_and_held(redis, KEY) == [(30, 0)]


async def test_a_reservation_that_comes_after_its_settlement_holds_nothing(redis: Redis) -> None:
    """Redis was paused: it read what had been sent first when all was over."""
    scope = a_scope(KEY, 1000)
    await trust(redis, scope)
    late = a_reservation(ScopeSet(ORG, (scope,)), 400)
    assert await settle(redis, late, dollars(30))
    assert (await admission.reserve(redis, late)).refused is None
    assert await spent_and_held(redis, KEY) == [(30, 400)]
    assert not await settle(redis, late, dollars(30))
    assert await spent_and_held(redis, KEY) == [(30, 0)]


async def test_the_truth_replaces_the_guess_in_money_and_tokens(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "GRACE_SECONDS", 0)
    scope = a_scope(KEY, 1000, limits=Limits(tokens_per_minute=10**6))
    await trust(redis, scope)
    reservation, _ = await reserve(redis, [scope], 400, tokens=500)
    guess = a_bill(reservation, dollars(100), status="lost", input_tokens=100)
    await leases.renew(redis, ORG, [(reservation.id, Note(guess, reservation.scope_set.noted))])
    await expire(redis, reservation)
    assert await leases.settle_expired(redis, ORG) == 1
    assert await spent_and_held(redis, KEY) == [(100, 0)]
    before = await layouts.read_bucket(redis, ORG, KEY)
    assert await settle(redis, reservation, dollars(250), input_tokens=300)
    after = await layouts.read_bucket(redis, ORG, KEY)
    assert await spent_and_held(redis, KEY) == [(250, 0)]
    assert before is not None
    assert after is not None
    assert (after.tokens - before.tokens, after.running) == (-200, 0)


# several scopes


async def test_a_request_is_counted_in_all_its_scopes(redis: Redis) -> None:
    limits = Limits(requests_per_minute=100, tokens_per_minute=10_000, concurrent_requests=5)
    scopes = [a_scope(KEY, 1000, limits=limits), Scope(TEAM, limits), a_scope(ORGS, 5000)]
    await trust(redis, scopes[0], scopes[2])
    reservation, _ = await reserve(redis, scopes, 400, tokens=50)
    assert await spent_and_held(redis, KEY, ORGS) == [(0, 400)] * 2
    for scope in (KEY, TEAM):
        bucket = await layouts.read_bucket(redis, ORG, scope)
        assert bucket is not None
        assert (bucket.requests, bucket.tokens, bucket.running) == (99, 9950, 1)
    await settle(redis, reservation, dollars(70))
    assert await spent_and_held(redis, KEY, ORGS) == [(70, 0)] * 2
    assert await layouts.read_bucket(redis, ORG, ORGS) is None


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
    before = [(await money(redis, name), await layouts.read_bucket(redis, ORG, name)) for name in names]
    refused = (await reserve(redis, scopes, 600, tokens=60))[1]
    assert (refused.refused, refused.scope) == (what, names[tight])
    assert before == [(await money(redis, name), await layouts.read_bucket(redis, ORG, name)) for name in names]
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


# the kept answer


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
    assert (refused.refused, refused.scope, refused.retry_after_ms) == ("cold", KEY, 1000)
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
    assert (full.refused, full.retry_after_ms) == ("full", 1000)
    assert await spent_and_held(redis, KEY) == [(0, 0)]
    assert (await reserve(redis, [scope], 1, most_waiting=4))[1].refused is None
    limited = Scope("key:other", Limits(requests_per_minute=5))
    assert (await reserve(redis, [limited], 1, most_waiting=3))[1].refused is None


# periods


async def made_earlier(redis: Redis, id: str, seconds: float) -> None:
    """As if the reservation had been made so much earlier."""
    data = await redis.call("HGET", reservations_key(ORG), id)
    (second,) = struct.unpack("<d", data[:8])
    await redis.call("HSET", reservations_key(ORG), id, struct.pack("<d", second - seconds) + data[8:])


async def today(redis: Redis) -> int:
    return int((await redis.call("TIME"))[0]) // DAY


async def test_a_new_period_begins_with_nothing_spent_or_held(redis: Redis) -> None:
    scope = a_scope(KEY, 1000, period="day")
    await trust(redis, scope, spent=900, held=90, period=await today(redis) - 1)
    reservation, admitted = await reserve(redis, [scope], 400)
    assert admitted.refused is None
    assert await spent_and_held(redis, KEY) == [(0, 400)]
    await settle(redis, reservation, dollars(10))
    assert await spent_and_held(redis, KEY) == [(10, 0)]


async def test_what_was_reserved_in_a_period_that_is_over_weighs_on_no_later_one(redis: Redis) -> None:
    scope = a_scope(KEY, 1000, period="day")
    await trust(redis, scope, period=await today(redis))
    old, _ = await reserve(redis, [scope], 400)
    await made_earlier(redis, old.id, DAY)
    await trust(redis, scope, spent=7, held=300, period=await today(redis))
    assert await settle(redis, old, dollars(150))
    assert await spent_and_held(redis, KEY) == [(7, 300)]


async def test_what_redis_never_saw_belongs_to_when_it_began(redis: Redis) -> None:
    scope = a_scope(KEY, 1000, period="day")
    await trust(redis, scope, period=await today(redis))
    scope_set = ScopeSet(ORG, (scope,))
    seconds = int((await redis.call("TIME"))[0])
    await settle(redis, a_reservation(scope_set, 0), dollars(5), started=seconds - DAY + 0.5)
    assert await spent_and_held(redis, KEY) == [(0, 0)]
    await settle(redis, a_reservation(scope_set, 0), dollars(5), started=seconds + 3 * DAY + 0.5)
    assert await spent_and_held(redis, KEY) == [(5, 0)]


PERIOD_OF = Script(PERIOD + "return period_of(tonumber(ARGV[1]), tonumber(ARGV[2]))")


@pytest.mark.parametrize("period", PERIODS[1:])
async def test_redis_and_we_mean_the_same_period(redis: Redis, period: str) -> None:
    """Each day of twelve years, leap years and a century's turn among them: a new number exactly when one begins."""
    kind = PERIODS.index(period)
    for year in (2023, 2096):
        start = int(datetime(year, 1, 1, tzinfo=UTC).timestamp())
        seconds = [start + day * DAY + edge for day in range(6 * 365) for edge in (0, DAY - 1)]
        numbers = await asyncio.gather(*[redis.run(PERIOD_OF, (), (kind, second)) for second in seconds])
        starts = [period_start(period, second) for second in seconds]
        assert sorted(numbers) == numbers
        assert [period_number(period, second) for second in seconds] == numbers
        turns = [a != b for a, b in itertools.pairwise(numbers)]
        assert turns == [a != b for a, b in itertools.pairwise(starts)]
        assert sum(turns) == {"day": 2189, "week": 313, "month": 71, "total": 0}[period]
