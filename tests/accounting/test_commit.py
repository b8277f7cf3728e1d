"""Records are committed and charged once, even if a command is sent twice, late or never."""

import struct
from decimal import Decimal

import pytest
from tests.accounting.keys import ORG, TOKENS, Key, in_flight, read_bucket, stream
from tests.accounting.spending import (
    a_bill,
    a_reservation,
    a_scope,
    dollars,
    reserve,
    settle,
    spent_and_held,
    trust,
)
from tests.records import a_record

from quarterdeck.accounting import admission, commit, redis_keys, scripts
from quarterdeck.accounting.redis_keys import reservations_key, stream_key
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.net.redis import Redis, RedisError
from quarterdeck.record import RequestRecord, decode
from quarterdeck.settings.limits import Limits

KEY, TEAM, ORGS = "key:key_1", "team:default", "org"
DAY = 86_400


# settling


async def test_a_record_is_committed_once(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    reservation, _ = await key.reserve(700)
    assert await key.settle(reservation, used=50)
    level = await key.level()
    assert 949 < level < 960
    assert not await key.settle(reservation, used=50)
    assert (await key.level(), await key.running()) == (level, 0)
    assert await stream(redis) == [reservation.id]


async def test_more_than_was_reserved_may_be_used(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    reservation, _ = await key.reserve(100)
    await key.settle(reservation, used=1500)
    assert -501 < await key.level() < -490
    assert (await key.reserve(1))[1].refused == "tokens"


async def test_a_record_without_a_reservation_is_committed(redis: Redis) -> None:
    """Redis was away when the request came in."""
    key = Key(redis, TOKENS)
    await key.reserve(100)
    before = await key.bucket()
    wanted = key.wants(100)
    assert await key.settle(wanted, used=50)
    assert await key.bucket() == before
    assert await stream(redis) == [wanted.id]


async def test_a_released_reservation_leaves_nothing(redis: Redis) -> None:
    key = Key(redis, Limits(tokens_per_minute=1000, concurrent_requests=1))
    reservation, _ = await key.reserve(100)
    await commit.release(redis, reservation)
    await commit.release(redis, reservation)
    assert (round(await key.level()), await key.running()) == (1000, 0)
    assert (await stream(redis), await in_flight(redis)) == ([], (0, 0))


async def test_releasing_what_was_never_reserved_does_nothing(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    await commit.release(redis, key.wants())
    assert (await stream(redis), await key.bucket()) == ([], None)


async def test_a_reservation_that_comes_after_its_settlement_does_not_stay(redis: Redis) -> None:
    """Redis was paused: the request ran without it and was settled before Redis read the reservation."""
    key = Key(redis, Limits(tokens_per_minute=1000, concurrent_requests=1))
    wanted = key.wants(100)
    assert await key.settle(wanted, used=50)
    assert (await admission.reserve(redis, wanted)).refused is None
    assert not await key.settle(wanted, used=50)
    assert await in_flight(redis) == (0, 0)
    assert await key.running() == 0
    assert await stream(redis) == [wanted.id]


async def test_a_record_that_redis_refuses_may_be_sent_again(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    reservation, _ = await key.reserve(100)
    await redis.call("SET", redis_keys.stream_key(ORG), "in the way")
    with pytest.raises(RedisError):
        await key.settle(reservation)
    assert await in_flight(redis) == (1, 1)
    await redis.call("DEL", redis_keys.stream_key(ORG))
    assert await key.settle(reservation)
    assert await stream(redis) == [reservation.id]


async def test_scripts_that_redis_forgot_run_all_the_same(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    reservation, _ = await key.reserve()
    await redis.call("SCRIPT", "FLUSH")
    assert await key.settle(reservation)
    await redis.call("SCRIPT", "FLUSH")
    assert (await key.reserve())[1].refused is None


# money


async def settle_together(redis: Redis, scope_set: ScopeSet, bills: list[RequestRecord]) -> int:
    command = commit.settle_command([commit.arguments_of(bill) for bill in bills], scope_set)
    return int(await redis.execute(scripts.SETTLE, command, ORG))


async def test_requests_are_settled_together_as_they_are_one_by_one(redis: Redis) -> None:
    limits = Limits(tokens_per_minute=10_000, concurrent_requests=9)
    scope, team = a_scope(KEY, 1000, limits=limits), a_scope(TEAM, 5000)
    await trust(redis, scope, team)
    reservations = [(await reserve(redis, [scope, team], 100, tokens=500))[0] for _ in range(4)]
    scope_set = reservations[0].scope_set
    unseen = a_reservation(scope_set, 100)  # Redis was away when it arrived
    bills = [a_bill(each, dollars(30), input_tokens=200) for each in (*reservations[:3], unseen)]
    assert await settle(redis, reservations[0], dollars(30), input_tokens=200)
    assert await settle_together(redis, scope_set, [*bills, bills[1]]) == 3
    assert await spent_and_held(redis, KEY, TEAM) == [(120, 100)] * 2
    bucket = await read_bucket(redis, ORG, KEY)
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


async def test_a_request_that_is_given_back_costs_nothing(redis: Redis) -> None:
    scope = a_scope(KEY, 1000)
    await trust(redis, scope, spent=10)
    reservation, _ = await reserve(redis, [scope], 400)
    await commit.release(redis, reservation)
    await commit.release(redis, reservation)
    assert await spent_and_held(redis, KEY) == [(10, 0)]


async def test_a_request_that_redis_never_saw_is_spent_all_the_same(redis: Redis) -> None:
    """It ran while Redis was away, and comes from the spool."""
    scope = a_scope(KEY, 1000)
    await trust(redis, scope)
    unseen = a_reservation(ScopeSet(ORG, (scope,)), 400)
    assert await settle(redis, unseen, dollars(30))
    assert not await settle(redis, unseen, dollars(30))
    assert await spent_and_held(redis, KEY) == [(30, 0)]


async def test_a_reservation_that_comes_after_its_settlement_holds_nothing(redis: Redis) -> None:
    """Redis was paused and read the reservation after the request was settled."""
    scope = a_scope(KEY, 1000)
    await trust(redis, scope)
    late = a_reservation(ScopeSet(ORG, (scope,)), 400)
    assert await settle(redis, late, dollars(30))
    assert (await admission.reserve(redis, late)).refused is None
    assert await spent_and_held(redis, KEY) == [(30, 400)]
    assert not await settle(redis, late, dollars(30))
    assert await spent_and_held(redis, KEY) == [(30, 0)]


# periods


async def made_earlier(redis: Redis, id: str, seconds: float) -> None:
    """Move the reservation's time back."""
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


# what was captured


async def test_content_is_kept_once_and_not_brought_back_by_a_repetition(redis: Redis) -> None:
    record = a_record(content="full")
    key = redis_keys.content_key(ORG, record.id)
    assert await commit.settle(redis, record, ScopeSet(ORG), b"first")
    assert not await commit.settle(redis, record, ScopeSet(ORG), b"second")
    assert await redis.call("GET", key) == b"first"
    assert commit.CONTENT_SECONDS - 5 < await redis.call("TTL", key) <= commit.CONTENT_SECONDS
    await redis.call("DEL", key)  # the worker has stored it
    assert not await commit.settle(redis, record, ScopeSet(ORG), b"third")
    assert await redis.call("EXISTS", key) == 0


async def test_a_record_that_was_lost_gets_its_content_when_its_gateway_turns_up(redis: Redis) -> None:
    record = a_record(status="lost")
    assert await commit.settle(redis, record, ScopeSet(ORG))
    facts = a_record(id=record.id, content="full")
    assert await commit.settle_note(redis, commit.Note(facts, {}, b"content"))
    assert await redis.call("GET", redis_keys.content_key(ORG, record.id)) == b"content"


async def test_content_beside_scopes_changes_no_count(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    reservation, _ = await key.reserve(700)
    record = a_record(id=reservation.id, key=key.name, input_tokens=50, output_tokens=0, content="full")
    assert await commit.settle(redis, record, reservation.scope_set, b"content")
    assert 949 < await key.level() < 960
    assert await key.running() == 0
    assert await redis.call("GET", redis_keys.content_key(ORG, reservation.id)) == b"content"
