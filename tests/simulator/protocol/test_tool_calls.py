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
