"""Events are split correctly however the bytes arrive, and inspected without misreading texts."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.protocol.tricky import TRICKY

from quarterdeck.errors import EngineError
from quarterdeck.protocol import sse

texts = st.text() | st.sampled_from(TRICKY) | st.lists(st.sampled_from(TRICKY)).map("".join)
json_events = st.fixed_dictionaries({"choices": st.lists(texts)}).map(
    lambda value: b"data: " + json.dumps(value).encode() + b"\n\n"
)
one_event = json_events | st.sampled_from([b": ping\n\n", b"event: message\ndata: {}\n\n", b"data:{}\n\n", sse.DONE])
streams = st.lists(one_event, max_size=8)


@st.composite
def cut_streams(draw: st.DrawFn) -> tuple[list[bytes], list[bytes]]:
    """Events, and their bytes in pieces cut anywhere, with either kind of line end."""
    events = draw(streams)
    whole = b"".join(events)
    if draw(st.booleans()):
        whole = whole.replace(b"\n", b"\r\n")
    cuts = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=20)))
    return events, [whole[a:b] for a, b in zip([0, *cuts], [*cuts, len(whole)], strict=True)]


@given(cut_streams())
def test_however_a_stream_is_cut_its_events_are_the_same(case: tuple[list[bytes], list[bytes]]) -> None:
    events, pieces = case
    splitter = sse.EventSplitter()
    found = b"".join(splitter.feed(piece) for piece in pieces)
    assert found == b"".join(events)
    assert list(sse.events(found)) == events
    assert splitter.rest == b""


@given(cut_streams())
def test_every_piece_that_comes_out_is_whole(case: tuple[list[bytes], list[bytes]]) -> None:
    splitter = sse.EventSplitter()
    for piece in case[1]:
        assert splitter.feed(piece)[-2:] in (b"", b"\n\n")


def test_a_stream_that_comes_byte_by_byte_is_passed_on_event_by_event() -> None:
    splitter = sse.EventSplitter()
    found = [splitter.feed(bytes([byte])) for byte in b"data: 1\r\n\r\ndata: 2\r\n\r\n"]
    assert [event for event in found if event] == [b"data: 1\n\n", b"data: 2\n\n"]


def test_an_event_is_not_held_back_for_what_follows_it() -> None:
    splitter = sse.EventSplitter()
    assert splitter.feed(b"data: 1\n\ndata: 2\n\ndata:") == b"data: 1\n\ndata: 2\n\n"
    assert splitter.feed(b" 3\r\n\r\nda\r") == b"data: 3\n\n"


@pytest.mark.parametrize("filler", [b"x", b"x\r"])
def test_an_event_that_never_ends_is_an_error_and_not_memory(filler: bytes) -> None:
    splitter = sse.EventSplitter()
    piece = filler * (512 * 1024 // len(filler))
    with pytest.raises(sse.EventTooLongError):
        for _ in range(10):
            splitter.feed(piece)


def test_the_data_of_an_event_is_its_data_lines() -> None:
    assert sse.data(b'event: error\nid: 7\ndata: {"a":\ndata:1}\n\n') == b'{"a":\n1}'
    assert sse.data(b": a comment\n\n") == b""


@pytest.mark.parametrize(
    ("event", "value"),
    [
        (b'data: {"a":1}\n\n', {"a": 1}),
        (b"data: [DONE]\n\n", None),
        (b": ping\n\n", None),
        (b"data: [1]\n\n", None),
        (b"data: {\n\n", None),
        (b'data: {"a":"\xff"}\n\n', None),
        (b"data: " + b"[" * 100_000 + b"\n\n", None),
        (b'data: {"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n\n", None),
    ],
)
def test_what_is_no_json_object_is_none(event: bytes, value: Any) -> None:
    assert sse.parse(event) == value


ODD = [
    *(b": ping\n\n", b"event: message\ndata: {}\n\n", b"data:{}\n\n", b"data: {\n\n", b"data: }\n\n", b"\n\n", b"\n"),
    *(b'data: {"a":\ndata: 1}\n\n', b"data: {}\n\n\n", b"data: {}\n", b"{}\n\n", b"data: 7\n\n", b"data: [DONE]\n\n"),
]


@given(st.lists(json_events | st.sampled_from(ODD), min_size=1, max_size=4).map(b"".join))
def test_a_row_of_objects_is_told_from_all_else(whole: bytes) -> None:
    row = whole.removesuffix(sse.DONE)
    *lines, last = row.split(b"\n")
    is_row = all(line.startswith(b"data: {") and line.endswith(b"}") for line in lines[::2])
    is_row &= not any([*lines[1::2], last]) and len(lines) % 2 == 0
    assert sse.end_of_objects(whole) == (len(row) if is_row else -1)


@pytest.mark.parametrize(
    ("whole", "end"),
    [
        (b"data: [DONE]\n\n", 14),
        (b"data:[DONE]\n\n", 13),
        (b"data: {}\n\ndata: [DONE]\n\n", 24),
        (b"data: {}\n\ndata:[DONE]\n\n", 23),
        (b"data: [DONE]\n\n: bye\n\n", 14),
        (b"\ndata: [DONE]\n\n", 15),
        (b"data: {}\n\n", -1),
        (b'data: "data: [DONE]\n\n', -1),
        (b": data: [DONE]\n\n", -1),
        (b"data: x[DONE]\n\ndata: [DONE]\n\n", 29),
        (b"", -1),
    ],
)
def test_done_is_found_where_it_is_an_event(whole: bytes, end: int) -> None:
    assert sse.end_of_done(whole) == end


@given(st.lists(json_events))
def test_no_text_is_taken_for_the_end(events: list[bytes]) -> None:
    assert sse.end_of_done(b"".join(events)) == -1


@given(st.lists(json_events), st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : ")]), st.lists(json_events))
def test_a_usage_and_an_error_are_never_overlooked(
    before: list[bytes], separators: tuple[str, str], after: list[bytes]
) -> None:
    for name in ("usage", "error"):
        value = json.dumps({"id": "x", name: {"prompt_tokens": 1}}, separators=separators).encode()
        whole = b"".join([*before, b"data: " + value + b"\n\n", b'data: {"usage":null}\n\n', *after])
        if name == "error":
            assert sse.may_hold_error(whole)
        else:
            found, at = [], len(whole)
            while (at := sse.usage_before(whole, at)) >= 0:
                start, end = sse.bounds(whole, at)
                found.append(sse.parse(whole[start:end]))
                at = start
            assert json.loads(value) in found


@pytest.mark.parametrize(
    ("event", "is_garbage"),
    [
        (b'data: {"id":"x","object":"chat.comp\n\n', True),
        (b"data: null\n\n", True),
        (b'data: {"id":"x"}\n\n', False),
        (b'data: {"id":"x"} \n\n', False),
        (b": still here\n\n", False),
        (b"event: ping\n\n", False),
        (b"data: [DONE]\n\n", False),
    ],
)
@given(st.lists(json_events), st.lists(json_events))
def test_what_no_client_can_read_is_found(
    event: bytes, is_garbage: bool, before: list[bytes], after: list[bytes]
) -> None:
    whole = b"".join([*before, event, *after])
    assert sse.garbage_at(whole) == (len(b"".join(before)) if is_garbage else -1)
    assert sse.may_hold_garbage(whole) or not is_garbage


def test_a_usage_that_is_null_is_none() -> None:
    assert sse.usage_before(b'data: {"usage":null}\n\ndata: {"usage": null}\n\n', 100) == -1


def test_an_error_event_is_an_envelope() -> None:
    event = sse.error_event(EngineError("It broke.", code="engine_error"))
    assert sse.parse(event) == {
        "error": {"message": "It broke.", "type": "engine_error", "param": None, "code": "engine_error"}
    }
    assert event.endswith(b"\n\n")
