"""A response's request as a chat completion: its messages, tools and options, and what is refused."""

import itertools
import json
from typing import Any

import msgspec
import pytest

from quarterdeck.errors import BadRequestError
from quarterdeck.resources.responses.items import read_items
from quarterdeck.resources.responses.objects import new_response
from quarterdeck.resources.responses.requests import read_request
from quarterdeck.resources.responses.translation import chat_members, chat_messages
from quarterdeck.resources.responses.truncation import without_oldest

WEATHER = {"type": "function", "name": "weather", "parameters": {"type": "object"}}
SCHEMA = {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": True}


def translated(**members: Any) -> dict[str, Any]:
    """The chat completion that a request becomes."""
    request, engine = read_request(json.dumps({"model": "chat", "input": "Hi", **members}).encode())
    numbers = itertools.count(1)
    items = read_items(request.input, lambda prefix: f"{prefix}_{next(numbers)}")
    shown = new_response(request, "resp_1", 0.0, {})
    made = chat_members(request, shown, chat_messages(request.instructions, items), engine)
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(made))
    return found


def refused(**members: Any) -> BadRequestError:
    with pytest.raises(BadRequestError) as caught:
        translated(**members)
    return caught.value


def test_a_text_is_a_message_of_the_user() -> None:
    assert translated() == {"model": "chat", "messages": [{"role": "user", "content": "Hi"}]}


def test_options_have_their_names_of_chat_completions() -> None:
    made = translated(
        instructions="Be brief.",
        max_output_tokens=7,
        temperature=0.5,
        top_p=0.9,
        reasoning={"effort": "low", "summary": "auto"},
        text={"format": SCHEMA, "verbosity": "low"},
        include=["message.output_text.logprobs"],
        top_logprobs=2,
        metadata={"session_id": "s"},
        safety_identifier="user-1",
        prompt_cache_key="key",
        stream=True,
        top_k=5,
        truncation="auto",
        service_tier="auto",
        max_tool_calls=3,
        store=False,
        background=False,
    )
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    schema = {"name": "answer", "schema": {"type": "object"}, "strict": True}
    assert made == {
        "model": "chat",
        "messages": messages,
        "max_completion_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": schema},
        "verbosity": "low",
        "logprobs": True,
        "top_logprobs": 2,
        "metadata": {"session_id": "s"},
        "safety_identifier": "user-1",
        "prompt_cache_key": "key",
        "stream": True,
        "stream_options": {"include_usage": True},
        "top_k": 5,
    }


def test_functions_are_nested_and_strict_is_sent_only_where_it_was_stated() -> None:
    made = translated(tools=[WEATHER, {**WEATHER, "name": "stock", "strict": True}], tool_choice="required")
    functions = [tool["function"] for tool in made["tools"]]
    assert functions == [
        {"name": "weather", "parameters": {"type": "object"}},
        {"name": "stock", "parameters": {"type": "object"}, "strict": True},
    ]
    assert made["tool_choice"] == "required"


def test_a_named_function_and_allowed_tools_are_choices() -> None:
    tools = [WEATHER, {**WEATHER, "name": "stock"}]
    named = translated(tools=tools, tool_choice={"type": "function", "name": "stock"})
    assert named["tool_choice"] == {"type": "function", "function": {"name": "stock"}}
    reference = [{"type": "function", "name": "stock"}]
    allowed = translated(tools=tools, tool_choice={"type": "allowed_tools", "mode": "auto", "tools": reference})
    assert [tool["function"]["name"] for tool in allowed["tools"]] == ["stock"]
    assert allowed["tool_choice"] == "auto"


def test_leading_system_messages_become_one() -> None:
    items = [
        {"role": "developer", "content": "Be polite."},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": [{"type": "input_text", "text": "Now be rude."}]},
    ]
    assert translated(instructions="Be brief.", input=items)["messages"] == [
        {"role": "system", "content": "Be brief.\n\nBe polite."},
        {"role": "user", "content": "Hi"},
        {"role": "system", "content": "Now be rude."},
    ]


def test_a_turn_with_reasoning_and_calls_is_one_message_of_the_assistant() -> None:
    items = [
        {"role": "user", "content": "Weather in Oslo and Rome?"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Two."}]},
        {"role": "assistant", "content": [{"type": "output_text", "text": "Looking.", "annotations": []}]},
        {"type": "function_call", "call_id": "a", "name": "weather", "arguments": '{"city":"Oslo"}'},
        {"type": "function_call", "call_id": "b", "name": "weather", "arguments": '{"city":"Rome"}'},
        {"type": "function_call_output", "call_id": "a", "output": "3 °C"},
        {"type": "function_call_output", "call_id": "b", "output": [{"type": "input_text", "text": "20 °C"}]},
    ]
    _, assistant, first, second = translated(input=items)["messages"]
    assert (assistant["role"], assistant["content"], assistant["reasoning"]) == ("assistant", "Looking.", "Two.")
    assert [call["id"] for call in assistant["tool_calls"]] == ["a", "b"]
    assert first == {"role": "tool", "tool_call_id": "a", "content": "3 °C"}
    assert second == {"role": "tool", "tool_call_id": "b", "content": "20 °C"}


def test_pictures_files_and_audio_are_parts() -> None:
    content = [
        {"type": "input_text", "text": "What is it?"},
        {"type": "input_image", "image_url": "data:image/png;base64,AA==", "detail": "low"},
        {"type": "input_file", "filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]
    (message,) = translated(input=[{"role": "user", "content": content}])["messages"]
    assert message["content"] == [
        {"type": "text", "text": "What is it?"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA==", "detail": "low"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}},
        {"type": "input_audio", "input_audio": {"data": "AA==", "format": "wav"}},
    ]


@pytest.mark.parametrize(
    ("members", "param", "code"),
    [
        ({"moderation": {"model": "m"}}, "moderation", "unsupported_parameter"),
        ({"context_management": [{"type": "compaction"}]}, "context_management", "unsupported_parameter"),
        ({"max_tokens": 5}, "max_tokens", "unsupported_parameter"),
        ({"messages": []}, "messages", "unsupported_parameter"),
        ({"no_such_thing": 1}, "no_such_thing", "unknown_parameter"),
        ({"max_output_tokens": 0}, "max_output_tokens", "integer_below_min_value"),
        ({"temperature": 3}, "temperature", "decimal_above_max_value"),
        ({"truncation": "middle"}, "truncation", "invalid_value"),
        ({"include": ["everything"]}, "include[0]", "invalid_value"),
        ({"reasoning": {"summary": "detailed"}}, "reasoning.summary", "unsupported_parameter"),
        ({"metadata": {str(n): "x" for n in range(17)}}, "metadata", "object_above_max_properties"),
        ({"previous_response_id": "r", "conversation": "c"}, "previous_response_id", "mutually_exclusive_parameters"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type", "unsupported_tool"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].type", "unsupported_tool"),
        ({"tools": [{"type": "function", "function": {"name": "x"}}]}, "tools[0].function", "unknown_parameter"),
        ({"tools": [{"type": "function"}]}, "tools[0].name", "missing_required_parameter"),
        ({"tool_choice": {"type": "function", "name": "x"}}, "tool_choice.name", "invalid_value"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type", "invalid_value"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x"}}},
            "text.format.schema",
            "missing_required_parameter",
        ),
        ({"input": [{"type": "computer_call"}]}, "input[0].type", "unsupported_item"),
        ({"input": [{"role": "tool", "content": "x"}]}, "input[0].role", "invalid_value"),
        ({"input": [{"role": "user"}]}, "input[0].content", "missing_required_parameter"),
        (
            {"input": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]},
            "input[0].content[0].type",
            "invalid_value",
        ),
        (
            {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": ""}]}]},
            "input[0].content[0].file_id",
            "invalid_type",
        ),
        ({"input": [{"type": "function_call_output", "call_id": "x", "output": "y"}]}, "input", None),
        ({"input": 5}, "input", "invalid_type"),
    ],
)
def test_what_is_not_served_is_refused_by_name(members: dict[str, Any], param: str, code: str | None) -> None:
    error = refused(**members)
    assert (error.param, error.code) == (param, code)


def test_a_refused_tool_names_those_that_are_served() -> None:
    assert refused(tools=[{"type": "file_search"}]).message.endswith("Served tool types: function, mcp.")


def test_null_is_as_if_absent() -> None:
    names = ("instructions", "tools", "text", "reasoning", "metadata", "moderation", "background", "include", "prompt")
    assert translated(**dict.fromkeys(names)) == translated()


def test_the_oldest_turns_are_dropped_with_their_calls() -> None:
    messages: list[dict[str, Any]] = [{"role": "system", "content": "Be brief."}]
    for number in range(4):
        messages += [
            {"role": "user", "content": f"Question {number}"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": f"call_{number}"}]},
            {"role": "tool", "tool_call_id": f"call_{number}", "content": "x"},
        ]
    shorter = without_oldest(messages)
    assert shorter == [messages[0], *messages[4:]]
    for _ in range(2):
        assert shorter is not None
        shorter = without_oldest(shorter)
    assert shorter == [messages[0], *messages[10:]]
    assert without_oldest(shorter) is None


CRM = {
    "type": "namespace",
    "name": "crm",
    "description": "Customers.",
    "tools": [{**WEATHER, "name": "find", "strict": True}, {**WEATHER, "description": "A note."}],
}


def test_functions_of_a_namespace_have_its_name_in_the_chat() -> None:
    made = translated(tools=[WEATHER, CRM], tool_choice={"type": "function", "name": "find"})
    assert [tool["function"]["name"] for tool in made["tools"]] == ["weather", "crm__find", "crm__weather"]
    assert made["tools"][1]["function"] == {"name": "crm__find", "parameters": {"type": "object"}, "strict": True}
    assert made["tool_choice"] == {"type": "function", "function": {"name": "crm__find"}}
    called = {"type": "function_call", "call_id": "c", "name": "find", "arguments": "{}"}
    messages = translated(
        tools=[CRM],
        input=[{**called, "namespace": "crm"}, {"type": "function_call_output", "call_id": "c", "output": "Ann"}],
    )["messages"]
    assert messages[0]["tool_calls"][0]["function"]["name"] == "crm__find"


def test_names_of_namespaces_stay_within_a_functions_length_and_apart() -> None:
    long = "x" * 60
    tools = [{**CRM, "name": long, "tools": [{**WEATHER, "name": name} for name in ("find_one", "find_two")]}]
    names = [tool["function"]["name"] for tool in translated(tools=tools)["tools"]]
    assert len(set(names)) == 2 and max(map(len, names)) <= 64


@pytest.mark.parametrize(
    ("changed", "param"),
    [
        ({"name": None}, "tools[0].name"),
        ({"tools": None}, "tools[0].tools"),
        ({"tools": [1]}, "tools[0].tools[0]"),
        ({"tools": [{"type": "custom", "name": "x"}]}, "tools[0].tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].tools[0].name"),
        ({"colour": "red"}, "tools[0].colour"),
    ],
)
def test_a_namespace_is_checked(changed: dict[str, Any], param: str) -> None:
    assert refused(tools=[{**CRM, **changed}]).param == param


def test_functions_of_all_namespaces_are_bounded_together() -> None:
    many = [{**CRM, "name": f"n{at}", "tools": [{**WEATHER, "name": f"f{no}"} for no in range(128)]} for at in range(8)]
    assert refused(tools=many).param == "tools"


def test_what_a_client_says_of_itself_is_ignored() -> None:
    assert translated(client_metadata={"session_id": "s"}) == translated()


def test_a_search_that_may_not_leave_openais_cache_is_not_shown() -> None:
    """Codex offers it in each request."""
    cached = {"type": "web_search", "external_web_access": False}
    assert translated(tools=[WEATHER, cached]) == translated(tools=[WEATHER])
    assert "tools" not in translated(tools=[cached])
    for other in (True, None):
        assert refused(tools=[WEATHER, {**cached, "external_web_access": other}]).param == "tools[1].type"
