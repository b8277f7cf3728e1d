"""Two streams are joined to one."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import DONE, event, usage

from quarterdeck.inference.metering.transcript import Transcript
from quarterdeck.inference.streaming.seam import Seam
from quarterdeck.protocol import sse

FIRST = event({"id": "one", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": []})


def second(content: str | None = None, finish: str | None = None, **more: Any) -> bytes:
    said: dict[str, Any] = {"content": content} if content is not None else {}
    choice = {"index": 0, "delta": said | more, "finish_reason": finish}
    return event({"id": "two", "object": "chat.completion.chunk", "created": 2, "model": "n", "choices": [choice]})


def a_seam(tokens: int = 0, repeated: str = "") -> Seam:
    return Seam(FIRST, tokens=tokens, repeated=repeated)


def parsed(events: bytes) -> list[dict[str, Any]]:
    return [chunk for chunk in map(sse.parse, sse.events(events)) if chunk is not None]


def test_who_answers_does_not_change() -> None:
    joined = a_seam().join(second("a") + second(finish="stop") + DONE)
    assert [(chunk["id"], chunk["created"], chunk["model"]) for chunk in parsed(joined)] == [("one", 1, "m")] * 2
    assert joined.endswith(DONE)
    assert [chunk["choices"][0]["finish_reason"] for chunk in parsed(joined)] == [None, "stop"]


def test_the_role_is_said_once() -> None:
    assert a_seam().join(second("", role="assistant")) == b""
    (chunk,) = parsed(a_seam().join(second("a", role="assistant")))
    assert chunk["choices"][0]["delta"] == {"content": "a"}


def test_comments_errors_and_what_is_no_json_are_left_as_they_are() -> None:
    said = b": ping\n\n" + event({"error": {"message": "boom"}}) + b"data: {oops\n\n"
    assert a_seam().join(said) == said


def test_what_was_said_before_is_output_and_no_prompt() -> None:
    (chunk,) = parsed(a_seam(tokens=5).join(usage(20, 3, prompt_tokens_details={"cached_tokens": 16})))
    assert chunk["usage"] == {
        "prompt_tokens": 15,
        "completion_tokens": 8,
        "total_tokens": 23,
        "prompt_tokens_details": {"cached_tokens": 15},
    }


@pytest.mark.parametrize("odd", ["many", [1], {"prompt_tokens": "7", "completion_tokens": 1}, {"prompt_tokens": 7}, {}])
def test_an_odd_usage_is_left_as_it_is(odd: Any) -> None:
    (chunk,) = parsed(a_seam(tokens=5).join(event({"choices": [], "usage": odd})))
    assert chunk["usage"] == odd


@pytest.mark.parametrize("odd", [{"choices": [7]}, {"choices": {"a": 1}}, {"choices": [{"delta": "x", "text": 7}]}])
def test_odd_chunks_break_nothing(odd: Any) -> None:
    a_seam(repeated=" ").join(event(odd))


@given(st.text("ab ", max_size=6), st.lists(st.text("ab ", max_size=3), max_size=6))
def test_what_is_repeated_is_not_passed_on_again(repeated: str, pieces: list[str]) -> None:
    seam = a_seam(repeated=repeated)
    transcript = Transcript()
    for piece in pieces:
        transcript.add(seam.join(second(piece)))
    said, again = "".join(pieces), 0
    while again < min(len(said), len(repeated)) and said[again] == repeated[again]:
        again += 1
    assert transcript.text() == said[again:]


def test_completions_are_joined_as_well() -> None:
    said = event({"id": "cmpl-2", "choices": [{"index": 0, "text": " \n there", "finish_reason": None}]})
    (chunk,) = parsed(Seam(event({"id": "cmpl-1"}), tokens=0, repeated=" \n").join(said))
    assert (chunk["id"], chunk["choices"][0]["text"]) == ("cmpl-1", " there")
    assert msgspec.json.decode(msgspec.json.encode(chunk)) == chunk
