"""The table of routes: what is served, and what is not."""

import json

import pytest
from starlette.routing import Route
from tests.gateway.fakes import Client, FakePipeline, parts
from tests.gateway.route_table import every_route

from quarterdeck.gateway.app import create_api, create_app
from quarterdeck.gateway.dependencies import Parts
from quarterdeck.gateway.http.registry import Registry
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle


@pytest.fixture
def made() -> Parts:
    return parts()


@pytest.fixture
def app(made: Parts) -> RequestLifecycle:
    return create_app(made)


def test_the_walk_sees_the_routes() -> None:
    paths = {path for _, path in every_route()}
    assert {"/v1/chat/completions", "/v1/models", "/v1/models/chat", "/admin/keys", "/tokenize", "/healthz"} <= paths


async def test_nothing_is_redirected(app: RequestLifecycle) -> None:
    answer = await Client(app).get("/v1/models/", headers=[("host", "evil.example")])
    assert answer.status == 200
    assert "location" not in answer.headers


async def test_no_other_path_reaches_the_pipeline(made: Parts) -> None:
    pipeline = made.pipeline
    assert isinstance(pipeline, FakePipeline)
    app = create_app(made)
    for path in (
        "/V1/chat/completions",
        "/v1/x/../chat/completions",
        "/v1/chat/completions%20",
        "/v2/chat/completions",
    ):
        assert (await Client(app).post(path, {})).status == 404
    assert pipeline.calls == []


def test_there_is_no_page_and_no_schema() -> None:
    api = create_api(parts(), Registry([]))
    assert (api.docs_url, api.redoc_url, api.openapi_url) == (None, None, None)
    assert json.dumps([route.path for route in api.routes if isinstance(route, Route)])
