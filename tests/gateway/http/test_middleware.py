"""Every route behind FastAPI: a key, an id, a log line; drained, and cut off where a client is too slow."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from tests.gateway.fakes import ADMIN, Client, FakeKeyStore, FakePipeline, config, key_row, parts
from tests.gateway.route_table import every_route

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.access_log import AccessLog
from quarterdeck.gateway.http.middleware import PUBLIC
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.gateway.http.requests_in_flight import RequestsInFlight
from quarterdeck.telemetry.access_lines import AccessLine

ANTHROPIC = ("/v1/messages", "/v1/messages/count_tokens")
"""Routes whose errors have Anthropic's form."""


@pytest.fixture
def made() -> Parts:
    return parts()


@pytest.fixture
def app(made: Parts) -> RequestLifecycle:
    return create_app(made)


@pytest.mark.parametrize(("method", "path"), every_route())
async def test_without_a_key_a_route_is_a_401_or_public(method: str, path: str, app: RequestLifecycle) -> None:
    answer = await Client(app, key=None).request(method, path)
    if path in PUBLIC:
        # Without an operator's token in the environment there is no /demand.
        assert answer.status in ((404,) if path == "/demand" else (200, 503))
    else:
        assert answer.status == 401
        if path in ANTHROPIC:
            assert answer.json["error"]["type"] == "authentication_error"
        else:
            assert answer.error["code"] == "missing_api_key"


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE"])
@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/docs",
        "/openapi.json",
        "/v1",
        "/nowhere",
        "/healthz/",
        "/healthz/../admin/keys",
        "/HEALTHZ",
        "/readyz%00",
        "/metrics;/admin/keys",
    ],
)
async def test_a_path_that_does_not_exist_needs_a_key_too(method: str, path: str, app: RequestLifecycle) -> None:
    assert (await Client(app, key=None).request(method, path)).status == 401
    assert (await Client(app).request(method, path)).status == 404


@pytest.mark.parametrize("host", ["localhost/healthz", "/healthz?", "localhost/healthz#", "x:y@z/metrics", ""])
async def test_the_host_header_opens_nothing(host: str, app: RequestLifecycle) -> None:
    """CVE-2026-48710: a Host that ends up in request.url, and in a decision about it."""
    for path in ("/admin/keys", "/v1/models"):
        answer = await Client(app, key=None).get(path, headers=[("host", host), ("x-forwarded-prefix", "/healthz")])
        assert answer.status == 401


async def test_a_bug_in_a_route_is_a_500_envelope_and_a_trace_in_the_log(
    made: Parts, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> Any:
        raise ZeroDivisionError("sk-qd-secret-in-a-bug")

    made.metrics.render = fail  # type: ignore[method-assign]
    answer = await Client(create_app(made)).get("/metrics")
    assert (answer.status, answer.error["code"]) == (500, "internal_error")
    assert answer.headers["x-request-id"] in answer.error["message"]
    assert "ZeroDivisionError" in caplog.text
    assert "secret" not in answer.body.decode()


async def test_a_log_line_has_key_path_and_status(made: Parts) -> None:
    lines: list[AccessLine] = []
    access = AccessLog(made.metrics, lines.extend)
    app = create_app(replace(made, access=access))
    answer = await Client(app).get("/v1/models", headers=[("x-client-request-id", "mine\r\n{}\x00" + "x" * 500)])
    access.flush()
    (line,) = lines
    assert (line.method, line.path, line.status, line.key) == ("GET", "/v1/models", 200, "key_user")
    assert line.client_request_id == ("mine{}" + "x" * 500)[:128]
    assert answer.headers["x-request-id"] == line.request_id


async def test_probes_leave_no_line(made: Parts) -> None:
    lines: list[AccessLine] = []
    access = AccessLog(made.metrics, lines.extend)
    await Client(create_app(replace(made, access=access)), key=None).get("/healthz")
    access.flush()
    assert not lines


async def test_no_secret_shows_in_logs_errors_and_metrics(made: Parts, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    canary = "sk-qd-canary-5f3a9b"
    app = create_app(made)
    seen = []
    for path in ("/v1/models", "/v1/chat/completions", "/nowhere", "/admin/keys"):
        for method in ("GET", "POST"):
            headers = [("cookie", canary), ("x-api-key", canary)]
            seen.append(await Client(app, key=canary).request(method, path, b'{"model":"chat"}', headers=headers))
    seen.append(await Client(app).get("/metrics"))
    assert all(canary not in answer.body.decode() and canary not in str(answer.headers) for answer in seen)
    assert canary not in caplog.text
    assert all(canary not in str(vars(record)) for record in caplog.records)


ONE_KEY = "/admin/keys/key_admin"


@pytest.fixture
def keys() -> FakeKeyStore:
    made = FakeKeyStore()
    made.put(ADMIN, key_row(id="key_admin", is_admin=True))
    return made


@contextlib.asynccontextmanager
async def in_flight(made: Parts, keys: FakeKeyStore, client: Client) -> AsyncIterator[asyncio.Task[Any]]:
    """A request to FastAPI that waits for the database until the end of the block."""
    assert (await client.get("/v1/models")).status == 200  # its key is in memory
    keys.gate.clear()
    task = asyncio.create_task(client.get(ONE_KEY))
    await keys.is_waited_for.wait()
    assert len(made.requests_in_flight) == 1
    yield task
    keys.gate.set()


async def test_a_drain_waits_for_requests_to_fastapi_and_admits_no_others(keys: FakeKeyStore) -> None:
    made = parts(keys=keys)
    app = create_app(made)
    async with in_flight(made, keys, Client(app, key=ADMIN)) as request:
        draining = asyncio.create_task(made.requests_in_flight.drain(60, asyncio.Event()))
        await asyncio.sleep(0)
        assert (await Client(app, key=None).get("/healthz")).status == 200
        assert not draining.done()
    assert (await request).status == 200
    await draining
    answer = await Client(app, key=ADMIN).get("/v1/models")
    assert (answer.status, answer.error["code"], answer.headers["connection"]) == (503, "shutting_down", "close")


async def test_a_request_to_fastapi_that_outlasts_the_drain_is_a_503(keys: FakeKeyStore) -> None:
    made = parts(keys=keys)
    async with in_flight(made, keys, Client(create_app(made), key=ADMIN)) as request:
        await made.requests_in_flight.drain(0, asyncio.Event())
        assert (await request).error["code"] == "shutting_down"
    assert len(made.requests_in_flight) == 0


async def test_a_hang_up_does_not_cancel_a_request_to_fastapi(keys: FakeKeyStore) -> None:
    made = parts(keys=keys)
    client = Client(create_app(made), key=ADMIN)
    async with in_flight(made, keys, client) as request:
        client.hang_up()
    assert (await request).status == 200


async def test_an_overloaded_gateway_still_takes_requests_to_fastapi(keys: FakeKeyStore) -> None:
    made = parts(FakePipeline(config(max_in_flight=1)), keys=keys)
    app = create_app(made)
    async with in_flight(made, keys, Client(app, key=ADMIN)) as request:
        assert (await Client(app, key=ADMIN).get("/v1/models")).status == 200
    assert (await request).status == 200


async def test_a_client_that_does_not_read_is_cut_off() -> None:
    pipeline = FakePipeline(config(client_write_timeout_seconds=0.05))
    made = parts(pipeline, requests_in_flight=RequestsInFlight(sweep_seconds=0.01))
    client = Client(create_app(made))
    client.stop_reading_after(0)
    await client.get("/v1/models")
    assert client.was_aborted
    assert len(made.requests_in_flight) == 0


async def test_a_cancel_from_outside_is_raised(keys: FakeKeyStore) -> None:
    made = parts(keys=keys)
    async with in_flight(made, keys, Client(create_app(made), key=ADMIN)) as request:
        request.cancel()
        with pytest.raises(asyncio.CancelledError):
            await request
    assert len(made.requests_in_flight) == 0
