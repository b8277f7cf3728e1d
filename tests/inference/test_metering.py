"""What the meter sees in an answer, what the client sees of it, and the record that comes of both."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import (
    CHAT,
    DONE,
    a_head,
    a_meter,
    a_principal,
    an_endpoint,
    answer,
    as_json,
    delta,
    event,
    usage,
)
from tests.protocol.test_sse import TRICKY

from quarterdeck.errors import EngineError
from quarterdeck.inference.metering import MAX_TEXT, Meter, StreamTap, error_code
from quarterdeck.protocol.usage import Usage, decode_answer
from quarterdeck.record import Attempt

texts = st.text() | st.sampled_from(TRICKY) | st.lists(st.sampled_from(TRICKY), max_size=3).map("".join)
chunks = texts.map(delta)


def read(meter: Meter, body: bytes) -> None:
    meter.read_answer(decode_answer(body), body)


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


# records


def test_a_whole_answer_gives_usage_reason_and_id() -> None:
    meter = a_meter()
    read(meter, answer())
    assert (meter.usage, meter.finish_reason, meter.response_id) == (Usage(7, 0, 3, 0), "stop", "chatcmpl-1")
    assert meter.transcript is None


def test_a_whole_answer_without_a_usage_leaves_its_text_to_be_counted() -> None:
    meter = a_meter()
    read(meter, answer("Hello there", usage=None))
    assert meter.usage is None
    assert meter.transcript is not None
    assert meter.transcript.text() == "Hello there"


def test_a_record_says_all_that_is_known() -> None:
    asked = CHAT | {"stream": True, "max_tokens": 9, "temperature": 0.5, "top_p": 0.9, "seed": 7, "user": "u-1"}
    asked |= {"metadata": {"session_id": "s-1", "other": 1}}
    head = a_head(principal=a_principal(team="red"), started=10.0)
    meter = a_meter(asked, head=head, endpoint=an_endpoint(), engine_started=11.0, first_token=12.0)
    meter.attempts.append(Attempt("e#1", 11.0, 13.0, 200))
    meter.take_usage(Usage(1000, 400, 100, 30))
    record = meter.record("ok", 13.0)
    assert (record.id, record.org, record.team, record.key, record.key_name) == (
        head.request_id,
        "default",
        "red",
        "key_1",
        "laptop",
    )
    assert (record.operation, record.model, record.endpoint, record.stream) == ("chat", "m", "e#1", True)
    assert (record.started, record.first_token, record.ended) == (10.0, 12.0, 13.0)
    assert (record.status, record.http_status, record.error_code) == ("ok", 200, None)
    assert (record.input_tokens, record.cached_tokens, record.output_tokens, record.reasoning_tokens) == (
        1000,
        400,
        100,
        30,
    )
    assert record.cost == (600 * Decimal(1) + 400 * Decimal("0.5") + 100 * Decimal(2)) / 1_000_000
    assert (record.price_input, record.price_cached, record.price_output) == (Decimal(1), Decimal("0.5"), Decimal(2))
    assert (record.user, record.session, record.max_tokens) == ("u-1", "s-1", 9)
    assert (record.temperature, record.top_p, record.seed, record.usage_source) == (0.5, 0.9, 7, "engine")
    assert record.attempts == (Attempt("e#1", 11.0, 13.0, 200),)


@pytest.mark.parametrize(
    ("asked", "field", "value"),
    [
        ({"user": "a", "safety_identifier": "b"}, "user", "b"),
        ({"user": "x" * 100_000}, "user", "x" * MAX_TEXT),
        ({"metadata": {"session_id": "y" * 100_000}}, "session", "y" * MAX_TEXT),
        ({"metadata": {"session_id": 7}}, "session", None),
        ({"metadata": {}}, "session", None),
        ({"max_tokens": 5, "max_completion_tokens": 7}, "max_tokens", 7),
    ],
)
def test_what_a_caller_says_of_itself_is_taken_in_bounds(asked: dict[str, Any], field: str, value: object) -> None:
    assert getattr(a_meter(CHAT | asked).record("ok", 1.0), field) == value


def test_what_an_engine_says_is_taken_in_bounds() -> None:
    meter = a_meter()
    read(meter, answer(id="i" * 100_000))
    assert meter.record("ok", 1.0).response_id == "i" * MAX_TEXT


def test_a_request_that_no_engine_saw_costs_nothing() -> None:
    record = a_meter().record("error", 1.0, http_status=503, error="engine_unavailable")
    assert (record.cost, record.usage_source, record.endpoint, record.first_token) == (Decimal(0), "none", "", None)
    assert (record.status, record.http_status, record.error_code) == ("error", 503, "engine_unavailable")


def test_a_note_guesses_what_a_gateway_that_dies_now_could_not_count() -> None:
    meter = a_meter(endpoint=an_endpoint(), engine_started=1.0)
    body = as_json(CHAT)
    before = meter.note(2.0, body)
    assert (before.status, before.input_tokens, before.usage_source, before.cost) == ("lost", 0, "none", Decimal(0))
    meter.first_token = 2.0
    tap = StreamTap(meter, shows_usage=False)
    for _ in range(5):
        tap.look(delta("word "))
    during = meter.note(3.0, body)
    assert (during.input_tokens, during.output_tokens, during.usage_source) == (-(-len(body) // 4), 5, "estimated")
    assert during.cost > 0
    assert meter.usage is None
    tap.look(usage(7, 3))
    after = meter.note(4.0, body)
    assert (after.input_tokens, after.output_tokens, after.usage_source) == (7, 3, "engine")


def test_an_error_has_a_word() -> None:
    assert error_code(EngineError("x", code="because")) == "because"
    assert error_code(EngineError("x")) == "engine_error"
