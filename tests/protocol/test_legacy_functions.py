"""`functions` as `tools`, and `tool_calls` as `function_call`."""

import json
from typing import Any

import msgspec
import pytest

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol import sse
from quarterdeck.protocol.legacy_functions import FunctionCallEvents, as_function_answer, with_tools


def translated(**members: Any) -> Any:
    raw = {name: msgspec.Raw(json.dumps(value).encode()) for name, value in members.items()}
    return json.loads(msgspec.json.encode(with_tools(raw)))


CALL = {"name": "f", "arguments": "{}"}


def test_calls_and_results_in_messages_have_the_same_ids_in_every_turn() -> None:
    first = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "function_call": CALL},
        {"role": "function", "name": "f", "content": "1"},
    ]
    second = [*first, {"role": "assistant", "content": "", "function_call": CALL}, {"role": "function", "name": "f"}]
    one, two = translated(messages=first)["messages"], translated(messages=second)["messages"]
    assert two[:3] == one
    assert one[1] == {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "call00001", "type": "function", "function": CALL}],
    }
    assert one[2] == {"role": "tool", "name": "f", "content": "1", "tool_call_id": "call00001"}
    assert [each.get("tool_call_id") for each in two] == [None, None, "call00001", None, "call00002"]


def test_other_members_and_messages_keep_their_bytes() -> None:
    raw = {"messages": msgspec.Raw(b'[ {"role": "user", "content": "function"} ]'), "n": msgspec.Raw(b"1.0")}
    assert with_tools(raw) == raw


def test_a_choice_without_functions_is_refused_unless_it_is_none() -> None:
    assert translated(function_call="none", n=1) == {"n": 1}
    with pytest.raises(BadRequestError):
        translated(function_call={"name": "f"})


def test_only_the_first_of_several_calls_is_translated() -> None:
    calls = [{"index": at, "id": str(at), "function": {"name": f"f{at}", "arguments": "{}"}} for at in (0, 1)]
    answer = {"choices": [{"index": 0, "message": {"tool_calls": calls}, "finish_reason": "tool_calls"}]}
    made = json.loads(as_function_answer(json.dumps(answer).encode()))
    assert made["choices"][0]["message"] == {"function_call": {"name": "f0", "arguments": "{}"}}
    assert made["choices"][0]["finish_reason"] == "function_call"

    events = FunctionCallEvents()
    chunks = [{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]} for call in calls]
    deltas = [json.loads(sse.data(events.feed(sse.event(chunk))))["choices"][0]["delta"] for chunk in chunks]
    assert deltas == [{"function_call": {"name": "f0", "arguments": "{}"}}, {}]


def test_answers_and_events_without_a_call_keep_their_bytes() -> None:
    answer = b'{ "choices": [ {"message": {"content": "a"}, "finish_reason": "stop"} ] }'
    assert as_function_answer(answer) is answer
    events = sse.event({"choices": [{"delta": {"content": "the word tool_calls"}}]}) + b": waiting\n\n" + sse.DONE
    assert FunctionCallEvents().feed(events) == events
