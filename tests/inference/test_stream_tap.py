"""What is seen of a stream on its way, and what the client sees of it."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import DONE, a_meter, delta, event, usage
from tests.protocol.test_sse import TRICKY

from quarterdeck.inference.stream_tap import StreamTap
from quarterdeck.protocol.usage import Usage

texts = st.text() | st.sampled_from(TRICKY) | st.lists(st.sampled_from(TRICKY), max_size=3).map("".join)
chunks = texts.map(delta)


def written(value: dict[str, Any], separators: tuple[str, str]) -> bytes:
    return b"data: " + json.dumps(value, separators=separators).encode() + b"\n\n"


@st.composite
def cut(draw: st.DrawFn, events: list[bytes]) -> list[bytes]:
    """Whole events, in pieces of as many as may come at once."""
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
    assert tap.look(delta("a") + DONE + b": bye\n\n") == delta("a") + DONE
    assert tap.is_done


def test_a_usage_that_comes_with_text_stays_in_its_chunk() -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    running = [delta("a", usage={"prompt_tokens": 7, "completion_tokens": n}) for n in (1, 2)]
    assert tap.look(b"".join(running)) == b"".join(running)
    assert meter.usage == Usage(7, 0, 2, 0)
    assert tap.look(usage(7, 3) + DONE) == DONE
    assert meter.usage == Usage(7, 0, 3, 0)


def test_of_several_usages_the_last_one_counts_and_none_is_shown() -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    assert tap.look(usage(1, 1) + delta("a", usage=None) + usage(7, 3) + delta("usage", usage=None) + DONE) == (
        delta("a", usage=None) + delta("usage", usage=None) + DONE
    )
    assert meter.usage == Usage(7, 0, 3, 0)


@pytest.mark.parametrize("lie", [{"prompt_tokens": -1}, {"prompt_tokens": "7"}, {"prompt_tokens": 10**30}, "many", [7]])
def test_a_usage_that_can_not_be_true_is_none_and_is_hidden_as_well(lie: Any) -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    assert tap.look(event({"choices": [], "usage": lie}) + DONE) == DONE
    assert (meter.usage, meter.usage_source) == (None, "none")


@pytest.mark.parametrize("style", [(",", ":"), (", ", ": ")])
@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "abort"])
def test_why_it_ended_is_seen_without_a_usage(reason: str, style: tuple[str, str]) -> None:
    meter = a_meter()
    tap = StreamTap(meter, shows_usage=False)
    tap.look(written({"choices": [{"delta": {}, "finish_reason": reason}]}, style) + delta("", finish=None))
    assert meter.finish_reason == reason
