"""Every error is OpenAI's error object."""

import pytest
from tests.gateway.fakes import ADMIN, Client, parts

from quarterdeck.gateway.app import create_app
from quarterdeck.gateway.http.request_lifecycle import RequestLifecycle


@pytest.fixture
def app() -> RequestLifecycle:
    return create_app(parts())


@pytest.mark.parametrize(("method", "path"), [("GET", "/v1/embeddings"), ("POST", "/v1/models"), ("PUT", "/healthz")])
async def test_another_method_is_a_405_with_an_allow_header(method: str, path: str, app: RequestLifecycle) -> None:
    answer = await Client(app).request(method, path)
    assert (answer.status, answer.error["code"]) == (405, "method_not_allowed")
    assert answer.headers["allow"]


async def test_an_unknown_path_is_a_404_envelope_with_an_id(app: RequestLifecycle) -> None:
    answer = await Client(app).get("/v1/nowhere")
    assert (answer.status, answer.error["code"]) == (404, "unknown_url")
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_validation_error_names_the_parameter(app: RequestLifecycle) -> None:
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
