from typing import Any

import pytest
from tests.simulator.harness import http, user

from quarterdeck.simulator import create_app
from quarterdeck.simulator.errors import VLLMError
from quarterdeck.simulator.protocol.validation import check_messages

CHAT = {"messages": user("hello")}


@pytest.mark.parametrize(
    ("change", "param", "message"),
    [
        ({"model": "nobody"}, "model", "The model `nobody` does not exist."),
        ({"max_tokens": 0}, "max_tokens", "max_tokens must be at least 1, got 0."),
        ({"temperature": 3}, "temperature", "temperature must be in [0, 2], got 3.0."),
        ({"temperature": -1}, "temperature", "temperature must be non-negative"),
        ({"top_p": 0}, "top_p", "top_p must be in (0, 1]"),
        ({"n": 0}, None, "n must be at least 1"),
        ({"n": 2, "temperature": 0}, None, "n must be 1 when using greedy sampling"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "Stream options can only be defined"),
        ({"top_logprobs": 2}, "top_logprobs", "when using `top_logprobs`, `logprobs` must be set"),
        ({"logprobs": True, "top_logprobs": 21}, "logprobs", "greater than max allowed: 20"),
        ({"logprobs": True, "top_logprobs": -1}, "logprobs", "sample logprobs of 49152, which is greater than max"),
        ({"logprobs": True, "top_logprobs": -2}, "top_logprobs", "`top_logprobs` must be a positive value or -1."),
        ({"stop": ["a", ""]}, None, "stop cannot contain an empty string"),
        ({"tools": []}, "tools", "`tools` must not be an empty array"),
        ({"tool_choice": "auto"}, "tool_choice", "When using `tool_choice`, `tools` must be set."),
        ({"response_format": {"type": "json_schema"}}, "response_format", "'json_schema' field must be provided"),
        ({"response_format": {"type": "poem"}}, "body.response_format.type", "validation error"),
        ({"continue_final_message": True}, None, "Cannot set both `continue_final_message`"),
        ({"messages": []}, "messages", "at least one message"),
        ({"messages": [{"content": "x"}]}, "body.messages.0.role", "Field required"),
        ({"messages": [{"role": "user", "content": 5}]}, "body.messages.0.content", "valid string"),
        ({"messages": "hello"}, "body.messages", "validation error"),
        ({"max_tokens": "many"}, "body.max_tokens", "validation error"),
        ({"min_tokens": 9, "max_tokens": 5}, None, "min_tokens must be less than or equal to max_tokens=5"),
    ],
)
async def test_a_wrong_request_is_refused_in_vllms_words(
    change: dict[str, Any], param: str | None, message: str
) -> None:
    async with http(create_app()) as client:
        answer = await client.post("/v1/chat/completions", json=CHAT | change)
    error = answer.json()["error"]
    assert answer.status_code == error["code"] == (404 if "model" in change else 400)
    assert error["param"] == param
    assert message in error["message"]
    assert error["type"] == ("NotFoundError" if "model" in change else error["type"])


@pytest.mark.parametrize("role", ["developer", "system", "user", "assistant"])
def test_a_null_for_a_name_is_refused_with_the_problems_of_every_type_of_message(role: str) -> None:
    with pytest.raises(VLLMError) as caught:
        check_messages([{"role": role, "content": "x", "name": None}])
    assert caught.value.message.startswith("13 validation errors:\n  {'type': '")
    assert "ChatCompletionToolMessageParam" in caught.value.message


def test_other_nulls_of_a_message_are_taken() -> None:
    nulls = dict.fromkeys(("refusal", "audio", "function_call", "tool_calls", "annotations", "tool_call_id"))
    check_messages([{"role": "assistant", "content": None, **nulls}, {"role": "tool", "content": "x", "name": None}])


@pytest.mark.parametrize("arguments", [None, {}, 7])
def test_the_arguments_of_a_call_are_a_string(arguments: Any) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(VLLMError, match="arguments"):
        check_messages([{"role": "assistant", "content": None, "tool_calls": [call]}])


@pytest.mark.parametrize(
    ("logprobs", "message"),
    [
        (-2, "`logprobs` must be a positive value or -1."),
        (-1, "Requested sample logprobs of 49152, which is greater than max allowed: 20"),
        (21, "Requested sample logprobs of 21, which is greater than max allowed: 20"),
    ],
)
async def test_too_many_logprobs_of_a_completion_are_refused_in_vllms_words(logprobs: int, message: str) -> None:
    async with http(create_app()) as client:
        answer = await client.post("/v1/completions", json={"prompt": "hello", "logprobs": logprobs})
    assert (answer.status_code, answer.json()["error"]["message"]) == (400, message)
