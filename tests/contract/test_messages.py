"""Anthropic's Messages API under Anthropic's own SDK, with strict validation."""

from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from tests.contract.platform import NARROW, REVOKED, USER, Platform

ASK: dict[str, Any] = {
    "model": "chat",
    "max_tokens": 24,
    "extra_body": {"temperature": 0.0},
    "system": "Answer shortly.",
    "messages": [{"role": "user", "content": "What is the capital of Norway?"}],
}
WEATHER: dict[str, Any] = {
    "name": "get_weather",
    "description": "The weather in a city.",
    "input_schema": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}


def client_of(platform: Platform, key: str = USER) -> anthropic.Anthropic:
    return anthropic.Anthropic(
        base_url=platform.gateway.url,
        api_key=key,
        max_retries=0,
        timeout=20.0,
        _strict_response_validation=True,
    )


@pytest.fixture
def messages(platform: Platform) -> Iterator[anthropic.Anthropic]:
    with client_of(platform) as made:
        yield made


def text_of(message: anthropic.types.Message) -> str:
    return "".join(block.text for block in message.content if block.type == "text")


def test_a_message_is_typed_and_counted(messages: anthropic.Anthropic, platform: Platform) -> None:
    message = messages.messages.create(**ASK)
    assert text_of(message)
    assert (message.role, message.model) == ("assistant", "chat")
    assert message.id.startswith("msg_")
    assert message._request_id is not None
    record = platform.record(message._request_id)
    cached = message.usage.cache_read_input_tokens or 0
    assert (record.status, record.http_status) == ("ok", 200)
    assert record.input_tokens == message.usage.input_tokens + cached
    assert record.output_tokens == message.usage.output_tokens
    assert record.cost > 0


def test_a_stream_says_what_the_plain_answer_says(messages: anthropic.Anthropic, platform: Platform) -> None:
    plain = messages.messages.create(**ASK)
    with messages.messages.stream(**ASK) as stream:
        kinds = [event.type for event in stream]
        streamed = stream.get_final_message()
        request_id = stream.response.headers["request-id"]
    assert text_of(streamed) == text_of(plain)
    assert streamed.stop_reason == plain.stop_reason
    assert streamed.usage.output_tokens == plain.usage.output_tokens
    assert (kinds[0], kinds[-1]) == ("message_start", "message_stop")
    assert platform.record(request_id).output_tokens == plain.usage.output_tokens


def test_an_answer_whose_beginning_is_given_goes_on_from_there(messages: anthropic.Anthropic) -> None:
    whole = text_of(messages.messages.create(**ASK))
    begun = whole[: whole.index(" ", len(whole) // 2)]
    rest = messages.messages.create(**{**ASK, "messages": [*ASK["messages"], {"role": "assistant", "content": begun}]})
    assert (begun + text_of(rest)).startswith(whole)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_a_tool_is_called_and_its_result_answered(messages: anthropic.Anthropic, is_streamed: bool) -> None:
    question = {"role": "user", "content": [{"type": "text", "text": "Is it raining in Oslo?"}]}
    options = {**ASK, "max_tokens": 200, "tools": [WEATHER], "tool_choice": {"type": "tool", "name": "get_weather"}}
    options["messages"] = [question]
    if is_streamed:
        with messages.messages.stream(**options) as stream:
            called = stream.get_final_message()
    else:
        called = messages.messages.create(**options)
    (block,) = [block for block in called.content if block.type == "tool_use"]
    assert (block.name, called.stop_reason) == ("get_weather", "tool_use")
    assert isinstance(block.input, dict)
    assert "city" in block.input
    result = {"type": "tool_result", "tool_use_id": block.id, "content": [{"type": "text", "text": "rain"}]}
    options["messages"] = [
        question,
        {"role": "assistant", "content": [content.model_dump() for content in called.content]},
        {"role": "user", "content": [result]},
    ]
    options["tool_choice"] = {"type": "none"}
    assert text_of(messages.messages.create(**options))


def test_a_stop_sequence_is_named(messages: anthropic.Anthropic) -> None:
    whole = text_of(messages.messages.create(**ASK))
    word = whole.split()[2]
    message = messages.messages.create(**ASK, stop_sequences=[word])
    assert word not in text_of(message)
    assert message.stop_reason in ("stop_sequence", "end_turn")


def test_tokens_are_counted(messages: anthropic.Anthropic) -> None:
    prompt = {name: ASK[name] for name in ("model", "system", "messages")}
    counted = messages.messages.count_tokens(**prompt)
    message = messages.messages.create(**ASK)
    assert counted.input_tokens == message.usage.input_tokens + (message.usage.cache_read_input_tokens or 0)


def test_errors_have_anthropics_form(platform: Platform, messages: anthropic.Anthropic) -> None:
    with client_of(platform, REVOKED) as client, pytest.raises(anthropic.AuthenticationError) as refused:
        client.messages.create(**ASK)
    assert refused.value.body["error"]["type"] == "authentication_error"  # type: ignore[index]
    with client_of(platform, NARROW) as client, pytest.raises(anthropic.NotFoundError):
        client.messages.create(**ASK)
    with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
        messages.messages.create(**{**ASK, "max_tokens": 0})
    with pytest.raises(anthropic.BadRequestError, match="bash_20250124"):
        messages.messages.create(**ASK, tools=[{"type": "bash_20250124", "name": "bash"}])


def test_a_failure_in_the_middle_is_an_error_event(messages: anthropic.Anthropic) -> None:
    with (
        pytest.raises(anthropic.APIStatusError, match="engine"),
        messages.messages.stream(**ASK, extra_headers={"x-fault": "cut=3"}) as stream,
    ):
        stream.until_done()
    assert stream.response.status_code == 200
    assert stream.current_message_snapshot.stop_reason is None


def test_the_cache_serves_messages(messages: anthropic.Anthropic) -> None:
    ask = {**ASK, "messages": [{"role": "user", "content": "What is cached of a message?"}]}
    first = messages.messages.with_raw_response.create(**ask)
    second = messages.messages.with_raw_response.create(**ask)
    assert second.headers["x-cache"] == "hit"
    assert second.parse().content == first.parse().content
