"""Requests of a dead gateway are settled as lost, once; those of a living one are not."""

import asyncio

import pytest
from tests.accounting.keys import ORG, TOKENS, Key, expire, in_flight, read_bucket, stream
from tests.accounting.spending import (
    a_bill,
    a_scope,
    dollars,
    reserve,
    settle,
    spent_and_held,
    trust,
)

from quarterdeck.accounting import leases, redis_keys
from quarterdeck.accounting.commit import Note
from quarterdeck.net.redis import Redis
from quarterdeck.record import decode
from quarterdeck.settings.limits import Limits

KEY, TEAM, ORGS = "key:key_1", "team:default", "org"
DAY = 86_400


# expiry


async def test_a_request_whose_gateway_died_is_lost_once(redis: Redis) -> None:
    key = Key(redis, Limits(tokens_per_minute=1000, concurrent_requests=1))
    reservation, _ = await key.reserve(100)
    assert await leases.settle_expired(redis, ORG, grace_seconds=0) == 0
    await expire(redis, reservation)
    found = await asyncio.gather(*[leases.settle_expired(redis, ORG, grace_seconds=0) for _ in range(5)])
    assert sum(found) == 1
    assert await stream(redis) == [reservation.id]
    assert (await in_flight(redis), await key.running()) == ((0, 0), 0)


async def test_what_was_last_seen_of_it_is_what_is_settled(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    reservation, _ = await key.reserve(700)
    seen = key.note(id=reservation.id, input_tokens=30, output_tokens=20)
    await leases.renew(redis, ORG, [(reservation.id, seen)])
    await expire(redis, reservation)
    assert await leases.settle_expired(redis, ORG, grace_seconds=0) == 1
    entries = await redis.call("XRANGE", redis_keys.stream_key(ORG), "-", "+")
    assert decode(entries[0][1][1]) == seen.record
    assert 949 < await key.level() < 960


async def test_a_renewed_reservation_does_not_expire(redis: Redis) -> None:
    key = Key(redis)
    reservation, _ = await key.reserve()
    await expire(redis, reservation)
    await leases.renew(redis, ORG, [(reservation.id, key.note(id=reservation.id))])
    assert await leases.settle_expired(redis, ORG) == 0
    assert float(await redis.call("ZSCORE", redis_keys.deadlines_key(ORG), reservation.id)) > 1e12


async def test_a_gateway_has_a_moment_to_renew_what_expired_while_redis_was_away(redis: Redis) -> None:
    key = Key(redis)
    alive, dead = [(await key.reserve())[0] for _ in range(2)]
    await expire(redis, alive, dead)
    assert await leases.settle_expired(redis, ORG) == 0
    await leases.renew(redis, ORG, [(alive.id, key.note(id=alive.id))])
    assert await leases.settle_expired(redis, ORG) == 0
    await expire(redis, dead)
    assert await leases.settle_expired(redis, ORG) == 1
    assert await stream(redis) == [dead.id]


async def test_what_is_settled_is_not_renewed_into_life(redis: Redis) -> None:
    key = Key(redis)
    reservation, _ = await key.reserve()
    await key.settle(reservation)
    await leases.renew(redis, ORG, [(reservation.id, key.note(id=reservation.id))])
    assert await in_flight(redis) == (0, 0)


async def test_the_truth_comes_after_the_guess(redis: Redis) -> None:
    """Its gateway was only stopped for a while: its record replaces the lost one, never the reverse."""
    key = Key(redis)
    reservation, _ = await key.reserve()
    await expire(redis, reservation)
    assert await leases.settle_expired(redis, ORG, grace_seconds=0) == 1
    assert await key.settle(reservation, status="ok")
    assert not await key.settle(reservation, status="ok")
    assert not await key.settle(reservation, status="lost")
    assert await stream(redis) == [reservation.id] * 2


async def test_a_guess_is_remembered_for_a_day_and_the_truth_for_minutes(redis: Redis) -> None:
    """A spool may turn up after a long outage; other settled ids are thousands a second."""
    key = Key(redis)
    reservation, _ = await key.reserve()
    mark = f"settled:{{{ORG}}}:{reservation.id}"
    await expire(redis, reservation)
    await leases.settle_expired(redis, ORG, grace_seconds=0)
    assert 86_000 < await redis.call("TTL", mark) <= 86_400
    await key.settle(reservation, status="ok")
    assert 500 < await redis.call("TTL", mark) <= 600


async def test_many_expire_in_turns(redis: Redis) -> None:
    key = Key(redis)
    reservations = [(await key.reserve())[0] for _ in range(25)]
    await expire(redis, *reservations)
    assert [await leases.settle_expired(redis, ORG, most=10, grace_seconds=0) for _ in range(4)] == [10, 10, 5, 0]


async def test_a_reservation_that_nobody_can_read_is_in_nobodys_way(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    key = Key(redis)
    reservation, _ = await key.reserve()
    await redis.call("HSET", redis_keys.reservations_key(ORG), "req_odd", bytes(24) + b"{odd")
    await redis.call("ZADD", redis_keys.deadlines_key(ORG), 0, "req_odd", 0, "req_without_a_note")
    await expire(redis, reservation)
    assert await leases.settle_expired(redis, ORG, grace_seconds=0) == 1
    assert "unreadable reservation of req_odd dropped" in caplog.text
    assert await in_flight(redis) == (0, 0)


async def test_the_truth_replaces_the_guess_in_money_and_tokens(redis: Redis) -> None:
    scope = a_scope(KEY, 1000, limits=Limits(tokens_per_minute=10**6))
    await trust(redis, scope)
    reservation, _ = await reserve(redis, [scope], 400, tokens=500)
    guess = a_bill(reservation, dollars(100), status="lost", input_tokens=100)
    await leases.renew(redis, ORG, [(reservation.id, Note(guess, reservation.scope_set.noted))])
    await expire(redis, reservation)
    assert await leases.settle_expired(redis, ORG, grace_seconds=0) == 1
    assert await spent_and_held(redis, KEY) == [(100, 0)]
    before = await read_bucket(redis, ORG, KEY)
    assert await settle(redis, reservation, dollars(250), input_tokens=300)
    after = await read_bucket(redis, ORG, KEY)
    assert await spent_and_held(redis, KEY) == [(250, 0)]
    assert before is not None
    assert after is not None
    assert (after.tokens - before.tokens, after.running) == (-200, 0)
