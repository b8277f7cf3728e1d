"""What engines report of audio and images, and vLLM's transcripts in OpenAI's events."""

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.protocol import sse
from quarterdeck.protocol.media_answers import Reported, TranscriptEvents, read_answer
from quarterdeck.protocol.usage import Usage


@pytest.mark.parametrize(
    ("answer", "reported"),
    [
        ({"text": "a", "usage": {"type": "duration", "seconds": 2}}, Reported(audio_ms=2000)),
        ({"text": "a", "duration": "1.5"}, Reported(audio_ms=1500)),
        ({"text": "a", "duration": 0.0001}, Reported(audio_ms=1)),
        ({"text": "a", "duration": 3, "usage": {"type": "duration", "seconds": 4}}, Reported(audio_ms=4000)),
        (
            {"usage": {"type": "tokens", "input_tokens": 5, "output_tokens": 7, "total_tokens": 12}},
            Reported(usage=Usage(5, 0, 7, 0)),
        ),
        ({"created": 1, "data": [{"b64_json": "x"}, {"url": "y"}]}, Reported(images=2)),
        *[({"duration": odd}, Reported()) for odd in (True, None, "nan", "-1", "1e400", {}, [], "x")],
        ({"usage": {"type": "duration", "seconds": "x"}}, Reported()),
        ({"usage": 7, "data": "x"}, Reported()),
        ("only text", Reported()),
        ([1, 2], Reported()),
    ],
)
def test_what_an_engine_reports(answer: Any, reported: Reported) -> None:
    assert read_answer(msgspec.json.encode(answer)).reported == reported


@pytest.mark.parametrize("text", [b"", b"{", b"\xff\xfe", b'"\xff"'])
def test_what_is_not_json_is_an_error(text: bytes) -> None:
    with pytest.raises(ValueError):
        read_answer(text)


@pytest.mark.parametrize("answer", [{"error": {"message": "x"}}, {"object": "error"}, {"type": "error"}])
def test_an_error_is_told_from_an_answer(answer: Any) -> None:
    assert read_answer(msgspec.json.encode(answer)).is_error
    assert not read_answer(b'{"text": "the error"}').is_error


def chunk(text: str = "", **fields: Any) -> bytes:
    choices = [{"delta": {"content": text}, "finish_reason": None}] if text or not fields else []
    return sse.event({"object": "transcription.chunk", "model": "m", "choices": choices, **fields})


USAGE = {"prompt_tokens": 30, "completion_tokens": 2, "total_tokens": 32}


@given(st.lists(st.integers(0, 3), max_size=4))
def test_vllms_chunks_become_openais_events_in_any_cut(cuts: list[int]) -> None:
    events = [chunk("Hello"), chunk(" world"), chunk(usage=USAGE), sse.DONE]
    edges = sorted({0, len(events), *cuts})
    mapper = TranscriptEvents()
    whole = b"".join(mapper.convert(b"".join(events[start:end])) for start, end in itertools.pairwise(edges))
    found = [sse.parse(each) for each in sse.events(whole)]
    assert found == [
        {"type": "transcript.text.delta", "delta": "Hello"},
        {"type": "transcript.text.delta", "delta": " world"},
        {
            "type": "transcript.text.done",
            "text": "Hello world",
            "usage": {"type": "tokens", "input_tokens": 30, "output_tokens": 2, "total_tokens": 32},
        },
    ]
    assert mapper.usage == Usage(30, 0, 2, 0) and mapper.is_complete


def test_a_stream_without_its_end_is_not_complete() -> None:
    mapper = TranscriptEvents()
    assert mapper.is_complete
    mapper.convert(chunk("Hello"))
    assert not mapper.is_complete


def test_openais_own_events_stay_as_they_are() -> None:
    events = sse.event({"type": "transcript.text.delta", "delta": "a"}) + sse.DONE
    mapper = TranscriptEvents()
    assert mapper.convert(events) == events and mapper.is_complete
