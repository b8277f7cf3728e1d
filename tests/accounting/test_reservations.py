"""Requests that are reserved together get the answers that they would get one by one."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest
from tests.accounting.spending import ORG, a_reservation, a_scope, spent_and_held, trust
from tests.servers import RedisServer

from quarterdeck.accounting import admission
from quarterdeck.accounting.admission import Admission, Reservation, read_admission
from quarterdeck.accounting.redis_keys import reservations_key
from quarterdeck.accounting.reservations import Reservations
from quarterdeck.accounting.scopes import ScopeSet
from quarterdeck.net.redis import Redis, RedisUnavailableError
from quarterdeck.settings.limits import Limits

KEY = "key:key_1"
NARROW = a_scope(KEY, 1000, limits=Limits(requests_per_minute=100, concurrent_requests=6, tokens_per_minute=1000))
TEAM = a_scope("team:default", 700)
COUNTERS = ScopeSet(ORG, (NARROW, TEAM))


class Spawned:
    """Runs spawned tasks and waits for them."""

    def __init__(self) -> None:
        self.tasks: list[asyncio.Task[None]] = []

    def __call__(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.create_task(work))


@pytest.fixture
async def spawned() -> AsyncIterator[Spawned]:
    spawned = Spawned()
    yield spawned
    await asyncio.gather(*spawned.tasks)


async def together(reserving: Reservations, wanted: list[Reservation]) -> list[Admission]:
    answers = await asyncio.gather(*[reserving.reserve(each) for each in wanted])
    return [read_admission(answer, each.scope_set) for answer, each in zip(answers, wanted, strict=True)]


def some() -> list[Reservation]:
    """Reservations of which each scope refuses some."""
    return [
        a_reservation(COUNTERS, money, tokens) for money, tokens in ((90, 100), (400, 300), (300, 10), (90, 700)) * 3
    ]


async def test_requests_are_admitted_together_as_they_are_one_by_one(redis: Redis, spawned: Spawned) -> None:
    await redis.call("PING")
    await trust(redis, NARROW, TEAM)
    one_by_one = [await admission.reserve(redis, each) for each in some()]
    states = [await spent_and_held(redis, KEY), await spent_and_held(redis, TEAM.id)]
    await redis.call("FLUSHALL")
    await trust(redis, NARROW, TEAM)
    answers = await together(Reservations(redis, spawned), some())
    assert [(each.refused, each.scope, each.requests_left) for each in answers] == [
        (each.refused, each.scope, each.requests_left) for each in one_by_one
    ]
    assert {each.refused for each in answers} == {None, "money", "tokens"}
    assert [await spent_and_held(redis, KEY), await spent_and_held(redis, TEAM.id)] == states
    assert await redis.call("HLEN", reservations_key(ORG)) == sum(each.refused is None for each in answers)


async def test_each_principal_has_a_script_of_its_own(redis: Redis, spawned: Spawned) -> None:
    await redis.call("PING")
    other = ScopeSet(ORG, (a_scope("key:key_2", 50),))
    await trust(redis, NARROW, TEAM, *other.scopes)
    answers = await together(Reservations(redis, spawned), [a_reservation(COUNTERS, 90), a_reservation(other, 90)])
    assert [(each.refused, each.scope) for each in answers] == [(None, ""), ("money", "key:key_2")]


async def test_each_finds_its_own_kept_answer(redis: Redis, spawned: Spawned) -> None:
    await redis.call("MSET", "cache:{default}:a", "A", "cache:{default}:c", "C")
    await trust(redis, NARROW, TEAM)
    keys = ["cache:{default}:a", None, "cache:{default}:b", "cache:{default}:c"]
    wanted = [a_reservation(COUNTERS, 90, cache_key=key) for key in keys]
    answers = await together(Reservations(redis, spawned), wanted)
    assert [each.cached for each in answers] == [b"A", None, None, b"C"]
    assert await spent_and_held(redis, KEY) == [(0, 180)]


async def test_a_script_that_redis_does_not_know_is_loaded(redis: Redis, spawned: Spawned) -> None:
    await redis.call("SCRIPT", "FLUSH")
    await trust(redis, NARROW, TEAM)
    answers = await together(Reservations(redis, spawned), [a_reservation(COUNTERS, 1) for _ in range(3)])
    assert [each.refused for each in answers] == [None] * 3


async def test_who_gives_up_is_in_nobodys_way(redis: Redis, spawned: Spawned) -> None:
    await redis.call("PING")
    await trust(redis, NARROW, TEAM)
    reserving = Reservations(redis, spawned)
    gone, here = reserving.reserve(a_reservation(COUNTERS, 1)), reserving.reserve(a_reservation(COUNTERS, 1))
    gone.cancel()
    assert read_admission(await here, COUNTERS).refused is None


async def test_the_first_ones_open_the_connection_and_none_is_reserved_for_who_gave_up(
    own_redis_server: RedisServer, spawned: Spawned
) -> None:
    redis = Redis(own_redis_server.url())
    reserving = Reservations(redis, spawned)
    free = ScopeSet(ORG)
    gone, here = reserving.reserve(a_reservation(free, 0)), reserving.reserve(a_reservation(free, 0))
    gone.cancel()
    assert read_admission(await here, free).refused is None
    assert await redis.call("HLEN", reservations_key(ORG)) == 1
    await redis.close()


async def test_all_hear_that_redis_is_away(spawned: Spawned) -> None:
    redis = Redis("redis://127.0.0.1:1")
    reserving = Reservations(redis, spawned)
    waiting = [reserving.reserve(a_reservation(COUNTERS, 1)) for _ in range(3)]
    answers = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(answer) for answer in answers] == [RedisUnavailableError] * 3
