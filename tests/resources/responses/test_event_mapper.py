"""Events of a response: their order and numbers, which do not depend on how the engine cuts its answer."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from quarterdeck.errors import EngineError
from quarterdeck.protocol.usage import Usage
from quarterdeck.resources.responses.chat_reader import ChatReader
from quarterdeck.resources.responses.deltas import Step
from quarterdeck.resources.responses.event_mapper import EventMapper
from quarterdeck.resources.responses.objects import new_response
from quarterdeck.resources.responses.replay import replay
from quarterdeck.resources.responses.requests import ResponseRequest

Event = dict[str, Any]
EVENT: TypeAdapter[ResponseStreamEvent] = TypeAdapter(ResponseStreamEvent)
USAGE = Usage(10, 4, 6, 2)


def a_mapper(**options: Any) -> EventMapper:
    numbers = itertools.count(1)
    response = new_response(ResponseRequest(model="chat", input="Hi", store=True), "resp_1", 1000.5, {})
    return EventMapper(response, lambda prefix: f"{prefix}_{next(numbers)}", **options)


def events_of(encoded: bytes) -> list[Event]:
    found = []
    for each in encoded.split(b"\n\n")[:-1]:
        name, data = each.split(b"\n")
        event = msgspec.json.decode(data.removeprefix(b"data: "))
        assert name == b"event: " + event["type"].encode()
        found.append(event)
    return found


def run(steps: list[Step], finish: str = "stop", **options: Any) -> tuple[EventMapper, list[Event]]:
    mapper = a_mapper(**options)
    encoded = mapper.start() + mapper.feed(steps) + mapper.conclude(finish, USAGE, 1002.0) + mapper.last_event()
    return mapper, events_of(encoded)


def types(events: list[Event]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in events]


def check_strictly(events: list[Event]) -> None:
    """By the SDK's own types."""
    for number, event in enumerate(events):
        assert event["sequence_number"] == number
        EVENT.validate_python(event)


def test_a_text_has_the_events_of_openai_in_their_order() -> None:
    mapper, events = run([["text", "Hel", []], ["text", "lo", []]])
    check_strictly(events)
    assert types(events) == [
        *("created", "in_progress", "output_item.added", "content_part.added"),
        *("output_text.delta", "output_text.delta", "output_text.done"),
        *("content_part.done", "output_item.done", "completed"),
    ]
    assert events[4]["delta"] == "Hel"
    assert events[6]["text"] == "Hello"
    response = events[-1]["response"]
    assert response == mapper.response
    assert response["status"] == "completed"
    assert response["completed_at"] == 1002
    assert response["output"][0]["content"][0]["text"] == "Hello"
    assert response["usage"] == {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 4, "cache_write_tokens": 0},
        "output_tokens": 6,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 16,
    }
    assert events[0]["response"]["output"] == []
    assert events[0]["response"]["status"] == "in_progress"


def test_reasoning_text_and_calls_are_items_of_their_own() -> None:
    steps: list[Step] = [
        ["reasoning", "I think"],
        ["text", "Let me see.", []],
        ["call", 0, "call_a", "weather", ""],
        ["call", 0, "", "", '{"city":'],
        ["call", 1, "call_b", "stock", "{}"],
        ["call", 0, "", "", '"Oslo"}'],
    ]
    mapper, events = run(steps, "tool_calls")
    check_strictly(events)
    output = mapper.response["output"]
    assert [item["type"] for item in output] == ["reasoning", "message", "function_call", "function_call"]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "I think"}]
    assert (output[2]["arguments"], output[2]["call_id"]) == ('{"city":"Oslo"}', "call_a")
    assert all(item["status"] == "completed" for item in output)
    done = [event for event in events if event["type"] == "response.output_item.done"]
    assert [event["item"] for event in done] == output
    assert [event["output_index"] for event in done] == [0, 1, 2, 3]
    arguments = [event for event in events if event["type"] == "response.function_call_arguments.done"]
    assert [event["name"] for event in arguments] == ["weather", "stock"]


def test_an_empty_answer_is_an_empty_message() -> None:
    mapper, events = run([])
    check_strictly(events)
    assert mapper.response["output"][0]["content"][0]["text"] == ""


@pytest.mark.parametrize(("finish", "reason"), [("length", "max_output_tokens"), ("content_filter", "content_filter")])
def test_an_answer_that_was_cut_is_incomplete(finish: str, reason: str) -> None:
    mapper, events = run([["text", "Hel", []]], finish)
    check_strictly(events)
    assert events[-1]["type"] == "response.incomplete"
    assert mapper.response["incomplete_details"] == {"reason": reason}
    assert mapper.response["output"][0]["status"] == "incomplete"
    assert mapper.response["completed_at"] is None


def test_a_failure_is_an_error_event_and_then_a_failed_response() -> None:
    mapper = a_mapper()
    encoded = mapper.start() + mapper.feed([["text", "Hel", []]])
    encoded += mapper.fail(EngineError("The engine failed.")) + mapper.last_event()
    events = events_of(encoded)
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert types(events)[-2:] == ["error", "failed"]
    assert events[-2]["error"] == {
        "message": "The engine failed.",
        "type": "engine_error",
        "param": None,
        "code": "engine_error",
    }
    response = events[-1]["response"]
    Response.model_validate(response)
    assert response["error"] == {"code": "server_error", "message": "The engine failed."}
    assert response["output"][0]["status"] == "incomplete"
    assert response["output"][0]["content"][0]["text"] == "Hel"


def test_logprobs_are_shown_where_they_were_asked_for() -> None:
    logprob = {"token": "Hi", "logprob": -0.5, "bytes": [72, 105], "top_logprobs": []}
    _, hidden = run([["text", "Hi", [logprob]]])
    mapper, shown = run([["text", "Hi", [logprob]]], shows_logprobs=True)
    check_strictly(shown)
    assert [event["logprobs"] for event in hidden if "logprobs" in event] == [[], []]
    assert [event["logprobs"] for event in shown if "logprobs" in event] == [[logprob], [logprob]]
    assert mapper.response["output"][0]["content"][0]["logprobs"] == [logprob]


texts = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=8)
answers = st.lists(
    st.one_of(
        st.tuples(st.just("reasoning"), texts),
        st.tuples(st.just("text"), texts, st.just([])),
        st.tuples(st.just("call"), st.integers(0, 2), st.just("call_x"), st.just("weather"), texts),
    ).map(list),
    max_size=8,
)


@settings(max_examples=40)  # pydantic takes milliseconds for each event
@given(answers, st.sampled_from(["stop", "length", "tool_calls"]), st.data())
def test_events_are_valid_and_do_not_depend_on_the_pieces(steps: list[Step], finish: str, data: st.DataObject) -> None:
    whole, events = run(steps, finish)
    check_strictly(events)
    pieces: list[Step] = []
    for step in steps:
        place = 4 if step[0] == "call" else 1
        at = data.draw(st.integers(0, len(step[place])))
        pieces += [
            [*step[:place], part, *step[place + 1 :]]
            for part in (step[place][:at], step[place][at:])
            if part or step[0] == "call"
        ]
    cut, cut_events = run(pieces, finish)
    assert cut.response == whole.response
    assert _without_deltas(cut_events) == _without_deltas(events)
    assert _joined(cut_events) == _joined(events)


@given(answers, st.sampled_from(["stop", "length", "tool_calls"]))
def test_a_replay_has_the_same_events(steps: list[Step], finish: str) -> None:
    mapper, events = run(steps, finish)
    stored = msgspec.json.decode(msgspec.json.encode(mapper.steps))
    again = replay(mapper.response, stored, shows_logprobs=False)
    assert [events_of(event)[0] for event in again] == events


def test_a_replay_of_a_failure_has_the_same_events() -> None:
    mapper = a_mapper()
    encoded = mapper.start() + mapper.feed([["reasoning", "Hm"], ["call", 0, "call_a", "weather", "{"]])
    encoded += mapper.fail(EngineError("The engine failed.")) + mapper.last_event()
    assert b"".join(replay(mapper.response, mapper.steps, shows_logprobs=False)) == encoded


CHUNKS = [
    {"id": "c", "model": "chat", "choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]},
    {"id": "c", "model": "chat", "choices": [{"index": 0, "delta": {"reasoning_content": "Hm…"}}]},
    {"id": "c", "model": "chat", "choices": [{"index": 0, "delta": {"content": "Hello"}}]},
    {
        "id": "c",
        "model": "chat",
        "choices": [
            {
                "index": 0,
                "delta": {"tool_calls": [{"index": 0, "id": "call_a", "function": {"name": "f", "arguments": "{}"}}]},
            }
        ],
    },
    {"id": "c", "model": "chat", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]},
    {"id": "c", "choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}},
]


@given(st.lists(st.integers(0, len(CHUNKS)), max_size=6))
def test_the_pieces_in_which_whole_events_arrive_make_no_difference(cuts: list[int]) -> None:
    encoded = [b"data: " + msgspec.json.encode(chunk) + b"\n\n" for chunk in CHUNKS] + [b"data: [DONE]\n\n"]
    once, often = ChatReader(a_mapper()), ChatReader(a_mapper())
    expected = once.read(b"".join(encoded)) + once.end(1002.0)
    got, at = b"", 0
    for cut in [*sorted(cuts), len(encoded)]:
        got += often.read(b"".join(encoded[at:cut]))
        at = max(at, cut)
    assert got + often.end(1002.0) == expected
    assert once.mapper.response["usage"]["total_tokens"] == 5
    assert [item["type"] for item in once.mapper.response["output"]] == ["reasoning", "message", "function_call"]


def test_a_stream_without_its_end_has_failed() -> None:
    reader = ChatReader(a_mapper())
    reader.read(b"data: " + msgspec.json.encode(CHUNKS[2]) + b"\n\n")
    events = events_of(reader.end(1002.0) + reader.mapper.last_event())
    assert types(events)[-2:] == ["error", "failed"]


def test_a_comment_passes() -> None:
    assert ChatReader(a_mapper()).read(b": waiting\n\n") == b": waiting\n\n"


def _without_deltas(events: list[Event]) -> list[Event]:
    return [
        {name: value for name, value in event.items() if name != "sequence_number"}
        for event in events
        if not event["type"].endswith(".delta")
    ]


def _joined(events: list[Event]) -> dict[str, str]:
    said: dict[str, str] = {}
    for event in events:
        if event["type"].endswith(".delta"):
            said[event["item_id"]] = said.get(event["item_id"], "") + event["delta"]
    return said


def test_a_call_of_a_namespaces_function_has_both_names() -> None:
    function = {"type": "function", "name": "find", "parameters": {"type": "object"}}
    request = ResponseRequest(
        model="chat", input="Hi", tools=[{"type": "namespace", "name": "crm", "description": "", "tools": [function]}]
    )
    numbers = itertools.count(1)
    response = new_response(request, "resp_1", 1000.5, {})
    mapper = EventMapper(response, lambda prefix: f"{prefix}_{next(numbers)}")
    # Engines may give the name after the call has begun.
    steps: list[Step] = [["call", 0, "call_1", "crm__find", "{}"], ["call", 1, "call_2", "", ""]]
    steps.append(["call", 1, "", "crm__find", "{}"])
    encoded = mapper.start() + mapper.feed(steps) + mapper.conclude("tool_calls", USAGE, 1002.0) + mapper.last_event()
    events = events_of(encoded)
    check_strictly(events)
    assert [(item["name"], item["namespace"]) for item in mapper.response["output"]] == [("find", "crm")] * 2
    Response.model_validate(mapper.response)
    again = replay(mapper.response, mapper.steps, shows_logprobs=False)
    assert b"".join(again) == encoded


def test_deltas_are_padded_where_they_are_to_be_obfuscated() -> None:
    steps: list[Step] = [["reasoning", "Hm"], ["text", "Hello", []], ["call", 0, "call_1", "f", "{}"]]
    found = [a_mapper(obfuscates=True), a_mapper()]
    for mapper, is_padded in zip(found, (True, False), strict=True):
        events = events_of(mapper.start() + mapper.feed([list(step) for step in steps]))
        deltas = [event for event in events if event["type"].endswith(".delta")]
        assert len(deltas) == 3
        assert all(("obfuscation" in event) is is_padded for event in deltas)
        assert not is_padded or {len(event["delta"] + event["obfuscation"]) for event in deltas} == {16}
