"""The text of an answer, within bounds."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.inference.making import DONE, answer, as_json, delta, event, usage

from quarterdeck.inference.metering.transcript import FOLD_BYTES, MAX_TEXT_CHARACTERS, Transcript, generated_text


@given(st.lists(st.text(max_size=20), max_size=20))
def test_the_text_is_what_the_deltas_said(words: list[str]) -> None:
    transcript = Transcript()
    for word in words:
        transcript.add(delta(word))
    transcript.add(delta(finish="stop") + usage() + DONE)
    assert transcript.text() == "".join(words)
    assert transcript.text() == "".join(words)


def test_a_long_text_is_folded_on_its_way() -> None:
    transcript = Transcript()
    for _ in range(1000):
        transcript.add(delta("word "))
        assert transcript._size < FOLD_BYTES + 1000
        assert sum(map(len, transcript._pieces)) == transcript._size
    assert transcript.text() == "word " * 1000


def test_a_text_that_is_too_long_is_let_go_and_its_tokens_are_still_known() -> None:
    transcript = Transcript()
    for _ in range(300):
        transcript.add(delta("x" * 1024))
    assert transcript.text() is None
    assert transcript.tokens_seen() == 300
    assert len(transcript._text or "") <= MAX_TEXT_CHARACTERS


def test_tokens_are_guessed_without_parsing() -> None:
    transcript = Transcript()
    for n in range(100):
        transcript.add(delta("word"))
        assert transcript.tokens_seen() == n + 1


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"choices": [{"text": "a"}, {"text": "b"}]}, "ab"),
        ({"choices": [{"delta": {"content": "a"}}]}, "a"),
        ({"choices": [{"message": {"content": "a"}}]}, "a"),
        ({"choices": [{"delta": {"reasoning_content": "think", "content": "a"}}]}, "thinka"),
        ({"choices": [{"delta": {"reasoning": "think"}}]}, "think"),
        ({"choices": [{"delta": {"reasoning": "think", "reasoning_content": "think"}}]}, "think"),
        (
            {"choices": [{"delta": {"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}, {"id": "x"}, 7]}}]},
            "f{}",
        ),
        ({"choices": [{"delta": None}, {"delta": {"content": None}}, 7, {"text": 7}]}, ""),
        ({"choices": None}, ""),
        ({"choices": {"a": 1}}, ""),
        ({}, ""),
        (None, ""),
    ],
)
def test_all_that_was_generated_is_text(said: Any, text: str) -> None:
    assert generated_text(said) == text


def test_events_without_text_and_broken_ones_are_passed_over() -> None:
    transcript = Transcript()
    transcript.add(b": ping\n\ndata: {oops\n\n" + event([1]) + delta("a"))
    assert transcript.text() == "a"


def test_a_whole_answer_has_a_text_as_well() -> None:
    transcript = Transcript()
    transcript.add_answer(answer("Hello"))
    assert transcript.text() == "Hello"
    other = Transcript()
    other.add_answer(as_json([1]))
    assert other.text() == ""


def test_content_of_one_choice_is_plain() -> None:
    transcript = Transcript()
    transcript.add(delta("") + delta("Hello ") + b": ping\n\n" + delta("there", tool_calls=None) + delta(finish="stop"))
    transcript.add(event({"choices": [{"index": 0, "text": "!"}]}) + usage() + DONE)
    assert transcript.plain_text() == transcript.text() == "Hello there!"


@pytest.mark.parametrize(
    "said",
    [
        {"index": 1, "delta": {"content": "b"}},
        {"index": 0, "delta": {"reasoning_content": "b"}},
        {"index": 0, "delta": {"reasoning": "b"}},
        {"index": 0, "delta": {"refusal": "b"}},
        {"index": 0, "delta": {"tool_calls": [{"index": 0, "function": {"name": "f"}}]}},
        {"index": 0, "delta": {"function_call": {"name": "f"}}},
        {"index": 0, "delta": {"content": ["odd"]}},
        {"index": 0, "text": "a", "delta": {"content": "b"}},
        {"index": 0, "message": {"content": "b"}},
        {"index": "0", "text": "b"},
    ],
)
def test_anything_else_is_not(said: dict[str, Any]) -> None:
    transcript = Transcript()
    transcript.add(delta("a") + event({"choices": [said]}) + delta("c"))
    assert transcript.plain_text() is None
    text = transcript.text()
    assert text is not None
    assert text.startswith("a")
    assert text.endswith("c")


def test_two_choices_in_one_chunk_are_not_plain_and_are_counted() -> None:
    transcript = Transcript()
    transcript.add(event({"choices": [{"index": 0, "text": "a"}, {"index": 1, "text": "b"}]}))
    assert transcript.plain_text() is None
    assert transcript.text() == "ab"


@pytest.mark.parametrize(
    "choices",
    [
        [{"index": 0, "delta": {"content": ""}, "token_ids": [1, 2]}],
        [{"index": 0, "delta": {"content": ""}, "logprobs": {"content": [{"token": "a"}, {"token": "b"}]}}],
        [{"index": 0, "text": "", "logprobs": {"tokens": ["a", "b"]}}],
        [{"index": 0, "text": "", "token_ids": [1]}, {"index": 1, "text": "", "token_ids": [1]}],
        [{"index": 1, "text": "a", "token_ids": [1, 2], "logprobs": {"tokens": ["a", "b"]}}],
    ],
)
def test_tokens_that_are_ahead_of_the_text_are_counted(choices: list[dict[str, Any]]) -> None:
    transcript = Transcript()
    for _ in range(3):
        transcript.add(event({"choices": choices}))
    assert transcript.tokens_listed() == 6


def test_an_ordinary_stream_lists_no_tokens() -> None:
    transcript = Transcript()
    transcript.add(delta("a", logprobs=None) + delta("b") + delta(finish="stop") + usage() + DONE)
    assert transcript.tokens_listed() == 0
    assert transcript.plain_text() == "ab"


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"refusal": "No."}, "No."),
        ({"function_call": {"name": "f", "arguments": "{}"}}, "f{}"),
        ({"tool_calls": [{"type": "custom", "custom": {"name": "f", "input": "x"}}]}, "fx"),
    ],
)
def test_refusals_and_older_and_newer_tool_calls_are_text(said: dict[str, Any], text: str) -> None:
    assert generated_text({"choices": [{"delta": said}]}) == text
