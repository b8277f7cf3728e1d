"""The error tree matches the OpenAI SDK's, and an envelope has its four fields."""

import inspect

import httpx2 as httpx  # the SDK's own HTTP client
import openai
import pytest

from quarterdeck import errors
from quarterdeck.errors import (
    APIError,
    EngineUnavailableError,
    InsufficientQuotaError,
    NotFoundError,
    RateLimitError,
    envelope,
)

TREE = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, APIError)]


@pytest.mark.parametrize("kind", TREE)
def test_the_sdk_raises_the_error_of_our_name(kind: type[APIError]) -> None:
    error = kind("It broke.", param="model", code="because")

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(error.status, json=envelope(error), request=request)

    with (
        httpx.Client(transport=httpx.MockTransport(answer)) as http,
        openai.OpenAI(api_key="x", base_url="http://gateway/v1", http_client=http, max_retries=0) as client,
        pytest.raises(openai.APIStatusError) as caught,
    ):
        client.models.list()
    seen = caught.value
    assert (seen.status_code, seen.code, seen.param, seen.type) == (error.status, "because", "model", error.type)
    ours = next(named for named in kind.__mro__ if hasattr(openai, named.__name__))
    if issubclass(ours, APIError) and ours.status == error.status and ours is not APIError:
        assert type(seen) is getattr(openai, ours.__name__)


def test_an_error_has_the_status_of_its_kind() -> None:
    assert {kind.__name__: kind.status for kind in TREE} == {
        "APIError": 500,
        "AuthenticationError": 401,
        "BadRequestError": 400,
        "ConflictError": 409,
        "EngineError": 502,
        "EngineTimeoutError": 504,
        "EngineUnavailableError": 503,
        "InsufficientQuotaError": 429,
        "MethodNotAllowedError": 405,
        "NotFoundError": 404,
        "NotServedError": 501,
        "PermissionDeniedError": 403,
        "RateLimitError": 429,
        "RequestTimeoutError": 408,
        "RequestTooLargeError": 413,
        "ServiceUnavailableError": 503,
        "StorageFullError": 507,
        "StorageUnavailableError": 503,
        "UnsupportedMediaTypeError": 415,
    }


def test_the_tree_is_drawn_as_it_is() -> None:
    drawn = (errors.__doc__ or "").replace("*", " ").replace("+", " ").replace("-", " ").splitlines()
    for kind in TREE:
        line = next(line.split() for line in drawn if line.split()[:1] == [kind.__name__])
        assert line[1] == str(kind.status)


def test_the_envelope_has_four_fields() -> None:
    error = NotFoundError("The model 'x' does not exist.", param="model", code="model_not_found")
    assert envelope(error) == {
        "error": {
            "message": "The model 'x' does not exist.",
            "type": "invalid_request_error",
            "param": "model",
            "code": "model_not_found",
        }
    }


def test_a_code_is_the_kinds_own_unless_another_is_said() -> None:
    assert EngineUnavailableError("x").code == "engine_unavailable"
    assert RateLimitError("x", code="insufficient_quota").code == "insufficient_quota"


def test_an_exhausted_budget_is_not_to_be_tried_again() -> None:
    error = InsufficientQuotaError("x")
    assert (error.type, error.code, error.headers) == (
        *("insufficient_quota", "insufficient_quota"),
        {"x-should-retry": "false"},
    )


def test_headers_belong_to_one_error() -> None:
    headers = {"connection": "close"}
    error = RateLimitError("x", headers=headers)
    headers["connection"] = "keep-alive"
    assert error.headers == {"connection": "close"}
    assert RateLimitError("x").headers == {}


def test_retry_after_follows_from_the_code_unless_the_error_knows_better() -> None:
    assert EngineUnavailableError("x").retry_after == 1
    assert EngineUnavailableError("x", code="model_not_ready").retry_after == 5
    assert EngineUnavailableError("x", retry_after="7").retry_after == "7"
    assert RateLimitError("x", code="queue_full").retry_after == 5
    assert APIError("x").retry_after is None
    assert RateLimitError("x").retry_after is None
    assert InsufficientQuotaError("x").retry_after is None
