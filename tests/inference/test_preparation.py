"""The body that an engine is sent: what changes, and nothing else."""

from typing import Any

import msgspec
import pytest
from tests.inference.making import CHAT, an_endpoint, as_json, served

from quarterdeck.errors import BadRequestError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.preparation import adapt_body, prepare_body
from quarterdeck.inference.request import decode
from quarterdeck.settings.limits import Limits

CHATS = Operation.CHAT
COMPLETION = {"model": "m", "prompt": "Hi"}


def sent(asked: dict[str, Any], operation: Operation = CHATS, limits: Limits | None = None) -> dict[str, Any]:
    ready = prepare_body(decode(operation, as_json(asked)), served(), limits or Limits())
    return msgspec.json.decode(ready, type=dict[str, Any])


def test_what_needs_no_change_is_the_same_bytes() -> None:
    body = b'{"model" : "m", "messages": [], "x" : 1.50}'
    assert prepare_body(decode(CHATS, body), served(), Limits()) is body


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
    ("asked", "operation", "added"),
    [
        (CHAT, CHATS, {"max_completion_tokens": 100}),
        (CHAT | {"max_tokens": 100}, CHATS, {}),
        (CHAT | {"max_completion_tokens": 5}, CHATS, {}),
        (CHAT | {"max_tokens": None, "max_completion_tokens": None}, CHATS, {"max_completion_tokens": 100}),
        (COMPLETION, Operation.COMPLETIONS, {"max_tokens": 16}),
        (COMPLETION | {"max_tokens": 50}, Operation.COMPLETIONS, {}),
    ],
)
def test_a_request_is_held_to_its_keys_max_tokens(
    asked: dict[str, Any], operation: Operation, added: dict[str, Any]
) -> None:
    assert sent(asked, operation, Limits(max_tokens=100)) == asked | added


def test_a_completions_own_default_may_be_more_than_a_key_has() -> None:
    assert sent(COMPLETION, Operation.COMPLETIONS, Limits(max_tokens=5))["max_tokens"] == 5


@pytest.mark.parametrize(
    ("asked", "operation", "param"),
    [
        (CHAT | {"max_tokens": 101}, CHATS, "max_tokens"),
        (CHAT | {"max_completion_tokens": 101}, CHATS, "max_completion_tokens"),
        (CHAT | {"max_tokens": 101, "max_completion_tokens": 1}, CHATS, "max_tokens"),
        (CHAT | {"max_tokens": 1, "max_completion_tokens": 101}, CHATS, "max_completion_tokens"),
        (COMPLETION | {"max_tokens": 101}, Operation.COMPLETIONS, "max_tokens"),
    ],
)
def test_more_than_a_key_has_is_refused_in_whichever_field(
    asked: dict[str, Any], operation: Operation, param: str
) -> None:
    with pytest.raises(BadRequestError) as caught:
        sent(asked, operation, Limits(max_tokens=100))
    assert (caught.value.param, caught.value.code) == (param, "max_tokens_exceeded")


def test_a_request_that_generates_nothing_has_no_max_tokens() -> None:
    asked = {"model": "m", "input": "Hi"}
    assert sent(asked, Operation.EMBEDDINGS, Limits(max_tokens=5)) == asked


def test_an_endpoint_elsewhere_may_call_the_model_otherwise() -> None:
    body = b'{"messages":[ ],"model":"m"}'
    assert adapt_body(body, an_endpoint()) is body
    assert adapt_body(body, an_endpoint(upstream_model="llama3.2")) == b'{"messages":[ ],"model":"llama3.2"}'
