"""A dead endpoint is ejected before a request fails there."""

import asyncio
import logging

import pytest
from tests.inference.making import an_endpoint
from tests.net.upstream import Peer, Upstream, answering, response, until
from tests.platform import free_port

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.endpoints.health_checks import MAX_CONCURRENT, HealthChecks
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import UpstreamError
from quarterdeck.settings.routes import HealthCheck

GOOD, BAD = response(b""), response(b"", status=503)


def checked(upstream: Upstream, id: str = "e#1", *, timeout: float = 5, interval: float = 5) -> Endpoint:
    check = HealthCheck(timeout_seconds=timeout, interval_seconds=interval)
    return an_endpoint(id, url=upstream.url, health=check, api_key="sk-up")


async def silence(peer: Peer) -> None:
    await peer.until_gone()


async def test_it_is_dead_after_some_bad_answers_and_alive_after_one_good(
    client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with Upstream(answering(GOOD, BAD, BAD, BAD, GOOD)) as upstream:
        endpoint = checked(upstream)
        checks = HealthChecks(lambda: [endpoint], client)
        seen = []
        for _ in range(5):
            await checks.check(endpoint)
            seen.append(endpoint.breaker.is_alive)
        assert upstream.requests[0].head.startswith(b"GET /health HTTP/1.1\r\n")
        assert upstream.requests[0].header("authorization") == "Bearer sk-up"
    assert seen == [True, True, False, False, True]
    assert len(caplog.records) == 2, "one line for each change"


async def test_no_answer_is_a_bad_one(client: HttpClient) -> None:
    async with Upstream(answering(silence, silence)) as upstream:
        endpoint = checked(upstream, timeout=0.02)
        checks = HealthChecks(lambda: [endpoint], client)
        await checks.check(endpoint)
        await checks.check(endpoint)
    assert not endpoint.breaker.is_alive
    endpoint.breaker.record_health(is_alive=True)
    await checks.check(endpoint)
    await checks.check(endpoint)
    assert not endpoint.breaker.is_alive, "the connection is refused"


async def test_each_is_asked_when_it_is_due_and_one_without_a_check_never(client: HttpClient) -> None:
    async with Upstream(answering(*[GOOD] * 9)) as upstream:
        endpoint, other = checked(upstream), an_endpoint("other", url=upstream.url)
        checks = HealthChecks(lambda: [endpoint, other], client)
        for now in (100.0, 104.9):
            checks.start_due(now)
        await until(lambda: not checks._running)
        assert len(upstream.requests) == 1
        checks.start_due(105.0)
        await until(lambda: not checks._running)
        assert len(upstream.requests) == 2


async def test_only_so_many_are_asked_at_once_and_the_rest_afterwards(client: HttpClient) -> None:
    async with Upstream(answering(*[GOOD] * 100)) as upstream:
        endpoints = [checked(upstream, f"e#{number}") for number in range(2 * MAX_CONCURRENT)]
        checks = HealthChecks(lambda: endpoints, client)
        checks.start_due(1.0)
        assert len(checks._running) == MAX_CONCURRENT
        await until(lambda: not checks._running)
        checks.start_due(1.0)
        await until(lambda: len(upstream.requests) == 2 * MAX_CONCURRENT)


async def test_the_first_of_many_do_not_starve_the_last(client: HttpClient) -> None:
    """Some are due again before all were checked: the longest overdue is the next."""
    async with Upstream(answering(*[GOOD] * 200)) as upstream:
        endpoints = [checked(upstream, f"e#{number}", interval=0.1) for number in range(3 * MAX_CONCURRENT)]
        checks = HealthChecks(lambda: endpoints, client)
        for now in (1.0, 2.0, 3.0):
            checks.start_due(now)
            await until(lambda: not checks._running)
        assert set(checks._due) == set(endpoints)


async def test_who_is_gone_is_forgotten(client: HttpClient) -> None:
    async with Upstream(answering(GOOD)) as upstream:
        endpoints = [checked(upstream)]
        checks = HealthChecks(lambda: endpoints, client)
        checks.start_due(1.0)
        await until(lambda: not checks._running)
        endpoints.clear()
        checks.start_due(2.0)
        assert (checks._due, checks._failures) == ({}, {})


async def test_it_runs_until_it_is_cancelled(client: HttpClient) -> None:
    async with Upstream(answering(silence)) as upstream:
        endpoint = checked(upstream)
        task = asyncio.create_task(HealthChecks(lambda: [endpoint], client).run())
        await upstream.arrived.wait()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await upstream.closed.wait()


async def test_a_check_that_this_process_could_not_send_says_nothing_of_the_endpoint(client: HttpClient) -> None:
    full = HttpClient(max_connections=0)
    async with Upstream(answering(BAD, GOOD)) as upstream:
        endpoint = checked(upstream)
        for _ in range(3):
            await HealthChecks(lambda: [endpoint], full).check(endpoint)
        assert endpoint.breaker.is_alive and not upstream.requests
        endpoint.breaker.record_health(is_alive=False)
        await HealthChecks(lambda: [endpoint], full).check(endpoint)
        assert not endpoint.breaker.is_alive


# endpoints without `health:`


async def test_an_endpoint_that_refuses_connections_is_dead_until_it_accepts_one(client: HttpClient) -> None:
    unused_tcp_port = free_port()
    endpoint = an_endpoint(url=f"http://127.0.0.1:{unused_tcp_port}", is_probed=True)
    checks = HealthChecks(lambda: [endpoint], client)
    await checks.check(endpoint)
    assert not endpoint.breaker.is_alive
    assert "refused" in endpoint.breaker.health_error
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", unused_tcp_port):
        await checks.check(endpoint)
    assert (endpoint.breaker.is_alive, endpoint.breaker.health_error) == (True, "")


async def test_an_unknown_host_is_dead(client: HttpClient) -> None:
    endpoint = an_endpoint(url="http://no-such-host.invalid:1", is_probed=True)
    await HealthChecks(lambda: [endpoint], client).check(endpoint)
    assert not endpoint.breaker.is_alive


async def test_a_probe_sends_nothing_and_is_skipped_while_requests_succeed(client: HttpClient) -> None:
    async with Upstream(answering(*[GOOD] * 9)) as upstream:
        endpoint = an_endpoint(url=upstream.url, is_probed=True)
        checks = HealthChecks(lambda: [endpoint], client)
        await checks.check(endpoint)
        await until(lambda: upstream.connections == 1)
        endpoint.breaker.record_success()
        await checks.check(endpoint)
        assert (upstream.connections, upstream.requests) == (1, [])
        await checks.check(endpoint)
        await until(lambda: upstream.connections == 2)
        endpoint.breaker.record_failure(0.0)
        await checks.check(endpoint)
        await until(lambda: upstream.connections == 3)


async def test_the_lack_of_our_own_connections_is_not_the_endpoints_fault() -> None:
    client = HttpClient(max_connections=0)
    endpoint = an_endpoint(is_probed=True)
    await HealthChecks(lambda: [endpoint], client).check(endpoint)
    assert endpoint.breaker.is_alive
    await client.close()


async def test_a_probe_that_times_out_once_changes_nothing(client: HttpClient, monkeypatch: pytest.MonkeyPatch) -> None:
    async def late(origin: object, timeout: float) -> None:
        raise UpstreamError("timed out connecting", sent=False, timed_out=True)

    monkeypatch.setattr(client, "reach", late)
    endpoint = an_endpoint(is_probed=True)
    checks = HealthChecks(lambda: [endpoint], client)
    await checks.check(endpoint)
    assert endpoint.breaker.is_alive
    await checks.check(endpoint)
    assert not endpoint.breaker.is_alive
