"""A stream as a whole answer, and a whole answer as a stream."""

import json
from typing import Any

import pytest

from quarterdeck.protocol import sse
from quarterdeck.protocol.foreign.conversion import as_answer, as_events
from quarterdeck.protocol.foreign.expected import CHAT_PATH, COMPLETIONS_PATH, NotAnAnswerError

USAGE = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
CALLS = [
    {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x": 1}'}},
    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "{}"}},
]


def chat(*messages: dict[str, Any], **more: Any) -> dict[str, Any]:
    choices = [
        {"index": at, "message": {"role": "assistant", "content": None, **message}, "finish_reason": "stop"}
        for at, message in enumerate(messages)
    ]
    return {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "choices": choices, **more}


@pytest.mark.parametrize(
    "answer",
    [
        chat({"content": "Hello"}, usage=USAGE),
        chat({"content": "Hello"}),
        chat({"content": "A"}, {"content": "B"}, usage=USAGE),
        chat({"tool_calls": CALLS}, usage=USAGE),
        chat({"content": "a", "reasoning_content": "Hm", "annotations": [{"a": 1}]}, usage=USAGE),
    ],
)
def test_a_whole_answer_survives_being_streamed(answer: dict[str, Any]) -> None:
    assert json.loads(as_answer(as_events(json.dumps(answer).encode(), CHAT_PATH), CHAT_PATH)) == answer


def test_fragments_are_joined() -> None:
    deltas: list[dict[str, Any]] = [
        {"role": "assistant", "content": ""},
        {"reasoning": "H"},
        {"reasoning": "m"},
        {"content": "a"},
        {"content": "b"},
        {"tool_calls": [{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]},
        {"tool_calls": [{"index": 0, "function": {"arguments": "}"}}]},
    ]
    logprobs = [{"content": [{"token": str(at)}]} for at in range(len(deltas))]
    events = [
        sse.event({"id": "x", "choices": [{"index": 0, "delta": delta, "logprobs": each, "finish_reason": None}]})
        for delta, each in zip(deltas, logprobs, strict=True)
    ]
    events.append(sse.event({"id": "x", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}))
    events.append(sse.event({"id": "x", "choices": [], "usage": USAGE}))
    answer = json.loads(as_answer(b": hb\n\n" + b"".join(events) + sse.DONE, CHAT_PATH))
    (choice,) = answer["choices"]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    assert choice["message"] == {"role": "assistant", "content": "ab", "reasoning": "Hm", "tool_calls": [call]}
    assert choice["finish_reason"] == "tool_calls"
    assert [each["token"] for each in choice["logprobs"]["content"]] == [str(at) for at in range(len(deltas))]
    assert answer["usage"] == USAGE


def test_a_completion_is_joined_as_well() -> None:
    texts = [{"index": 0, "text": "a", "finish_reason": None}, {"index": 0, "text": "b", "finish_reason": "stop"}]
    events = b"".join(sse.event({"id": "x", "choices": [each]}) for each in texts) + sse.DONE
    answer = json.loads(as_answer(events, COMPLETIONS_PATH))
    assert answer["choices"] == [{"index": 0, "text": "ab", "finish_reason": "stop"}]
    assert answer["object"] == "text_completion"


def test_an_error_event_is_the_answer() -> None:
    events = sse.event({"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}}]})
    events += sse.event({"error": {"message": "boom", "code": 503}})
    assert json.loads(as_answer(events, CHAT_PATH)) == {"error": {"message": "boom", "code": 503}}


@pytest.mark.parametrize(
    "events", [b"", sse.event({"choices": [{"index": 0, "delta": {"content": "a"}}]}), b": hb\n\n"]
)
def test_a_stream_without_its_end_is_no_answer(events: bytes) -> None:
    with pytest.raises(NotAnAnswerError):
        as_answer(events, CHAT_PATH)
