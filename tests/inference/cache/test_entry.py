"""Which answers are stored, and their encoding."""

import json
import zlib
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.cache.samples import SSE, STREAM, a_finished, kept, stream_entry
from tests.inference.making import DONE, delta, usage

from quarterdeck.inference.cache.entry import (
    MAX_UNPACKED,
    Entry,
    decode,
    encode,
    make_entry,
)

LONG = b"".join(delta(f" {at}") for at in range(32)) + delta(finish="stop") + usage() + DONE


# codec


@given(
    st.builds(
        Entry,
        made=st.floats(0, 4e9),
        model=st.text(),
        body=st.binary(max_size=200) | st.sampled_from((STREAM, LONG, LONG + b"\x00")),
        content_type=st.binary(),
        is_stream=st.booleans(),
        cost=st.decimals(min_value=0, max_value=10**12, places=18, allow_nan=False),
        input_tokens=st.integers(0, 2**31),
        output_tokens=st.integers(0, 2**31),
        response_id=st.none() | st.text(),
        finish_reason=st.none() | st.text(),
    )
)
def test_an_entry_survives_its_bytes(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@given(st.binary(max_size=300))
def test_other_bytes_are_no_entry(blob: bytes) -> None:
    assert decode(blob) is None or encode(kept(decode(blob)))


def test_a_stream_is_stored_without_what_its_events_repeat() -> None:
    entry = kept(stream_entry(LONG))
    assert 3 * len(encode(entry)) < len(LONG)
    assert kept(decode(encode(entry))) == entry


def test_a_body_is_stored_as_it_is() -> None:
    entry = Entry(1.0, "m", LONG)
    assert LONG in encode(entry)


def test_a_stream_that_unpacks_to_another_size_is_none() -> None:
    stored = msgspec.msgpack.decode(encode(kept(stream_entry(LONG))))
    packed, size = stored[3], stored[11]
    bomb = zlib.compress(bytes(MAX_UNPACKED + 1))
    for changed in (
        *((packed, wrong) for wrong in (-1, 0, size - 1, size + 1, 10**12)),
        *((wrong, size) for wrong in (packed + b"x", packed[:-1], b"", LONG, bomb)),
        (bomb, MAX_UNPACKED + 1),  # correct, but larger than any policy allows
    ):
        stored[3], stored[11] = changed
        assert decode(msgspec.msgpack.encode(stored)) is None
    stored[3], stored[11] = packed, size
    assert kept(decode(msgspec.msgpack.encode(stored))).body == LONG


def test_no_damaged_byte_changes_a_streams_answer() -> None:
    blob = encode(kept(stream_entry(LONG)))
    for at, byte in enumerate(blob):
        for damaged in {0, byte ^ 1, byte ^ 0x80, 255} - {byte}:
            found = decode(blob[:at] + bytes((damaged,)) + blob[at + 1 :])
            assert found is None or not found.is_stream or found.body == LONG


def test_an_entry_cut_short_is_none() -> None:
    blob = encode(kept(stream_entry()))
    assert all(decode(blob[:end]) is None for end in range(len(blob)))


def test_what_an_earlier_version_has_written_is_none() -> None:
    earlier = msgspec.structs.astuple(kept(stream_entry()))
    assert decode(b"\x01" + msgspec.msgpack.encode((*earlier[:5], ((1, 2),), *earlier[5:]))) is None
    assert decode(msgspec.msgpack.encode((1, *earlier))) is None
    assert decode(msgspec.msgpack.encode((2, *earlier[:10]))) is None
    assert decode(msgspec.msgpack.encode((3, *earlier))) is None  # a stream that is not compressed


# which answers are stored


def test_a_whole_stream_is_kept_with_its_price() -> None:
    entry = kept(stream_entry())
    assert (entry.body, entry.is_stream, entry.cost) == (STREAM, True, Decimal("0.0000099"))
    assert (entry.finish_reason, entry.response_id, entry.input_tokens) == ("stop", "chatcmpl-1", 30)


@pytest.mark.parametrize(
    "changes",
    [{"status": s} for s in ("error", "cancelled", "lost")] + [{"http_status": 500}, {"resumed": 1}, {"cache": "hit"}],
    ids=str,
)
def test_what_went_wrong_is_not_kept(changes: dict[str, Any]) -> None:
    assert stream_entry(**changes) is None


@pytest.mark.parametrize(
    "body",
    [
        delta("Hel") + delta(finish="stop"),  # no [DONE]
        delta("Hel") + DONE,
        delta("Hel") + delta(finish="abort") + DONE,
        delta("Hel") + delta(finish="content_filter") + DONE,
        b"",
    ],
    ids=["not done", "no finish", "aborted", "filtered", "empty"],
)
def test_what_is_not_whole_is_not_kept(body: bytes) -> None:
    assert stream_entry(body) is None


@pytest.mark.parametrize("reason", ["stop", "length", "tool_calls", "function_call"])
def test_an_answer_that_ended_as_the_next_would_is_kept(reason: str) -> None:
    assert stream_entry(delta("x") + delta(finish=reason) + DONE) is not None


def test_every_choice_must_have_ended() -> None:
    record = a_finished()
    assert make_entry(record, STREAM, SSE, choices=2) is None
    assert make_entry(record, delta(finish="stop") + STREAM, SSE, choices=2) is not None
    assert make_entry(record, delta(finish="abort") + delta(finish="stop") + STREAM, SSE, choices=2) is None


@pytest.mark.parametrize("separators", [(",", ":"), (", ", ": ")], ids=["compact", "spaced"])
def test_however_an_engine_writes_json_its_finish_is_found(separators: tuple[str, str]) -> None:
    def body(reason: str | None) -> bytes:
        return json.dumps({"choices": [{"finish_reason": reason}], "x": None}, separators=separators).encode()

    def entry(reason: str | None) -> Entry | None:
        return make_entry(a_finished(stream=False), body(reason), b"application/json")

    assert entry("stop") is not None
    assert entry("abort") is entry("") is entry(None) is entry('"') is None
    trailing = b"".join(b"data: %b\n\n" % body(reason) for reason in (None, "stop", None)) + DONE
    assert stream_entry(trailing) is not None


def test_a_finish_reason_that_is_only_spoken_of_does_not_count() -> None:
    assert stream_entry(delta('"finish_reason": "stop"') + DONE) is None


def test_an_embedding_has_no_finish() -> None:
    record = a_finished(stream=False, operation="embeddings", finish_reason=None)
    assert make_entry(record, b'{"data": []}', b"application/json", choices=0) is not None
    assert make_entry(record, b'{"data": []}', b"application/json") is None


def test_a_clock_that_went_back_makes_no_negative_age() -> None:
    assert kept(stream_entry(ended=100.0)).age(99.0) == 0
