from typing import Any

import pytest
from pydantic import BaseModel
from tests.simulator.harness import sdk, user

WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "minimum": 1}},
            "required": ["city", "days"],
        },
    },
}


class Weather(BaseModel):
    city: str
    days: int


@pytest.mark.parametrize(
    ("choice", "finish_reason"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "get_weather"}}, "stop")],
)
async def test_a_tool_is_called_when_it_must_be(choice: Any, finish_reason: str) -> None:
    async with sdk() as client:
        ask = {"model": "simulated", "messages": user("hello"), "tools": [WEATHER], "tool_choice": choice}
        answer = await client.chat.completions.create(**ask)  # type: ignore[arg-type]
        stream = await client.chat.completions.create(**ask, stream=True)  # type: ignore[call-overload]
        pieces = [chunk.choices[0] async for chunk in stream]
    message = answer.choices[0].message
    assert message.tool_calls and message.tool_calls[0].type == "function"
    arguments = message.tool_calls[0].function.arguments
    Weather.model_validate_json(arguments)
    assert answer.choices[0].finish_reason == pieces[-1].finish_reason == finish_reason
    deltas = [call for piece in pieces for call in piece.delta.tool_calls or []]
    assert [call.function.name for call in deltas if call.function and call.function.name] == ["get_weather"]
    assert deltas[0].id and all(call.id is None for call in deltas[1:])
    assert "".join(call.function.arguments or "" for call in deltas if call.function) == arguments


async def test_auto_calls_a_tool_that_the_user_names() -> None:
    async with sdk() as client:
        called = await client.chat.completions.create(
            model="simulated", messages=user("please get_weather"), tools=[WEATHER]
        )
        said = await client.chat.completions.create(model="simulated", messages=user("hello"), tools=[WEATHER])
        none = await client.chat.completions.create(
            model="simulated", messages=user("please get_weather"), tools=[WEATHER], tool_choice="none"
        )
    assert called.choices[0].finish_reason == "tool_calls"
    assert said.choices[0].message.tool_calls is None and said.choices[0].message.content
    assert none.choices[0].message.tool_calls is None


def a_tool(name: str) -> Any:
    return {**WEATHER, "function": {**WEATHER["function"], "name": name}}


@pytest.mark.parametrize("choice", ["auto", "required"])
async def test_every_tool_that_the_user_names_is_called_in_one_turn(choice: Any) -> None:
    async with sdk() as client:
        ask: Any = {
            "model": "simulated",
            "messages": user("get_weather, get_stock and get_weather again"),
            "tools": [a_tool("get_weather"), a_tool("get_stock")],
            "tool_choice": choice,
        }
        answer = await client.chat.completions.create(**ask)
        pieces = [chunk.choices[0] async for chunk in await client.chat.completions.create(**ask, stream=True)]
        first = await client.chat.completions.create(**ask, parallel_tool_calls=False)
        streamed_first = [
            call
            async for chunk in await client.chat.completions.create(**ask, stream=True, parallel_tool_calls=False)
            for call in chunk.choices[0].delta.tool_calls or []
        ]
    calls = answer.choices[0].message.tool_calls or []
    assert answer.choices[0].finish_reason == pieces[-1].finish_reason == "tool_calls"
    assert [call.function.name for call in calls] == ["get_weather", "get_stock", "get_weather"]
    assert len({call.id for call in calls}) == 3
    arguments = [call.function.arguments for call in calls]
    for each in arguments:
        Weather.model_validate_json(each)
    streamed = ["", "", ""]
    ids = set()
    for delta in (call for piece in pieces for call in piece.delta.tool_calls or []):
        streamed[delta.index] += (delta.function and delta.function.arguments) or ""
        ids |= {delta.id} if delta.id else set()
    assert streamed == arguments and len(ids) == 3
    (only,) = first.choices[0].message.tool_calls or []
    assert only.function.arguments == arguments[0]
    assert {call.index for call in streamed_first} == {0}
    assert "".join(call.function.arguments or "" for call in streamed_first if call.function) == arguments[0]


async def test_the_longer_of_two_names_is_meant() -> None:
    async with sdk() as client:
        answer = await client.chat.completions.create(
            model="simulated", messages=user("search_more now"), tools=[a_tool("search"), a_tool("search_more")]
        )
    assert [call.function.name for call in answer.choices[0].message.tool_calls or []] == ["search_more"]
