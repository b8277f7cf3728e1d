"""What the tap finds in a stream, and what the client receives of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import CHAT, DONE, a_head, a_meter, as_json, delta, event, served, usage
from tests.protocol.tricky import TRICKY

from quarterdeck.inference.call import Operation
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.streaming.tap import StreamTap
from quarterdeck.protocol import requests
from quarterdeck.protocol.usage import Usage, parse_usage

texts = st.text() | st.sampled_from(TRICKY) | st.lists(st.sampled_from(TRICKY), max_size=3).map("".join)
chunks = texts.map(delta)
STOP = delta(finish="stop")
SAID = delta("a") + STOP


def written(value: dict[str, Any], separators: tuple[str, str]) -> bytes:
    return b"data: " + json.dumps(value, separators=separators).encode() + b"\n\n"


@st.composite
def cut(draw: st.DrawFn, events: list[bytes]) -> list[bytes]:
    """Whole events, in pieces of any number of them."""
    cuts = sorted(draw(st.sets(st.integers(0, len(events)), max_size=6)))
    pieces = [b"".join(events[a:b]) for a, b in zip([0, *cuts], [*cuts, len(events)], strict=True)]
    return [piece for piece in pieces if piece]


separators = st.sampled_from([(",", ":"), (", ", ": ")])


@given(st.lists(chunks, max_size=6), separators, st.booleans(), st.data())
def test_bytes_out_are_bytes_in_but_for_the_usage(
    said: list[bytes], style: tuple[str, str], shows_usage: bool, data: st.DataObject
) -> None:
    counts = {"prompt_tokens": 7, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 2}}
    last = written({"id": "chatcmpl-1", "choices": [], "usage": counts}, style)
    events = [*said, delta(finish="stop"), last, DONE]
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=shows_usage)
    passed = b"".join(tap.look(piece) for piece in data.draw(cut(events)))
    assert passed == b"".join(event for event in events if shows_usage or event is not last)
    assert (meter.usage, meter.usage_source) == (Usage(7, 2, 3, 0), "engine")
    assert (meter.finish_reason, meter.response_id) == ("stop", "chatcmpl-1")
    assert (tap.is_done, tap.error, tap.is_broken) == (True, None, False)


@given(st.lists(chunks, max_size=6), st.data())
def test_no_text_is_misread(said: list[bytes], data: st.DataObject) -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    assert b"".join(tap.look(piece) for piece in data.draw(cut(said))) == b"".join(said)
    assert (tap.is_done, tap.error, tap.is_broken) == (False, None, False)
    assert (meter.usage, meter.finish_reason) == (None, None)


@given(st.lists(chunks, max_size=4), separators, st.lists(chunks, max_size=4), st.data())
def test_nothing_is_passed_on_after_an_error(
    before: list[bytes], style: tuple[str, str], after: list[bytes], data: st.DataObject
) -> None:
    error = written({"error": {"message": "boom", "code": 500}}, style)
    tap = StreamTap(a_meter(), shows_usage=False)
    passed = []
    for piece in data.draw(cut([*before, error, *after, DONE])):
        passed.append(tap.look(piece))
        if tap.error is not None:
            break
    assert b"".join(passed) == b"".join(before)
    assert json.loads(tap.error or b"") == {"error": {"message": "boom", "code": 500}}
    assert not tap.is_done


def test_an_error_that_comes_with_choices_is_an_error() -> None:
    tap = StreamTap(a_meter(), shows_usage=False)
    assert tap.look(delta("a") + delta("", finish="error", error={"message": "boom", "code": 502})) == delta("a")
    assert tap.error is not None


@pytest.mark.parametrize("pieces", [1, 2])
def test_the_error_of_an_older_vllm_is_an_error(pieces: int) -> None:
    event = b'data: {"object":"error","message":"boom","type":"InternalServerError","param":null,"code":500}\n\n'
    tap = StreamTap(a_meter(), shows_usage=False)
    seen = b"".join(map(tap.look, [delta("a") + event + DONE] if pieces == 1 else [delta("a"), event]))
    assert seen == delta("a")
    assert json.loads(tap.error or b"")["message"] == "boom"
    assert not tap.is_done


@pytest.mark.parametrize("garbage", [b"data: {oops\n\n", b"data: <html>\n\n", b"data: 7\n\n", b"data: {\xff\n\n"])
def test_what_no_client_can_read_is_not_passed_on(garbage: bytes) -> None:
    tap = StreamTap(a_meter(), shows_usage=False)
    assert tap.look(delta("a") + garbage + delta("b") + DONE) == delta("a")
    assert (tap.is_broken, tap.is_done) == (True, False)


def test_comments_pass() -> None:
    tap = StreamTap(a_meter(), shows_usage=False)
    assert tap.look(b": ping\n\n" + delta("a")) == b": ping\n\n" + delta("a")


def test_what_comes_after_done_is_not_passed_on() -> None:
    tap = StreamTap(a_meter(), shows_usage=False)
    assert tap.look(SAID + DONE + b": bye\n\n") == SAID + DONE
    assert tap.is_done


def test_a_usage_that_comes_with_text_stays_in_its_chunk() -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    running = [delta("a", usage={"prompt_tokens": 7, "completion_tokens": n}) for n in (1, 2)]
    assert tap.look(b"".join(running)) == b"".join(running)
    assert meter.usage == Usage(7, 0, 2, 0)
    assert tap.look(STOP + usage(7, 3) + DONE) == STOP + DONE
    assert meter.usage == Usage(7, 0, 3, 0)


def test_of_several_usages_the_last_one_counts_and_none_is_shown() -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    assert tap.look(usage(1, 1) + delta("a", usage=None) + usage(7, 3) + delta("usage", usage=None) + STOP + DONE) == (
        delta("a", usage=None) + delta("usage", usage=None) + STOP + DONE
    )
    assert meter.usage == Usage(7, 0, 3, 0)


@pytest.mark.parametrize("lie", [{"prompt_tokens": -1}, {"prompt_tokens": "7"}, {"prompt_tokens": 10**30}, "many", [7]])
def test_a_usage_that_can_not_be_true_is_none_and_is_hidden_as_well(lie: Any) -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    assert tap.look(STOP + event({"choices": [], "usage": lie}) + DONE) == STOP + DONE
    assert (meter.usage, meter.usage_source) == (None, "none")


@pytest.mark.parametrize("style", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "abort"])
def test_why_it_ended_is_seen_without_a_usage(reason: str, style: tuple[str, str]) -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    tap.look(written({"choices": [{"delta": {}, "finish_reason": reason}]}, style) + delta("", finish=None))
    assert meter.finish_reason == reason


# the end


@pytest.mark.parametrize("alone", [True, False])
def test_done_without_a_finish_reason_is_no_good_end(alone: bool) -> None:
    tap = StreamTap(a_meter(), shows_usage=False)
    passed = tap.look(delta("a")) + tap.look(DONE) if alone else tap.look(delta("a") + DONE)
    assert (passed, tap.is_done, tap.is_unfinished) == (delta("a"), False, True)


def test_an_empty_finish_reason_is_none() -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    assert tap.look(delta("a", finish="") + DONE) == delta("a", finish="")
    assert (meter.finish_reason, tap.is_unfinished) == (None, True)


def choice(index: int, finish: str | None = None) -> bytes:
    return event({"choices": [{"index": index, "delta": {"content": "a"}, "finish_reason": finish}]})


@pytest.mark.parametrize(
    ("events", "is_finished"),
    [
        ([choice(0), choice(1), choice(0, "stop"), choice(1, "length")], True),
        ([choice(0), choice(1), choice(0, "stop")], False),
        ([choice(0), choice(1), choice(0, "stop"), choice(0, "stop")], False),
        ([choice(1, "stop"), choice(0, "stop")], True),
        ([choice(0)], False),
        ([], False),
    ],
)
@pytest.mark.parametrize("at_once", [True, False])
def test_of_several_choices_each_that_began_must_end(events: list[bytes], is_finished: bool, at_once: bool) -> None:
    tap = StreamTap(a_meter(CHAT | {"n": 2}), shows_usage=False)
    events = [*events, DONE]
    for piece in [b"".join(events)] if at_once else events:
        tap.look(piece)
    assert (tap.is_done, tap.is_unfinished) == (is_finished, not is_finished)


@pytest.mark.parametrize(
    ("prompt", "finishes", "is_finished"),
    [("Hi", 1, True), ([1, 2], 1, True), (["a", "b"], 1, False), (["a", "b"], 2, True), ([[1], [2]], 1, False)],
)
def test_each_prompt_of_a_completion_is_a_choice(prompt: Any, finishes: int, is_finished: bool) -> None:
    asked = requests.decode(as_json({"model": "m", "prompt": prompt}), requests.CompletionRequest)
    tap = StreamTap(Meter(a_head(Operation.COMPLETIONS), served(), asked), shows_usage=False)
    several = prompt in (["a", "b"], [[1], [2]])
    begun = b"".join(event({"choices": [{"index": n, "text": "a"}]}) for n in range(2 if several else 1))
    ends = b"".join(event({"choices": [{"index": n, "text": "", "finish_reason": "stop"}]}) for n in range(finishes))
    tap.look(begun + ends + DONE)
    assert tap.is_done is is_finished


def test_the_text_of_a_stream_that_is_over_and_counted_is_not_kept() -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    tap.look(delta("a") * 100 + STOP + usage() + DONE)
    assert meter.transcript is not None
    assert meter.transcript.tokens_seen() == 0


# any events, in any pieces: compared with parsing each event

odd = [
    b"data: {oops\n\n",
    b"data: <html>\n\n",
    b"data: 7\n\n",
    b": ping\n\n",
    b"event: message\ndata: {}\n\n",
    b"data:{}\n\n",
]
odd += [b'data: {"a":\ndata: 1}\n\n', b"data: {}\n\n", b"id: 7\n\n", b"data: [DONE]\n\n", b"data:[DONE]\n\n"]


@st.composite
def any_event(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 9)) == 0:
        return draw(st.sampled_from(odd))
    choice = {
        "index": 0,
        "delta": {"content": draw(texts)},
        "finish_reason": draw(st.sampled_from([None] * 5 + ["stop"])),
    }
    value: dict[str, Any] = {"id": "chatcmpl-1", "choices": draw(st.sampled_from([[], [choice], [choice], [choice]]))}
    if draw(st.integers(0, 3)) == 0:
        value["usage"] = draw(
            st.sampled_from([None, {"prompt_tokens": 7, "completion_tokens": draw(st.integers(0, 9))}, "x"])
        )
    if draw(st.integers(0, 19)) == 0:
        value["error"] = draw(st.sampled_from([None, "boom", {"message": "boom"}]))
    return written(value, draw(separators))


def seen_by_parsing(events: list[bytes], *, shows_usage: bool) -> tuple[bytes, str, Usage | None, str | None, str]:
    """The expected result, by parsing each event: visible bytes, outcome, usage, finish reason, text."""
    passed, usage, finish, text = b"", None, None, ""
    for one in events:
        data = b"\n".join(line[5:].removeprefix(b" ") for line in one.split(b"\n") if line.startswith(b"data:"))
        if data == b"[DONE]":
            return passed + (one if finish else b""), "done" if finish else "unfinished", usage, finish, text
        if data:
            try:
                value = json.loads(data)
                assert isinstance(value, dict)
            except (ValueError, AssertionError):
                return passed, "broken", usage, finish, text
            if value.get("error"):
                return passed, "error", usage, finish, text
            for choice in value.get("choices", []):
                finish = choice["finish_reason"] or finish
                text += choice["delta"]["content"]
            if value.get("usage"):
                usage = parse_usage(value["usage"]) or usage
                if not value.get("choices") and not shows_usage:
                    continue
        passed += one
    return passed, "open", usage, finish, text


@given(st.lists(any_event(), max_size=12), st.booleans(), st.data())
def test_what_is_seen_is_what_a_parser_would_see(events: list[bytes], shows_usage: bool, data: st.DataObject) -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=shows_usage)
    passed, outcome = b"", "open"
    for piece in data.draw(cut(events)):
        passed += tap.look(piece)
        ends = {
            "done": tap.is_done,
            "error": tap.error is not None,
            "broken": tap.is_broken,
            "unfinished": tap.is_unfinished,
        }
        assert sum(ends.values()) <= 1
        if any(ends.values()):
            outcome = next(end for end, is_so in ends.items() if is_so)
            break
    expected = seen_by_parsing(events, shows_usage=shows_usage)
    assert (passed, outcome, meter.finish_reason) == (expected[0], expected[1], expected[3])
    assert meter.usage == expected[2]
    assert meter.transcript is not None
    if outcome != "done" or meter.usage is None:
        assert meter.transcript.text() == expected[4]
        assert meter.transcript.plain_text() == expected[4]
