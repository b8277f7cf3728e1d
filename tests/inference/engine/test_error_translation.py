"""Every error of an engine has one of ours."""

import json
from typing import Any

import pytest
from tests.inference.engine.opening import endpoint, failing
from tests.net.upstream import Upstream, answering, response

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    NotFoundError,
    RateLimitError,
)
from quarterdeck.inference.engine.client import EngineClient
from quarterdeck.inference.engine.error_translation import error_of_event, error_of_response

VLLM = {
    "a bad request": (
        400,
        {
            "error": {
                "message": "temperature must be ≥ 0",
                "type": "BadRequestError",
                "param": "temperature",
                "code": 400,
            }
        },
        (BadRequestError, "temperature must be ≥ 0", "temperature", None),
    ),
    "a prompt that is too long": (
        400,
        {
            "error": {
                "message": "This model's maximum context length is 2048 tokens. However, you requested 9000 tokens.",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }
        },
        (
            BadRequestError,
            "This model's maximum context length is 2048 tokens. However, you requested 9000 tokens.",
            None,
            "context_length_exceeded",
        ),
    ),
    "its old flat shape": (
        400,
        {"object": "error", "message": "no", "type": "BadRequestError", "param": "n", "code": 400},
        (BadRequestError, "no", "n", None),
    ),
    "a model that is not there": (
        404,
        {"error": {"message": "The model `x` does not exist.", "type": "NotFoundError", "param": "model", "code": 404}},
        (NotFoundError, "The model `x` does not exist.", "model", "model_not_found"),
    ),
    "FastAPI's words": (404, {"detail": "Not Found"}, (NotFoundError, "Not Found", None, "model_not_found")),
    "FastAPI's list": (
        422,
        {"detail": [{"loc": ["body", "n"], "msg": "not an int", "type": "int"}, "odd", {"msg": 7}]},
        (BadRequestError, "body.n: not an int", None, None),
    ),
    "no words": (500, {}, (EngineError, "The engine answered with status 500.", None, "engine_error")),
    "Ollama's shape": (400, {"error": "model is required"}, (BadRequestError, "model is required", None, None)),
    "OpenAI's code": (
        429,
        {"error": {"message": "No money.", "type": "x", "param": None, "code": "insufficient_quota"}},
        (EngineUnavailableError, "The engine's account has no quota left.", None, "engine_insufficient_quota"),
    ),
    "too many": (429, {"error": {"message": "busy", "code": 429}}, (RateLimitError, "busy", None, "engine_overloaded")),
    "too large": (413, {"error": {"message": "large"}}, (BadRequestError, "large", None, None)),
    "our key is refused": (
        401,
        {"error": {"message": "Incorrect API key provided: sk-canary.", "code": "invalid_api_key"}},
        (EngineError, "The engine answered with status 401.", None, "engine_error"),
    ),
    "our key may not": (
        403,
        {"error": {"message": "sk-canary may not", "code": "x"}},
        (EngineError, "The engine answered with status 403.", None, "engine_error"),
    ),
    "not now": (
        503,
        {"error": {"message": "warming up"}},
        (EngineUnavailableError, "warming up", None, "engine_unavailable"),
    ),
    "too late": (504, {}, (EngineTimeoutError, "The engine answered with status 504.", None, "engine_timeout")),
    "elsewhere": (302, {}, (EngineError, "The engine answered with status 302.", None, "engine_error")),
    "a wrong method": (
        405,
        {"detail": "Method Not Allowed"},
        (EngineError, "Method Not Allowed", None, "engine_error"),
    ),
    "fields of odd types": (
        400,
        {"error": {"message": "no", "param": 7, "code": {"a": 1}, "type": []}},
        (BadRequestError, "no", None, None),
    ),
    "no message": (
        400,
        {"error": {"message": None, "code": 400}},
        (BadRequestError, "The engine answered with status 400.", None, None),
    ),
}


@pytest.mark.parametrize(("status", "body", "expected"), VLLM.values(), ids=VLLM.keys())
async def test_an_engines_refusal_is_ours(
    engines: EngineClient,
    status: int,
    body: dict[str, Any],
    expected: tuple[type[APIError], str, str | None, str | None],
) -> None:
    answer = response(json.dumps(body).encode(), status=status)
    async with Upstream(answering(answer)) as upstream:
        error = await failing(engines, upstream)
    assert (type(error), error.message, error.param, error.code) == expected
    assert error.engine_status == status
    assert "canary" not in str(error)


@pytest.mark.parametrize("body", [b"Internal Server Error", b"\xff\xfe", b"[" * 100_000, b"", b"<html>" * 10_000])
def test_an_engine_that_has_no_words_of_json_is_quoted_in_part(body: bytes) -> None:
    error = error_of_response(500, body)
    assert type(error) is EngineError
    assert 0 < len(error.message) <= 2000


@pytest.mark.parametrize("status", [429, 503])
async def test_when_to_try_again_is_passed_on(engines: EngineClient, status: int) -> None:
    answer = response(b'{"error":{"message":"busy"}}', status=status, headers=["Retry-After: 7"])
    async with Upstream(answering(answer)) as upstream:
        assert (await failing(engines, upstream)).retry_after == 7


@pytest.mark.parametrize(
    "data", [b"", b"\xff", b"[" * 100_000, b'{"error":{"code":1e300}}', b'{"error":{"code":true}}']
)
def test_an_error_inside_a_stream_is_an_error_whatever_it_says(data: bytes) -> None:
    assert error_of_event(data).status == 502


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (404, b'{"detail":"Not Found"}'),
        (404, b'{"error":{"message":"Not Found","code":404}}'),
        (501, b'{"error":{"message":"The model does not support Embeddings API","code":501}}'),
    ],
)
@pytest.mark.parametrize("path", ["/v1/embeddings", "/v1/score"])
async def test_a_chat_model_that_is_asked_for_embeddings_is_the_callers_error(
    engines: EngineClient, path: str, status: int, body: bytes
) -> None:
    async with Upstream(answering(response(body, status=status))) as engine:
        with pytest.raises(BadRequestError) as caught:
            await engines.open(endpoint(engine), path, b"{}")
    assert (caught.value.code, caught.value.param, caught.value.engine_status) == ("unsupported_model", "model", status)


async def test_a_route_that_every_model_has_is_not_the_callers_error(engines: EngineClient) -> None:
    async with Upstream(answering(response(b'{"detail":"Not Found"}', status=404))) as engine:
        with pytest.raises(NotFoundError):
            await engines.open(endpoint(engine), "/v1/chat/completions", b"{}")


@pytest.mark.parametrize(
    ("status", "headers", "is_refusal", "seconds"),
    [
        (429, ["retry-after: 7"], True, 7.0),
        (429, ["retry-after-ms: 6100", "retry-after: 9"], True, 6.1),
        (429, [], True, None),
        (503, ["retry-after: 7"], True, 7.0),
        (503, [], False, None),
        (529, [], True, None),
        (401, [], True, 60.0),
        (402, [], True, 60.0),
        (403, [], True, 60.0),
        (500, ["retry-after: 7"], False, 7.0),
        (422, [], False, None),
    ],
)
async def test_a_refusal_says_how_long_to_leave_the_endpoint_alone(
    engines: EngineClient, status: int, headers: list[str], is_refusal: bool, seconds: float | None
) -> None:
    async with Upstream(answering(response(b"{}", status=status, headers=headers))) as upstream:
        error = await failing(engines, upstream)
    assert (error.is_refusal, error.rest_seconds) == (is_refusal, seconds)


@pytest.mark.parametrize("status", [413, 422])
def test_a_refusal_of_the_request_keeps_its_status(status: int) -> None:
    assert error_of_response(status, b'{"error":{"message":"no"}}').status == status


def test_the_words_of_a_proxys_page_are_not_the_message() -> None:
    assert error_of_response(502, b"\n<!DOCTYPE html><p>nginx").message == "The engine answered with status 502."
