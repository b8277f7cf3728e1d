"""What holds for every route: a key, an envelope, an id; and nobody listens to the Host header."""

import json
import logging
from dataclasses import replace
from typing import Any

import pytest
from fastapi.routing import APIRoute
from starlette.routing import Route
from tests.gateway.fakes import ADMIN, Client, FakePipeline, parts

from quarterdeck.gateway.app import create_api, create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.access_log import AccessLog
from quarterdeck.gateway.http.lifecycle import HotPath
from quarterdeck.gateway.http.middleware import PUBLIC
from quarterdeck.telemetry.access_lines import AccessLine


@pytest.fixture
def made() -> Parts:
    return parts()


@pytest.fixture
def app(made: Parts) -> HotPath:
    return create_app(made)


PARAMETERS = {"name:path": "chat", "key_id": "key_user", "team": "default", "org": "default"}


def every_route() -> list[tuple[str, str]]:
    """(method, path) of all there are, path parameters filled in."""
    found = []
    for route in create_api(parts()).routes:
        assert isinstance(route, Route | APIRoute), f"{route}: a kind of route that this walk does not know"
        path = route.path
        for parameter, value in PARAMETERS.items():
            path = path.replace(f"{{{parameter}}}", value)
        assert "{" not in path, f"{path}: fill in its parameter"
        found += [(method, path) for method in sorted(route.methods or ())]
    return found


def test_the_walk_sees_the_routes() -> None:
    paths = {path for _, path in every_route()}
    assert {"/v1/chat/completions", "/v1/models", "/v1/models/chat", "/admin/keys", "/tokenize", "/healthz"} <= paths


@pytest.mark.parametrize(("method", "path"), every_route())
async def test_without_a_key_a_route_is_a_401_or_public(method: str, path: str, app: HotPath) -> None:
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
async def test_a_path_that_does_not_exist_needs_a_key_too(method: str, path: str, app: HotPath) -> None:
    assert (await Client(app, key=None).request(method, path)).status == 401
    assert (await Client(app).request(method, path)).status == 404


@pytest.mark.parametrize("host", ["localhost/healthz", "/healthz?", "localhost/healthz#", "x:y@z/metrics", ""])
async def test_the_host_header_opens_nothing(host: str, app: HotPath) -> None:
    """CVE-2026-48710: a Host that ends up in request.url, and in a decision about it."""
    for path in ("/admin/keys", "/v1/models"):
        answer = await Client(app, key=None).get(path, headers=[("host", host), ("x-forwarded-prefix", "/healthz")])
        assert answer.status == 401


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/chat/completions"), ("POST", "/v1/models"), ("PUT", "/healthz")]
)
async def test_another_method_is_a_405_that_says_which_there_are(method: str, path: str, app: HotPath) -> None:
    answer = await Client(app).request(method, path)
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"]


async def test_an_unknown_path_is_a_404_envelope_with_an_id(app: HotPath) -> None:
    answer = await Client(app).get("/v1/nowhere")
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert answer.headers["x-request-id"].startswith("req_")


async def test_nothing_is_redirected(app: HotPath) -> None:
    answer = await Client(app).get("/v1/models/", headers=[("host", "evil.example")])
    assert answer.status == 404
    assert "location" not in answer.headers


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


async def test_a_request_to_a_model_leaves_a_line_as_well(made: Parts) -> None:
    lines: list[AccessLine] = []
    access = AccessLog(made.metrics, lines.extend)
    await Client(create_app(replace(made, access=access))).post("/v1/chat/completions", {})
    access.flush()
    assert [(line.message, line.key) for line in lines] == [("POST /v1/chat/completions 200", "key_user")]


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


async def test_a_validation_error_names_the_parameter(app: HotPath) -> None:
    client = Client(app, key=ADMIN)
    cases: list[tuple[bytes, str | None, str]] = [
        (b"{", None, "invalid_json"),
        (b"[]", None, "invalid_type"),
        (b"{}", "name", "missing_required_parameter"),
        (b'{"name": 1}', "name", "invalid_type"),
        (b'{"name": ""}', "name", "invalid_value"),
        (b'{"name": "a", "colour": 1}', "colour", "unknown_parameter"),
        (b'{"name": "a", "limits": {"max_tokens": 0}}', "limits.max_tokens", "invalid_value"),
        (b'{"name": "a", "models": ["x", 2]}', "models[1]", "invalid_type"),
    ]
    for body, param, code in cases:
        answer = await client.post("/admin/keys", body, headers=[("content-type", "application/json")])
        assert (answer.status, answer.error["param"], answer.error["code"]) == (400, param, code), body
        assert answer.error["type"] == "invalid_request_error"


async def test_the_pipeline_is_never_asked_by_another_path(made: Parts) -> None:
    pipeline = made.pipeline
    assert isinstance(pipeline, FakePipeline)
    app = create_app(made)
    for path in ("/v1/chat/completions/", "/V1/chat/completions", "//v1/chat/completions", "/v1/chat/completions%20"):
        assert (await Client(app).post(path, {})).status == 404
    assert pipeline.calls == []


def test_there_is_no_page_and_no_schema() -> None:
    api = create_api(parts())
    assert (api.docs_url, api.redoc_url, api.openapi_url) == (None, None, None)
    assert json.dumps([route.path for route in api.routes if isinstance(route, Route)])
