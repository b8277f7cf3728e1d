"""What of a body is changed on its way to an engine, and nothing else."""

from typing import Any

import msgspec
import pytest
from tests.inference.making import CHAT, an_endpoint, as_json, served

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.preparation import MAX_ESTIMATE, Estimate, estimate, for_endpoint, prepared
from quarterdeck.protocol import requests
from quarterdeck.protocol.requests import ChatCompletion, Completion, Embedding
from quarterdeck.settings.limits import Limits

COMPLETION = {"model": "m", "prompt": "Hi"}


def sent(asked: dict[str, Any], kind: type[Any] = ChatCompletion, limits: Limits | None = None) -> dict[str, Any]:
    body = as_json(asked)
    ready = prepared(body, requests.members(body), requests.decode(body, kind), served(), limits or Limits())
    return msgspec.json.decode(ready, type=dict[str, Any])


def test_what_needs_no_change_is_the_same_bytes() -> None:
    body = b'{"model" : "m", "messages": [], "x" : 1.50}'
    assert prepared(body, requests.members(body), requests.decode(body, ChatCompletion), served(), Limits()) is body


def test_an_alias_becomes_the_models_name() -> None:
    assert sent(CHAT | {"model": "gpt-4o-mini", "top_k": 7}) == CHAT | {"model": "m", "top_k": 7}


@pytest.mark.parametrize("options", [{}, {"stream_options": None}, {"stream_options": {"include_usage": False}}])
def test_a_stream_is_asked_for_its_usage(options: dict[str, Any]) -> None:
    assert sent(CHAT | {"stream": True} | options)["stream_options"] == {"include_usage": True}


def test_other_stream_options_stay() -> None:
    asked = CHAT | {"stream": True, "stream_options": {"chunk_size": 7}}
    assert sent(asked)["stream_options"] == {"chunk_size": 7, "include_usage": True}


@pytest.mark.parametrize("stream", [{}, {"stream": False}, {"stream": None}])
def test_a_plain_answer_is_not(stream: dict[str, Any]) -> None:
    assert "stream_options" not in sent(CHAT | stream)


@pytest.mark.parametrize(
    ("asked", "kind", "added"),
    [
        (CHAT, ChatCompletion, {"max_completion_tokens": 100}),
        (CHAT | {"max_tokens": 100}, ChatCompletion, {}),
        (CHAT | {"max_completion_tokens": 5}, ChatCompletion, {}),
        (CHAT | {"max_tokens": None, "max_completion_tokens": None}, ChatCompletion, {"max_completion_tokens": 100}),
        (COMPLETION, Completion, {"max_tokens": 16}),
        (COMPLETION | {"max_tokens": 50}, Completion, {}),
    ],
)
def test_a_request_is_held_to_its_keys_max_tokens(
    asked: dict[str, Any], kind: type[Any], added: dict[str, Any]
) -> None:
    assert sent(asked, kind, Limits(max_tokens=100)) == asked | added


def test_a_completions_own_default_may_be_more_than_a_key_has() -> None:
    assert sent(COMPLETION, Completion, Limits(max_tokens=5))["max_tokens"] == 5


@pytest.mark.parametrize(
    ("asked", "kind", "param"),
    [
        (CHAT | {"max_tokens": 101}, ChatCompletion, "max_tokens"),
        (CHAT | {"max_completion_tokens": 101}, ChatCompletion, "max_completion_tokens"),
        (CHAT | {"max_tokens": 101, "max_completion_tokens": 1}, ChatCompletion, "max_tokens"),
        (CHAT | {"max_tokens": 1, "max_completion_tokens": 101}, ChatCompletion, "max_completion_tokens"),
        (COMPLETION | {"max_tokens": 101}, Completion, "max_tokens"),
    ],
)
def test_more_than_a_key_has_is_refused_in_whichever_field(asked: dict[str, Any], kind: type[Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        sent(asked, kind, Limits(max_tokens=100))
    assert (caught.value.param, caught.value.code) == (param, "max_tokens_exceeded")


def test_a_request_that_generates_nothing_has_no_max_tokens() -> None:
    asked = {"model": "m", "input": "Hi"}
    assert sent(asked, Embedding, Limits(max_tokens=5)) == asked


def test_an_endpoint_elsewhere_may_call_the_model_otherwise() -> None:
    body = b'{"messages":[ ],"model":"m"}'
    assert for_endpoint(body, an_endpoint()) is body
    assert for_endpoint(body, an_endpoint(upstream_model="llama3.2")) == b'{"messages":[ ],"model":"llama3.2"}'


@pytest.mark.parametrize(
    ("asked", "kind", "output"),
    [
        (CHAT, ChatCompletion, 256),
        (CHAT | {"max_tokens": 10}, ChatCompletion, 10),
        (CHAT | {"max_tokens": 10, "max_completion_tokens": 20}, ChatCompletion, 20),
        (CHAT | {"max_tokens": 10, "n": 3}, ChatCompletion, 30),
        (CHAT | {"max_tokens": 10, "n": 0}, ChatCompletion, 10),
        (COMPLETION | {"max_tokens": 10}, Completion, 10),
        ({"model": "m", "input": "Hi"}, Embedding, 0),
    ],
)
def test_a_request_is_estimated_by_its_bytes_and_what_it_may_say(
    asked: dict[str, Any], kind: type[Any], output: int
) -> None:
    body = as_json(asked)
    prompt = -(-len(body) // 4)
    assert estimate(body, requests.decode(body, kind)) == Estimate(prompt, output, prompt + output)


def test_no_estimate_is_more_than_redis_can_count() -> None:
    body = as_json(CHAT | {"max_tokens": 2**31 - 1, "n": 2**31 - 1})
    assert estimate(body, requests.decode(body, ChatCompletion)).total == MAX_ESTIMATE
