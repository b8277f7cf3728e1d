"""Every route behind FastAPI: a key, an id, a log line; drained, and cut off where a client is too slow."""

import logging
from dataclasses import replace
from typing import Any

import pytest
from tests.gateway.fakes import Client, parts
from tests.gateway.route_table import every_route

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.access_log import AccessLog
from quarterdeck.gateway.http.middleware import PUBLIC
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle
from quarterdeck.telemetry.access_lines import AccessLine


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
        assert answer.status in (200, 503)
    else:
        assert answer.status == 401
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
        "/v1/chat/completions/",
        "//v1/models",
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


async def test_a_log_line_says_who_what_and_how_it_ended(made: Parts) -> None:
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
