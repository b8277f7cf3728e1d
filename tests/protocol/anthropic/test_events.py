"""Events of a message, made from a chat's stream."""

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.errors import RateLimitError
from quarterdeck.protocol import sse
from quarterdeck.protocol.anthropic.answers import message
from quarterdeck.protocol.anthropic.errors import error_event
from quarterdeck.protocol.anthropic.events import MessageEvents

USAGE = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return sse.event({"id": "chatcmpl-1", "model": "chat", "choices": choices, **more})


def call(index: int, arguments: str, **start: str) -> dict[str, Any]:
    function = {"arguments": arguments, **({"name": start["name"]} if start else {})}
    return {"index": index, **({"id": start["id"]} if start else {}), "function": function}


def events_of(stream: bytes) -> list[dict[str, Any]]:
    return [json.loads(sse.data(event)) for event in sse.events(stream) if sse.data(event)]


def mapped(*pieces: bytes, thinks: bool = True) -> list[dict[str, Any]]:
    mapper = MessageEvents(shows_thoughts=thinks)
    return events_of(b"".join(mapper.feed(piece) for piece in pieces))


def assembled(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The blocks that a client has at the end. Blocks follow one another, each begun and ended once."""
    blocks: list[dict[str, Any]] = []
    is_open = False
    for event in events:
        match event["type"]:
            case "content_block_start":
                assert not is_open
                assert event["index"] == len(blocks)
                is_open = True
                blocks.append(dict(event["content_block"], json=""))
            case "content_block_delta":
                assert is_open
                assert event["index"] == len(blocks) - 1
                delta = event["delta"]
                name = {"text_delta": "text", "thinking_delta": "thinking", "input_json_delta": "json"}[delta["type"]]
                blocks[-1][name] += delta["partial_json" if name == "json" else name]
            case "content_block_stop":
                assert is_open
                is_open = False
    assert not is_open
    for block in blocks:
        arguments = block.pop("json")
        if block["type"] == "tool_use":
            block["input"] = json.loads(arguments or "{}")
    return blocks


def test_a_text_is_one_block_between_start_and_stop() -> None:
    events = mapped(
        chunk({"role": "assistant", "content": ""}),
        chunk({"content": "Os"}),
        chunk({"content": "lo"}),
        chunk({}, "stop"),
        chunk(usage=USAGE),
        sse.DONE,
    )
    kinds = [event["type"] for event in events]
    assert kinds == [
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert assembled(events) == [{"type": "text", "text": "Oslo"}]
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"]["output_tokens"] == 5


def test_an_answer_cut_by_its_limit_says_max_tokens() -> None:
    events = mapped(chunk({"content": "Os"}), chunk({}, "length"), sse.DONE)
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_thoughts_come_before_the_text_and_only_where_they_were_asked_for() -> None:
    pieces = (chunk({"reasoning": "Hm."}), chunk({"content": "Oslo"}), chunk({}, "stop"), sse.DONE)
    assert [block["type"] for block in assembled(mapped(*pieces))] == ["thinking", "text"]
    assert [block["type"] for block in assembled(mapped(*pieces, thinks=False))] == ["text"]


def test_calls_whose_pieces_are_mixed_are_blocks_one_after_the_other() -> None:
    events = mapped(
        chunk({"tool_calls": [call(0, "", id="a", name="f"), call(1, "", id="b", name="g")]}),
        chunk({"tool_calls": [call(1, '{"x":')]}),
        chunk({"tool_calls": [call(0, '{"y":2}'), call(1, "1}")]}),
        chunk({}, "tool_calls"),
        sse.DONE,
    )
    assert assembled(events) == [
        {"type": "tool_use", "id": "a", "name": "f", "input": {"y": 2}},
        {"type": "tool_use", "id": "b", "name": "g", "input": {"x": 1}},
    ]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_call_that_the_request_named_is_a_tool_use_though_the_engine_says_stop() -> None:
    events = mapped(chunk({"tool_calls": [call(0, "{}", id="a", name="f")]}), chunk({}, "stop"), sse.DONE)
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_the_gateways_error_is_an_error_event_and_nothing_follows() -> None:
    events = mapped(chunk({"content": "Os"}), sse.error_event(RateLimitError("Too much.")), sse.DONE)
    assert events[-1] == {"type": "error", "error": {"type": "rate_limit_error", "message": "Too much."}}


def test_an_error_after_the_begin_has_the_events_name() -> None:
    assert error_event(RateLimitError("Too much.")).startswith(b"event: error\ndata: ")


def test_an_event_that_is_no_json_is_an_error() -> None:
    assert mapped(b"data: {]\n\n", sse.DONE)[-1]["type"] == "error"


def test_comments_pass() -> None:
    assert MessageEvents(shows_thoughts=False).feed(b": waiting\n\n") == b": waiting\n\n"


TEXTS = st.text(min_size=1, max_size=6)
SAID = st.one_of(
    TEXTS.map(lambda text: {"content": text}),
    TEXTS.map(lambda text: {"reasoning": text}),
)


@given(said=st.lists(SAID, max_size=8), calls=st.integers(0, 3), cuts=st.sets(st.integers(0, 12)))
def test_events_do_not_depend_on_how_a_stream_arrives(said: list[dict[str, Any]], calls: int, cuts: set[int]) -> None:
    chunks = [chunk(delta) for delta in said]
    for index in range(calls):
        chunks.append(chunk({"tool_calls": [call(index, "", id=f"call{index}", name="f")]}))
        chunks.append(chunk({"tool_calls": [call(index, json.dumps({"n": index}))]}))
    chunks += [chunk({}, "tool_calls" if calls else "stop"), chunk(usage=USAGE), sse.DONE]
    pieces, last = [], 0
    for cut in sorted(cuts | {len(chunks)}):
        pieces.append(b"".join(chunks[last:cut]))
        last = max(last, cut)
    events = mapped(*pieces)
    assert events == mapped(*chunks)
    blocks = assembled(events)
    text = "".join(delta.get("content", "") for delta in said)
    assert "".join(block["text"] for block in blocks if block["type"] == "text") == text
    assert [block["input"]["n"] for block in blocks if block["type"] == "tool_use"] == list(range(calls))
    whole = {
        "content": text or None,
        "reasoning": "".join(delta.get("reasoning", "") for delta in said) or None,
        "tool_calls": [call(index, json.dumps({"n": index}), id=f"call{index}", name="f") for index in range(calls)],
    }
    answer = {"id": "chatcmpl-1", "model": "chat", "choices": [{"message": whole, "finish_reason": "stop"}]}
    plain = json.loads(message(json.dumps({**answer, "usage": USAGE}).encode(), shows_thoughts=True))
    assert plain["usage"] == events[-2]["usage"]
    assert plain["stop_reason"] == events[-2]["delta"]["stop_reason"]
    assert [block for block in plain["content"] if block["type"] == "tool_use"] == [
        block for block in blocks if block["type"] == "tool_use"
    ]
