"""Event streams as other servers write them, however they are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.protocol.foreign import json_values
from quarterdeck.protocol.foreign.events import COMMENT, EventReader
from quarterdeck.protocol.sse import MAX_EVENT_BYTES, EventTooLongError


def read(said: bytes, step: int = 0) -> list[tuple[bytes, bytes]]:
    reader, step = EventReader(), step or len(said) or 1
    found = [event for at in range(0, len(said), step) for event in reader.feed(said[at : at + step])]
    return [(event.name, event.data) for event in found + reader.finish()]


@pytest.mark.parametrize(
    ("said", "events"),
    [
        (b'data: {"a":1}\n\n', [(b"", b'{"a":1}')]),
        (b'data:{"a":1}\ndata: {"a":2}\n', [(b"", b'{"a":1}'), (b"", b'{"a":2}')]),
        (b'{"a":1}\n{"a":2}', [(b"", b'{"a":1}'), (b"", b'{"a":2}')]),
        (b'data: {\ndata: "a": {}\ndata: }\n\n', [(b"", b'{\n"a": {}\n}')]),
        (b'data: {"a": {}\ndata: }\n\n', [(b"", b'{"a": {}\n}')]),
        (b'event: error\r\ndata: {"a":1}\r\n\r\ndata: {"a":2}\r\r', [(b"error", b'{"a":1}'), (b"", b'{"a":2}')]),
        (b"\xef\xbb\xbfdata: [DONE]", [(b"", b"[DONE]")]),
        (b": hb\n\n", [(COMMENT, b": hb")]),
        (b"id: 1\nretry: 2\nwhat\n\n", []),
        (b"data: text\n\n", [(b"", b"text")]),
        (b'data: {"a', []),
        (b"data: text", []),
        (b"event: ping\n\ndata:\n\n", []),
        (b'DATA: data: {"a":1}\n', [(b"", b'{"a":1}')]),
    ],
)
@pytest.mark.parametrize("step", [0, 1, 2, 3])
def test_events_are_read_by_their_lines(said: bytes, events: list[tuple[bytes, bytes]], step: int) -> None:
    assert read(said, step) == events


@given(st.lists(st.sampled_from([b"data: ", b'{"a":1}', b"\n", b"\r", b"\r\n", b": x", b"[DONE]", b"event: e", b"{"])))
def test_a_stream_reads_the_same_however_it_is_cut(parts: list[bytes]) -> None:
    said = b"".join(parts)
    assert read(said, 1) == read(said)


def test_an_event_without_an_end_is_bounded() -> None:
    reader = EventReader()
    with pytest.raises(EventTooLongError):
        for _ in range(MAX_EVENT_BYTES // 65536 + 2):
            reader.feed(b"x" * 65536)
    reader = EventReader()
    with pytest.raises(EventTooLongError):
        for _ in range(MAX_EVENT_BYTES // 65536 + 2):
            reader.feed(b"data: " + b"x" * 65536 + b"\n")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a":NaN,"b":-Infinity}', {"a": None, "b": None}),
        (b'{"a":"\xff"}', {"a": "\ufffd"}),
        (b'"\\ud83d"', "\ud83d"),
        (b"{", json_values.INVALID),
        (b"[" * 100_000, json_values.INVALID),
    ],
)
def test_json_is_read_leniently(text: bytes, value: object) -> None:
    assert json_values.decode(text) == value


def test_halves_of_a_character_are_written_as_one() -> None:
    assert json_values.encode({"a": "\ud83d\ude00", "b": ["\ud83d"]}).decode() == '{"a":"😀","b":["�"]}'
