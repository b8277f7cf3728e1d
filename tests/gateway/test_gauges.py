"""Metrics read the gateway's objects at scrape time."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.accounting.spending import a_scope, trust
from tests.inference.bench import Bench
from tests.inference.making import a_principal, an_endpoint, answer, change, served
from tests.net.upstream import Upstream, answering, response, until
from tests.telemetry.scrape import value

from quarterdeck.accounting.scopes import Scope
from quarterdeck.errors import EngineUnavailableError, RateLimitError, ServiceUnavailableError
from quarterdeck.gateway.gauges import watch
from quarterdeck.gateway.http.connections import Connections
from quarterdeck.inference.endpoints.circuit_breaker import FAILURES_TO_OPEN
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.live import Live
from quarterdeck.settings.routes import QueueConfig
from quarterdeck.telemetry.gateway_metrics import GatewayMetrics

KEY = "key:key_1"
IN_FLIGHT = ["one", "another"]


def watched(bench: Bench) -> GatewayMetrics:
    metrics, pipeline = GatewayMetrics(), bench.pipeline
    gate, router = pipeline.gate, pipeline.router
    watch(
        metrics,
        endpoints=bench.listed,
        gate=gate,
        router=router,
        queues=pipeline.queues,
        requests_in_flight=IN_FLIGHT,
        connections=Connections(1),
    )
    return metrics


@pytest.fixture
async def client() -> AsyncIterator[HttpClient]:
    subject = HttpClient()
    yield subject
    await subject.close()


@pytest.fixture
async def bench(redis: Redis, tmp_path: Path, client: HttpClient) -> AsyncIterator[Bench]:
    bench = Bench(redis, tmp_path, client)
    async with Upstream(answering(*[response(answer())] * 20)) as upstream:
        bench.add(upstream)
        yield bench
    await bench.drain()


async def test_a_refusal_is_counted_by_its_reason_and_whose_bound_it_was(bench: Bench) -> None:
    metrics, one = watched(bench), Limits(requests_per_minute=1)
    for scope in (Scope(KEY, one), Scope("team:red", one)):
        await bench.ask(principal=a_principal(scopes=(scope,)))
        with pytest.raises(RateLimitError):
            await bench.ask(principal=a_principal(scopes=(scope,)))
    org = a_scope("org", 1)
    with pytest.raises(ServiceUnavailableError):
        await bench.ask(principal=a_principal(scopes=(org,)))
    await trust(bench.redis, org)
    with pytest.raises(RateLimitError):
        await bench.ask(principal=a_principal(scopes=(org,)))
    for reason, kind in (("requests", "key"), ("requests", "team"), ("cold", "org"), ("money", "org")):
        assert value(metrics, "quarterdeck_admissions_refused_total", reason=reason, scope=kind) == 1


async def test_a_warning_is_counted_by_whose_budget_it_was(bench: Bench) -> None:
    metrics, scope = watched(bench), a_scope("team:red", 1, warns=True)
    await trust(bench.redis, scope, spent=1)
    await bench.ask(principal=a_principal(scopes=(scope,)))
    assert value(metrics, "quarterdeck_budget_warnings_total", scope="team") == 1


@pytest.mark.parametrize("on_redis_down", ["allow", "deny"])
async def test_those_let_in_or_refused_without_redis_are_counted(
    on_redis_down: str, tmp_path: Path, client: HttpClient
) -> None:
    bench = Bench(Redis("unix:///nobody/listens/here"), tmp_path, client, on_redis_down=on_redis_down)
    metrics = watched(bench)
    with pytest.raises((EngineUnavailableError, ServiceUnavailableError)):  # let in, it finds no engine
        await bench.ask()
    await bench.drain()
    is_let_in = on_redis_down == "allow"
    assert value(metrics, "quarterdeck_admissions_without_redis_total") == int(is_let_in)
    refused = value(metrics, "quarterdeck_admissions_refused_total", reason="redis", scope="org")
    assert refused == (None if is_let_in else 1)


async def test_waits_are_counted_by_cause_and_outcome_and_those_who_wait_now_are_seen(bench: Bench) -> None:
    metrics, endpoint, queues = watched(bench), bench.listed.endpoints[0], bench.pipeline.queues
    queues._config = Live(QueueConfig(max_waiting=1, max_wait_seconds=600))

    def enter() -> "asyncio.Task[None]":
        work = queues.enter(served(), team="a", priority=0, tokens=1, until=float("inf"))
        return asyncio.get_running_loop().create_task(work)

    endpoint.load.requests = endpoint.spec.max_running
    first = enter()
    await until(lambda: bool(queues.waiting()))
    assert value(metrics, "quarterdeck_queue_waiting_requests", model="m") == 1
    with pytest.raises(RateLimitError):
        await enter()
    endpoint.load.requests -= 1
    queues.released(endpoint)
    await first
    endpoint.load.requests += 1
    second = enter()
    await until(lambda: bool(queues.waiting()))
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    for outcome in ("served", "full", "cancelled"):
        assert value(metrics, "quarterdeck_queue_waits_total", model="m", cause="busy", outcome=outcome) == 1
    assert value(metrics, "quarterdeck_queue_wait_seconds_count", model="m", cause="busy") == 2
    assert value(metrics, "quarterdeck_queue_waiting_requests", model="m") is None


async def test_a_request_that_is_held_for_a_cold_model_is_counted_as_such(bench: Bench) -> None:
    metrics, endpoint, queues = watched(bench), bench.listed.endpoints[0], bench.pipeline.queues
    queues._config = Live(QueueConfig(cold_wait_seconds=600))
    queues._has_engine = lambda model: True
    change(endpoint, state="starting")
    held = queues.enter(served(), team="a", priority=0, tokens=1, until=float("inf"))
    waiting = asyncio.get_running_loop().create_task(held)
    await until(lambda: bool(queues.waiting()))
    change(endpoint, state="ready")
    await waiting
    assert value(metrics, "quarterdeck_queue_waits_total", model="m", cause="cold", outcome="served") == 1


async def test_endpoints_put_to_rest_are_counted(bench: Bench) -> None:
    metrics, endpoint = watched(bench), bench.listed.endpoints[0]
    assert value(metrics, "quarterdeck_endpoints_ejected", model="m") == 0
    for _ in range(FAILURES_TO_OPEN):
        endpoint.breaker.record_failure(time.monotonic())
    assert value(metrics, "quarterdeck_endpoint_ejections_total", endpoint="e#1") == 1
    assert value(metrics, "quarterdeck_endpoints_ejected", model="m") == 1
    assert value(metrics, "quarterdeck_endpoints", model="m", state="ready") == 1
    assert value(metrics, "quarterdeck_requests_in_flight") == len(IN_FLIGHT)


async def test_endpoints_that_are_left_alone_are_counted_apart_from_ejected_ones(bench: Bench) -> None:
    metrics, endpoint = watched(bench), bench.listed.endpoints[0]
    endpoint.breaker.record_refusal(time.monotonic(), 60)
    assert value(metrics, "quarterdeck_endpoints_resting", model="m") == 1
    assert value(metrics, "quarterdeck_endpoints_ejected", model="m") == 0


async def test_retries_that_a_route_has_not_left_are_counted(bench: Bench) -> None:
    metrics = watched(bench)
    bench.listed.endpoints = [an_endpoint(f"dead#{number}") for number in range(2)]
    for _ in range(20):  # ten retries to begin with, a fifth for each request, and what comes back with time
        with pytest.raises(EngineUnavailableError):
            await bench.ask()
    denied = value(metrics, "quarterdeck_retries_denied_total", route="m")
    assert denied is not None
    assert 0 < denied <= 6
