"""Limits that hold, and a sum that comes out even, whatever is sent twice, late or never."""

import asyncio
import random
import struct
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from tests.records import a_record

from quarterdeck.accounting import admission, commit, layouts, leases, redis_keys
from quarterdeck.accounting.admission import Admission, Reservation
from quarterdeck.accounting.commit import Note
from quarterdeck.accounting.layouts import Bucket
from quarterdeck.accounting.redis_keys import bucket_key
from quarterdeck.accounting.scopes import Scope, ScopeSet, is_limited
from quarterdeck.net.redis import Redis, RedisError
from quarterdeck.record import RequestRecord, decode
from quarterdeck.settings.limits import Limits

ORG = "default"
TOKENS = Limits(tokens_per_minute=1000)


class Key:
    """A key with limits, and what is done with it."""

    def __init__(self, redis: Redis, limits: Limits | None = None, name: str = "key_1") -> None:
        self.redis, self.limits, self.name = redis, limits or Limits(), name

    @property
    def scope_set(self) -> ScopeSet:
        return ScopeSet(ORG, (Scope(self.name, self.limits),) if is_limited(self.limits) else ())

    def record(self, **changes: Any) -> RequestRecord:
        return a_record(**({"key": self.name, "status": "lost", "input_tokens": 0, "output_tokens": 0} | changes))

    def note(self, **changes: Any) -> Note:
        return Note(self.record(**changes), self.scope_set.noted)

    def wants(self, tokens: int = 100, **changes: Any) -> Reservation:
        note = self.note(**changes)
        return Reservation(note.record.id, self.scope_set, msgspec.json.encode(note), tokens)

    async def reserve(self, tokens: int = 100) -> tuple[Reservation, Admission]:
        wanted = self.wants(tokens)
        return wanted, await admission.reserve(self.redis, wanted)

    async def settle(self, reservation: Reservation, used: int = 0, **changes: Any) -> bool:
        fields: dict[str, Any] = {"id": reservation.id, "key": self.name, "input_tokens": used, "output_tokens": 0}
        return await commit.settle(self.redis, a_record(**(fields | changes)), reservation.scope_set)

    async def bucket(self) -> Bucket | None:
        return await layouts.read_bucket(self.redis, ORG, self.name)

    async def level(self) -> float:
        bucket = await self.bucket()
        assert bucket is not None
        return bucket.tokens

    async def running(self) -> int:
        bucket = await self.bucket()
        assert bucket is not None
        return bucket.running

    async def rewind(self, milliseconds: int) -> None:
        """As if the bucket had been filled so much earlier."""
        bucket = await self.bucket()
        assert bucket is not None
        words = (bucket.at - milliseconds, bucket.requests, bucket.tokens, bucket.running)
        await self.redis.call("SET", bucket_key(ORG, self.name), struct.pack("<4d", *words))


async def stream(redis: Redis) -> list[str]:
    """The ids in the ledger's stream, in order."""
    entries = await redis.call("XRANGE", redis_keys.stream_key(ORG), "-", "+")
    return [decode(fields[1]).id for _, fields in entries]


async def under_way(redis: Redis) -> tuple[int, int]:
    reservations = await redis.call("HLEN", redis_keys.reservations_key(ORG))
    return int(reservations), int(await redis.call("ZCARD", redis_keys.deadlines_key(ORG)))


# limits


async def test_a_key_without_limits_leaves_no_bucket(redis: Redis) -> None:
    key = Key(redis)
    reservation, admitted = await key.reserve()
    assert admitted == Admission(None, 0)
    assert await key.bucket() is None
    assert await under_way(redis) == (1, 1)
    assert await key.settle(reservation)
    assert await under_way(redis) == (0, 0)


async def test_requests_are_counted_down_and_refused_with_when_to_come_back(redis: Redis) -> None:
    key = Key(redis, Limits(requests_per_minute=2))
    assert [(await key.reserve())[1].requests_left for _ in range(2)] == [1, 0]
    refused = (await key.reserve())[1]
    assert (refused.refused, refused.requests_left, refused.tokens_left) == ("requests", 0, -1)
    assert 29_000 < refused.retry_after_ms <= 30_000
    assert await under_way(redis) == (2, 2)


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
    """From several gateways, each with a connection of its own. The bucket fills while they ask: one more may pass."""
    gateways = [Redis(redis_url) for _ in range(4)]
    keys = [Key(gateway, limits) for gateway in gateways]
    answers = await asyncio.gather(*[keys[n % 4].reserve(100) for n in range(200)])
    admitted = [reservation for reservation, answer in answers if answer.refused is None]
    assert most <= len(admitted) <= most + 1
    assert await under_way(gateways[0]) == (len(admitted), len(admitted))
    await asyncio.gather(*[keys[0].settle(reservation, used=100) for reservation in admitted])
    assert await keys[0].running() == 0
    for gateway in gateways:
        await gateway.close()


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
    assert (await stream(redis), await under_way(redis)) == ([], (0, 0))


async def test_releasing_what_was_never_reserved_does_nothing(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    await commit.release(redis, key.wants())
    assert (await stream(redis), await key.bucket()) == ([], None)


async def test_a_reservation_that_comes_after_its_settlement_does_not_stay(redis: Redis) -> None:
    """Redis was paused: the request went on without it, was settled, and then Redis read what had been sent first."""
    key = Key(redis, Limits(tokens_per_minute=1000, concurrent_requests=1))
    wanted = key.wants(100)
    assert await key.settle(wanted, used=50)
    assert (await admission.reserve(redis, wanted)).refused is None
    assert not await key.settle(wanted, used=50)
    assert await under_way(redis) == (0, 0)
    assert await key.running() == 0
    assert await stream(redis) == [wanted.id]


async def test_a_record_that_redis_refuses_may_be_sent_again(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    reservation, _ = await key.reserve(100)
    await redis.call("SET", redis_keys.stream_key(ORG), "in the way")
    with pytest.raises(RedisError):
        await key.settle(reservation)
    assert await under_way(redis) == (1, 1)
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


# expiry


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """No grace: what is found expired is settled."""
    monkeypatch.setattr(admission, "GRACE_SECONDS", 0)


async def expire(redis: Redis, *reservations: Reservation) -> None:
    """As if their gateway had not been heard of for longer than a lease."""
    for reservation in reservations:
        await redis.call("ZADD", redis_keys.deadlines_key(ORG), "XX", 1, reservation.id)


@pytest.mark.usefixtures("at_once")
async def test_a_request_whose_gateway_died_is_lost_once(redis: Redis) -> None:
    key = Key(redis, Limits(tokens_per_minute=1000, concurrent_requests=1))
    reservation, _ = await key.reserve(100)
    assert await leases.settle_expired(redis, ORG) == 0
    await expire(redis, reservation)
    found = await asyncio.gather(*[leases.settle_expired(redis, ORG) for _ in range(5)])
    assert sum(found) == 1
    assert await stream(redis) == [reservation.id]
    assert (await under_way(redis), await key.running()) == ((0, 0), 0)


@pytest.mark.usefixtures("at_once")
async def test_what_was_last_seen_of_it_is_what_is_settled(redis: Redis) -> None:
    key = Key(redis, TOKENS)
    reservation, _ = await key.reserve(700)
    seen = key.note(id=reservation.id, input_tokens=30, output_tokens=20)
    await leases.renew(redis, ORG, [(reservation.id, seen)])
    await expire(redis, reservation)
    assert await leases.settle_expired(redis, ORG) == 1
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


async def test_a_gateway_has_a_moment_to_renew_what_expired_while_redis_was_away(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert await under_way(redis) == (0, 0)


@pytest.mark.usefixtures("at_once")
async def test_the_truth_comes_after_the_guess(redis: Redis) -> None:
    """Its gateway was only stopped for a while: what it says replaces what was taken for lost. Not the reverse."""
    key = Key(redis)
    reservation, _ = await key.reserve()
    await expire(redis, reservation)
    assert await leases.settle_expired(redis, ORG) == 1
    assert await key.settle(reservation, status="ok")
    assert not await key.settle(reservation, status="ok")
    assert not await key.settle(reservation, status="lost")
    assert await stream(redis) == [reservation.id] * 2


@pytest.mark.usefixtures("at_once")
async def test_a_guess_is_remembered_for_a_day_and_the_truth_for_minutes(redis: Redis) -> None:
    """A spool may turn up after a long outage; of the rest there are thousands a second."""
    key = Key(redis)
    reservation, _ = await key.reserve()
    mark = f"settled:{{{ORG}}}:{reservation.id}"
    await expire(redis, reservation)
    await leases.settle_expired(redis, ORG)
    assert 86_000 < await redis.call("TTL", mark) <= 86_400
    await key.settle(reservation, status="ok")
    assert 500 < await redis.call("TTL", mark) <= 600


@pytest.mark.usefixtures("at_once")
async def test_many_expire_in_turns(redis: Redis) -> None:
    key = Key(redis)
    reservations = [(await key.reserve())[0] for _ in range(25)]
    await expire(redis, *reservations)
    assert [await leases.settle_expired(redis, ORG, most=10) for _ in range(4)] == [10, 10, 5, 0]


@pytest.mark.usefixtures("at_once")
async def test_a_reservation_that_nobody_can_read_is_in_nobodys_way(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    key = Key(redis)
    reservation, _ = await key.reserve()
    await redis.call("HSET", redis_keys.reservations_key(ORG), "req_odd", bytes(24) + b"{odd")
    await redis.call("ZADD", redis_keys.deadlines_key(ORG), 0, "req_odd", 0, "req_without_a_note")
    await expire(redis, reservation)
    assert await leases.settle_expired(redis, ORG) == 1
    assert "req_odd can't be read" in caplog.text
    assert await under_way(redis) == (0, 0)


# the sum


@pytest.mark.usefixtures("at_once")
@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_tokens_and_places_are_neither_made_nor_lost(redis: Redis, seed: int) -> None:
    """Any order of reserving, settling (twice, late), releasing, renewing and expiring, against a model of it."""
    dice, began = random.Random(seed), time.monotonic()
    limits = Limits(requests_per_minute=10**6, tokens_per_minute=10**6, concurrent_requests=12)
    key = Key(redis, limits)
    open_now: dict[str, Reservation] = {}
    over: list[Reservation] = []
    spent = 0
    committed: list[str] = []

    async def reserve() -> None:
        reservation, admitted = await key.reserve(dice.randrange(1, 2000))
        assert (admitted.refused is None) == (len(open_now) < 12)
        if admitted.refused is None:
            open_now[reservation.id] = reservation

    async def settle() -> None:
        nonlocal spent
        if open_now:
            reservation = open_now.pop(dice.choice(list(open_now)))
            used = dice.randrange(0, 3000)
            assert await key.settle(reservation, used=used)
            spent += used
            committed.append(reservation.id)
            over.append(reservation)

    async def settle_again() -> None:
        if over:
            assert not await key.settle(dice.choice(over), used=dice.randrange(0, 3000))

    async def release() -> None:
        if open_now:
            reservation = open_now.pop(dice.choice(list(open_now)))
            await commit.release(redis, reservation)
            over.append(reservation)

    async def lose() -> None:
        if open_now:
            reservation = open_now.pop(dice.choice(list(open_now)))
            await expire(redis, reservation)
            assert await leases.settle_expired(redis, ORG) == 1
            committed.append(reservation.id)

    async def renew() -> None:
        notes = [(r.id, key.note(id=r.id)) for r in [*open_now.values(), *over[-3:]]]
        await leases.renew(redis, ORG, notes)

    steps: list[Callable[[], Awaitable[None]]] = [reserve, reserve, reserve, settle, settle, settle_again]
    steps += [release, lose, renew]
    for _ in range(150):
        await dice.choice(steps)()
        assert await under_way(redis) == (len(open_now), len(open_now))
    assert await key.running() == len(open_now)
    level = await key.level()
    held = sum(reservation.tokens for reservation in open_now.values())
    # The bucket fills at its own pace meanwhile; nothing else may add to it.
    filled = (time.monotonic() - began + 0.01) * 10**6 / 60
    assert 10**6 - spent - held <= level <= 10**6 - spent - held + filled
    for reservation in [*open_now.values()]:
        await key.settle(reservation)
    assert await key.running() == 0
    assert await stream(redis) == committed + list(open_now)
