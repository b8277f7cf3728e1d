"""Budgets and shares as a caller of the pipeline meets them."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.accounting.spending import ORG, a_scope, money, trust
from tests.inference.bench import Bench
from tests.inference.making import a_principal, answer
from tests.net.upstream import Upstream, answering, response
from tests.servers import RedisServer

from quarterdeck.accounting import admission
from quarterdeck.accounting.principal import Principal
from quarterdeck.accounting.scopes import stream_key
from quarterdeck.errors import EngineUnavailableError, InsufficientQuotaError, RateLimitError, ServiceUnavailableError
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Limits

KEY = "key:key_1"


def who(amount: int = 10**6, *, limits: Limits | None = None, **changes: Any) -> Principal:
    return a_principal(scopes=(a_scope(KEY, amount, limits=limits or Limits(), **changes),))


@pytest.fixture
async def bench(redis: Redis, tmp_path: Path, client: HttpClient) -> Bench:
    return Bench(redis, tmp_path, client)


@pytest.fixture
async def engine(bench: Bench) -> AsyncIterator[Upstream]:
    async with Upstream(answering(*[response(answer())] * 20)) as upstream:
        bench.add(upstream)
        yield upstream


@pytest.fixture
async def away(own_redis_server: RedisServer, tmp_path: Path, client: HttpClient) -> AsyncIterator[Bench]:
    """A pipeline whose Redis is gone."""
    own_redis_server.stop()
    redis = Redis(own_redis_server.url())
    bench = Bench(redis, tmp_path, client)
    async with Upstream(answering(*[response(answer())] * 20)) as upstream:
        bench.add(upstream)
        yield bench
    await bench.drain()
    await redis.close()


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
    assert "this key" in error.message
    assert engine.requests == []
    assert await bench.records() == []


@pytest.mark.usefixtures("engine")
async def test_a_budget_that_warns_is_a_header(bench: Bench) -> None:
    principal = who(10, warns=True)
    await trust(bench.redis, *principal.scopes)
    reply = await bench.ask(principal=principal)
    assert (b"x-quarterdeck-budget", b"warned") in reply.headers
    await bench.record()


@pytest.mark.usefixtures("engine")
async def test_a_cold_budget_is_503_for_a_second_and_other_keys_go_on(bench: Bench) -> None:
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


# Redis away


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
        await bench.ask(principal=principal)  # Redis knows the script from now on
    await bench.drain()
    own_redis_server.pause()
    with pytest.raises(ServiceUnavailableError):
        await bench.ask(principal=principal)
    own_redis_server.resume()
    await bench.drain()
    assert await redis.call("HLEN", admission.reservations_key(ORG)) == 0
    assert (await money(redis, KEY)).held == 0
    assert len(await bench.records()) == 1
    await redis.close()


async def test_what_was_held_for_a_request_that_nobody_served_is_free_again(bench: Bench) -> None:
    principal = who()
    await trust(bench.redis, *principal.scopes)
    with pytest.raises(EngineUnavailableError):
        await bench.ask(principal=principal)
    await bench.drain()
    state = await money(bench.redis, KEY)
    assert (state.spent, state.held) == (0, 0)
    assert await bench.redis.call("HLEN", admission.reservations_key(ORG)) == 0
