"""OpenAI's SDK with `functions`, the first form of tools, on an engine that only knows `tools`."""

import json
from typing import Any

import openai
import pytest
from tests.contract.platform import Platform
from tests.servers import wait_until

WEATHER: Any = {
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}
ASK: Any = {
    "model": "chat",
    "messages": [{"role": "user", "content": "The weather, by get_weather?"}],
    "functions": [WEATHER],
    "max_tokens": 200,
    "temperature": 0,
}


@pytest.mark.parametrize(
    ("choice", "finish_reason"), [({"name": "get_weather"}, "stop"), ("auto", "function_call")], ids=["named", "auto"]
)
def test_a_function_is_called_and_the_call_is_recorded(
    choice: Any, finish_reason: str, client: openai.OpenAI, platform: Platform
) -> None:
    answer = client.chat.completions.create(**ASK, function_call=choice)
    (choice_made,) = answer.choices
    call = choice_made.message.function_call
    assert call is not None and call.name == "get_weather"
    assert "city" in json.loads(call.arguments)
    assert choice_made.message.tool_calls is None
    assert choice_made.finish_reason == finish_reason
    assert answer._request_id is not None
    record = platform.record(answer._request_id)
    assert answer.usage is not None
    assert (record.status, record.output_tokens) == ("ok", answer.usage.completion_tokens)


def test_a_streamed_call_adds_up(client: openai.OpenAI) -> None:
    name, arguments, reasons = "", "", set[str]()
    for chunk in client.chat.completions.create(**ASK, function_call="auto", stream=True):
        for choice in chunk.choices:
            assert choice.delta.tool_calls is None
            if (call := choice.delta.function_call) is not None:
                name += call.name or ""
                arguments += call.arguments or ""
            if choice.finish_reason:
                reasons.add(choice.finish_reason)
    assert (name, reasons) == ("get_weather", {"function_call"})
    assert "city" in json.loads(arguments)


def test_without_a_call_the_answer_is_text(client: openai.OpenAI) -> None:
    (choice,) = client.chat.completions.create(**ASK, function_call="none").choices
    assert choice.message.function_call is None and choice.message.content


def test_a_result_is_answered(client: openai.OpenAI) -> None:
    call = client.chat.completions.create(**ASK, function_call={"name": "get_weather"}).choices[0].message
    messages = [*ASK["messages"], call, {"role": "function", "name": "get_weather", "content": "rain"}]
    asked = ASK | {"messages": messages, "max_tokens": 8}
    assert client.chat.completions.create(**asked, function_call="none").choices[0].message.content
    del asked["functions"]  # the last turn of some clients
    assert client.chat.completions.create(**asked).choices[0].message.content


def test_both_forms_share_cached_answers(client: openai.OpenAI) -> None:
    asked = ASK | {"messages": [{"role": "user", "content": "Cached, by get_weather?"}]}
    create = client.chat.completions.with_raw_response.create
    with_functions = {**asked, "function_call": {"name": "get_weather"}}
    wait_until(lambda: create(**with_functions).headers["x-cache"] == "hit", seconds=10, what=lambda: "no hit")
    whole = create(**with_functions).parse().choices[0].message.function_call
    assert whole is not None and whole.name == "get_weather"
    arguments = ""
    stream = client.chat.completions.create(**with_functions, stream=True)
    for chunk in stream:
        for choice in chunk.choices:
            if (call := choice.delta.function_call) is not None:
                arguments += call.arguments or ""
    assert "city" in json.loads(arguments)

    del asked["functions"]
    tools = create(
        **asked,
        tools=[{"type": "function", "function": WEATHER}],
        parallel_tool_calls=False,
        tool_choice={"type": "function", "function": {"name": "get_weather"}},
    )
    assert tools.headers["x-cache"] == "hit"
    (call,) = tools.parse().choices[0].message.tool_calls or ()
    assert call.type == "function" and call.function.arguments == whole.arguments


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        ({"functions": "get_weather"}, "functions"),
        ({"functions": [{"parameters": {}}]}, "functions[0].name"),
        ({"functions": [WEATHER], "function_call": "always"}, "function_call"),
        ({"functions": [WEATHER], "tools": [{"type": "function", "function": WEATHER}]}, "tools"),
        ({"function_call": "auto"}, "function_call"),
    ],
)
def test_a_wrong_function_is_refused_by_its_name(wrong: Any, param: str, client: openai.OpenAI) -> None:
    asked = {name: value for name, value in ASK.items() if name != "functions"}
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**asked, **wrong)
    assert caught.value.param == param
