"""What OpenAI takes for absent is dropped; everything else stays byte for byte."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.protocol import requests
from quarterdeck.protocol.absent import has_absent, without_absent


def cleaned(**members: Any) -> dict[str, Any]:
    raw = requests.members(json.dumps(members).encode())
    return json.loads(msgspec.json.encode(without_absent(raw)))  # type: ignore[no-any-return]


def test_nulls_of_the_request_are_dropped() -> None:
    assert cleaned(model="m", user=None, encoding_format=None, ignore_eos=None, seed=0) == {"model": "m", "seed": 0}


def test_nulls_of_a_message_are_dropped_but_for_its_content() -> None:
    message = {
        "role": "assistant",
        "content": None,
        "name": None,
        "refusal": None,
        "audio": None,
        "function_call": None,
    }
    assert cleaned(messages=[message]) == {"messages": [{"role": "assistant", "content": None}]}


def test_nulls_of_a_tool_call_are_dropped() -> None:
    call = {"id": "1", "type": "function", "index": None, "function": {"name": "f", "arguments": "null"}}
    del (expected := dict(call))["index"]
    messages = [{"role": "assistant", "tool_calls": [call], "audio": None}]
    assert cleaned(messages=messages) == {"messages": [{"role": "assistant", "tool_calls": [expected]}]}


@pytest.mark.parametrize("tools", [b"[]", b"[ ]", b"[\n\t]"])
def test_an_empty_list_of_tools_is_dropped_with_its_choice(tools: bytes) -> None:
    body = b'{"tools": %b, "tool_choice": "auto", "parallel_tool_calls": true, "model": "m"}' % tools
    assert has_absent(requests.members(body))
    assert msgspec.json.encode(without_absent(requests.members(body))) == b'{"model":"m"}'


def test_tools_that_are_null_take_their_choice_with_them() -> None:
    assert cleaned(model="m", tools=None, tool_choice="auto", functions=None, function_call="none") == {"model": "m"}


def test_an_empty_list_of_functions_is_dropped_with_its_choice() -> None:
    assert cleaned(functions=[], function_call="auto", n=1) == {"n": 1}


def test_a_choice_without_tools_stays_for_the_engine_to_refuse() -> None:
    assert cleaned(tool_choice="required") == {"tool_choice": "required"}


def test_a_null_that_says_something_stays() -> None:
    members = {
        "messages": [{"role": "user", "content": "null"}],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"default": None, "enum": [None]}}}],
        "response_format": {"type": "json_schema", "json_schema": {"schema": {"const": None}}},
        "metadata": {"a": None},
        "stop": [],
    }
    assert not has_absent(requests.members(json.dumps(members).encode()))
    assert cleaned(**members) == members


JSON = st.recursive(st.none() | st.integers(0, 9) | st.text(max_size=3), lambda each: st.lists(each, max_size=3))


@given(st.dictionaries(st.text(max_size=3), JSON))
def test_members_without_nulls_stay_as_they_are(members: dict[str, Any]) -> None:
    expected = {name: value for name, value in members.items() if value is not None}
    assert cleaned(**members) == expected
