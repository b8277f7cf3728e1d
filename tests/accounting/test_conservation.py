"""Invariants of admission while gateways race, die, settle twice, late, or after they were considered dead.

* Money is conserved: in every scope, at every moment, spent is the sum of what was settled, each request rounded up,
  and held is the sum of the open reservations.
* A budget that denies admits no request beyond its amount: spent + held is within it after every admission; it is
  exceeded by no more than what requests cost beyond their estimates.
* A limit is exceeded by no more than a token bucket may: at most its size at once, and what is refilled meanwhile.
* Settling is idempotent: sent again it changes nothing.
"""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from tests.accounting.keys import Key, expire, in_flight, read_bucket, stream
from tests.accounting.spending import ORG, a_bill, a_reservation, a_scope, money, trust
from tests.servers import CONSERVATION, RedisServer

from quarterdeck.accounting import admission, commit, leases
from quarterdeck.accounting.admission import Admission, Reservation
from quarterdeck.accounting.commit import Note
from quarterdeck.accounting.redis_keys import deadlines_key, reservations_key, stream_key
from quarterdeck.accounting.scopes import Scope, ScopeSet
from quarterdeck.money import microdollars
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord, decode, encode
from quarterdeck.settings.limits import Limits

GATEWAYS = 3
LIMITS = Limits(requests_per_minute=400, tokens_per_minute=40_000, concurrent_requests=12)
TEAM = a_scope("team:default", 6000, limits=LIMITS)
WARNED = a_scope("org", 3000, warns=True)
KEYS = {
    "key_a": ScopeSet(ORG, (a_scope("key:key_a", 2500), TEAM, WARNED)),
    "key_b": ScopeSet(ORG, (Scope("key:key_b", Limits(concurrent_requests=5)), TEAM, WARNED)),
    "key_c": ScopeSet(ORG, (a_scope("key:key_c", 10**9), TEAM, WARNED)),
}
SCOPES = {scope.id: scope for scope_set in KEYS.values() for scope in scope_set.scopes}
BUDGETS = [id for id, scope in SCOPES.items() if scope.budget is not None]


@dataclass
class Open:
    """A request in flight."""

    key: str
    reservation: Reservation


@dataclass
class Platform:
    """Gateways with a connection each, one Redis, and a model of its state."""

    gateways: list[Redis]
    under_way: list[Open] = field(default_factory=list)
    settled: dict[str, tuple[str, RequestRecord]] = field(default_factory=dict)
    """Keys and final records, by request."""
    reservations: dict[str, Open] = field(default_factory=dict)
    answers: list[tuple[Reservation, Admission]] = field(default_factory=list)
    beyond: int = 0
    """What requests cost beyond their reservations, in 10⁻⁶ $."""

    async def reserve(self, gateway: int, key: str, tokens: int, cost: int) -> None:
        wanted = a_reservation(KEYS[key], cost, tokens)
        admitted = await admission.reserve(self.gateways[gateway % GATEWAYS], wanted)
        self.answers.append((wanted, admitted))
        if admitted.refused is None:
            request = Open(key, wanted)
            self.under_way.append(request)
            self.reservations[wanted.id] = request

    async def settle(self, gateway: int, which: int, cost: Decimal, tokens: int) -> None:
        if self.under_way:
            request = self.under_way.pop(which % len(self.under_way))
            bill = a_bill(request.reservation, cost, input_tokens=tokens)
            assert await commit.settle(self.gateways[gateway % GATEWAYS], bill, request.reservation.scope_set)
            self.settled[bill.id] = (request.key, bill)
            self.beyond += max(0, microdollars(cost) - request.reservation.money)

    async def settle_again(self, gateway: int, which: int, cost: Decimal) -> None:
        """Even with other numbers: only a `lost` record is replaced, and only by one that is not."""
        if self.settled:
            guesses = [id for id, (_, bill) in self.settled.items() if bill.status == "lost"]
            ids = guesses if guesses and which % 2 else list(self.settled)
            id = ids[which % len(ids)]
            key, bill = self.settled[id]
            again = a_bill(self.reservations[id].reservation, cost)
            is_new = await commit.settle(self.gateways[gateway % GATEWAYS], again, KEYS[key])
            assert is_new == (bill.status == "lost")
            if is_new:
                self.settled[id] = (key, again)
                self.beyond += microdollars(cost)

    async def release(self, gateway: int, which: int) -> None:
        if self.under_way:
            request = self.under_way.pop(which % len(self.under_way))
            await commit.release(self.gateways[gateway % GATEWAYS], request.reservation)

    async def lose(self, gateway: int, which: int, cost: Decimal) -> None:
        """Its gateway renewed it once, and died."""
        if self.under_way:
            request, redis = self.under_way.pop(which % len(self.under_way)), self.gateways[gateway % GATEWAYS]
            scope_set, id = request.reservation.scope_set, request.reservation.id
            guess = a_bill(request.reservation, cost, status="lost")
            await leases.renew(redis, ORG, [(id, Note(guess, scope_set.noted))])
            await redis.call("ZADD", deadlines_key(ORG), "XX", 1, id)
            found = await asyncio.gather(*[leases.settle_expired(r, ORG, grace_seconds=0) for r in self.gateways])
            assert sum(found) == 1
            self.settled[id] = (request.key, guess)
            self.beyond += max(0, microdollars(cost) - request.reservation.money)

    def total(self, scope: Scope) -> tuple[int, int]:
        """What should be spent, and held."""
        spent = sum(microdollars(bill.cost) for key, bill in self.settled.values() if scope in KEYS[key].scopes)
        return spent, sum(r.reservation.money for r in self.under_way if scope in r.reservation.scope_set.scopes)

    async def try_to_reserve(self, gateway: int, key: str, tokens: int, cost: int) -> None:
        """One at a time, so that the model knows whether it is admitted."""
        enough = {
            scope.id: sum(self.total(scope)) + cost <= microdollars(scope.budget.amount)
            for scope in KEYS[key].scopes
            if scope.budget is not None
        }
        await self.reserve(gateway, key, tokens, cost)
        _, admitted = self.answers[-1]
        if admitted.refused == "money":
            assert not enough[admitted.scope]
        elif admitted.refused is None:
            assert all(is_enough for id, is_enough in enough.items() if id != WARNED.id)
            assert bool(admitted.warned) != enough[WARNED.id]

    async def check(self) -> None:
        redis = self.gateways[0]
        for id in BUDGETS:
            state, scope = await money(redis, id), SCOPES[id]
            spent, held = self.total(scope)
            assert (state.spent, state.held) == (spent, held), id
            assert scope.budget is not None
            if scope.budget.on_exhausted == "deny":
                assert spent + held <= microdollars(scope.budget.amount) + self.beyond, id
        assert await redis.call("HLEN", reservations_key(ORG)) == len(self.under_way)
        for id, scope in SCOPES.items():
            bucket = await read_bucket(redis, ORG, id)
            running = sum(scope in r.reservation.scope_set.scopes for r in self.under_way)
            assert (bucket.running if bucket else 0) == (running if scope.limits.concurrent_requests else 0)
            assert running <= (scope.limits.concurrent_requests or running)


@asynccontextmanager
async def a_platform(url: str) -> AsyncIterator[Platform]:
    gateways = [Redis(url) for _ in range(GATEWAYS)]
    await gateways[0].call("FLUSHDB")
    await trust(gateways[0], *[SCOPES[id] for id in BUDGETS])
    yield Platform(gateways)
    for gateway in gateways:
        await gateway.close()


_gateway, _which = st.integers(0, GATEWAYS - 1), st.integers(0, 99)
_cost = st.integers(0, 900 * 10**6).map(lambda picodollars: Decimal(picodollars).scaleb(-12))
_tokens = st.integers(0, 2000)
_reserve = st.tuples(st.just("try_to_reserve"), _gateway, st.sampled_from(sorted(KEYS)), _tokens, st.integers(1, 1500))
_step = st.one_of(
    _reserve,
    _reserve,
    st.tuples(st.just("settle"), _gateway, _which, _cost, _tokens),
    st.tuples(st.just("settle_again"), _gateway, _which, _cost),
    st.tuples(st.just("release"), _gateway, _which),
    st.tuples(st.just("lose"), _gateway, _which, _cost),
)


@settings(max_examples=60, phases=[Phase.generate], suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(_step, min_size=10, max_size=60))
def test_money_is_conserved_and_no_budget_admits_beyond_its_amount(
    redis_server: RedisServer, steps: list[tuple[Any, ...]]
) -> None:
    async def run() -> None:
        async with a_platform(redis_server.url(CONSERVATION)) as platform:
            for name, *arguments in steps:
                await getattr(platform, name)(*arguments)
                await platform.check()

    asyncio.run(run())


async def storm(platform: Platform, dice: random.Random, requests: int) -> None:
    """Requests of one gateway that end in various ways, concurrent with those of others."""
    for _ in range(requests):
        gateway, key = dice.randrange(GATEWAYS), dice.choice(sorted(KEYS))
        await platform.reserve(gateway, key, dice.randrange(2000), dice.randrange(1, 90))
        cost = Decimal(dice.randrange(0, 90 * 10**6)).scaleb(-12)
        end = dice.randrange(12)
        if end == 0:
            await platform.release(gateway, dice.randrange(99))
        elif end > 2:
            await platform.settle(gateway, dice.randrange(99), cost, dice.randrange(2000))


async def test_gateways_that_race_exceed_nothing_by_more_than_is_said(redis_url: str) -> None:
    """All scopes together: what was admitted is within the limits plus what was refilled."""
    async with a_platform(redis_url) as platform:
        began = time.monotonic()
        await asyncio.gather(*[storm(platform, random.Random(n), 60) for n in range(9)])
        await platform.check()
        minutes = (time.monotonic() - began) / 60
        shared = [r for r in platform.reservations.values() if TEAM in r.reservation.scope_set.scopes]
        assert len(shared) <= 400 + 400 * minutes + 1


@pytest.mark.parametrize("amount", [1, 1000, 12_345])
async def test_two_hundred_at_once_spend_no_more_than_there_is(redis_url: str, amount: int) -> None:
    scope = a_scope("org", amount)
    gateways = [Redis(redis_url) for _ in range(GATEWAYS)]
    await trust(gateways[0], scope)
    wanted = [a_reservation(ScopeSet(ORG, (scope,)), 100 + n % 7) for n in range(200)]
    answers = await asyncio.gather(*[admission.reserve(gateways[n % 3], w) for n, w in enumerate(wanted)])
    held = sum(w.money for w, a in zip(wanted, answers, strict=True) if a.refused is None)
    state = await money(gateways[0], "org")
    assert state.held == held
    assert amount - 106 < held <= amount or (amount < 100 and held == 0) or held == sum(w.money for w in wanted)
    for gateway in gateways:
        await gateway.close()


@pytest.mark.long
async def test_ten_thousand_requests_come_out_even_to_the_last_millionth(redis_url: str) -> None:
    """Σ spent = Σ cost of the stream's records, each rounded up; nothing is held, no request is in flight."""
    async with a_platform(redis_url) as platform:
        wide = {id: a_scope(id, 10**12) for id in BUDGETS}
        scope_set = ScopeSet(ORG, tuple(wide.values()))
        dice = random.Random(6)
        redis = platform.gateways[0]

        async def one(gateway: Redis) -> None:
            wanted = a_reservation(scope_set, dice.randrange(1, 900))
            end = dice.randrange(20)
            if end:  # 0: Redis was away when it arrived
                assert (await admission.reserve(gateway, wanted)).refused is None
            bill = a_bill(wanted, Decimal(dice.randrange(10**12)).scaleb(-15))
            if end == 1:
                await commit.release(gateway, wanted)
                return
            if end == 2:
                await leases.renew(gateway, ORG, [(wanted.id, Note(bill_of_lost(bill), scope_set.noted))])
                await gateway.call("ZADD", deadlines_key(ORG), "XX", 1, wanted.id)
                await leases.settle_expired(redis, ORG, grace_seconds=0)
                if dice.randrange(2):
                    return
            for _ in range(1 + (end == 3)):
                await commit.settle(gateway, bill, scope_set)

        for _ in range(100):
            await asyncio.gather(*[one(platform.gateways[n % GATEWAYS]) for n in range(100)])
        last: dict[str, RequestRecord] = {}
        for _, fields in await redis.call("XRANGE", stream_key(ORG), "-", "+"):
            record = decode(fields[1])
            if record.id not in last or last[record.id].status == "lost":
                last[record.id] = record
        total = sum(microdollars(record.cost) for record in last.values())
        for id in BUDGETS:
            state = await money(redis, id)
            assert (state.spent, state.held) == (total, 0)
        assert await redis.call("HLEN", reservations_key(ORG)) == 0


def bill_of_lost(bill: RequestRecord) -> RequestRecord:
    return a_bill(
        Reservation(bill.id, ScopeSet(ORG), b'{"record":' + encode(bill) + b"}"), bill.cost / 2, status="lost"
    )


@pytest.mark.parametrize("seed", range(6))
async def test_whatever_happens_tokens_and_places_are_neither_made_nor_lost(redis: Redis, seed: int) -> None:
    """Reserve, settle (twice, late), release, renew and expire in any order, compared with a model."""
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
            assert await leases.settle_expired(redis, ORG, grace_seconds=0) == 1
            committed.append(reservation.id)

    async def renew() -> None:
        notes = [(r.id, key.note(id=r.id)) for r in [*open_now.values(), *over[-3:]]]
        await leases.renew(redis, ORG, notes)

    steps: list[Callable[[], Awaitable[None]]] = [reserve, reserve, reserve, settle, settle, settle_again]
    steps += [release, lose, renew]
    for _ in range(150):
        await dice.choice(steps)()
        assert await in_flight(redis) == (len(open_now), len(open_now))
    assert await key.running() == len(open_now)
    level = await key.level()
    held = sum(reservation.tokens for reservation in open_now.values())
    # The bucket is refilled meanwhile; nothing else may add to it.
    filled = (time.monotonic() - began + 0.01) * 10**6 / 60
    assert 10**6 - spent - held <= level <= 10**6 - spent - held + filled
    for reservation in [*open_now.values()]:
        await key.settle(reservation)
    assert await key.running() == 0
    assert await stream(redis) == committed + list(open_now)
