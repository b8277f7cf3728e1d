"""`quarterdeck chat`: text out of a stream of events."""

import json

import click
import pytest

from quarterdeck.cli import chat


def events(*bodies: object) -> list[str]:
    return [f"data: {json.dumps(body)}" for body in bodies]


def test_chat_takes_the_text_out_of_a_stream() -> None:
    first = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
    pieces = [{"choices": [{"delta": {"content": text}}]} for text in "ab"]
    deltas = events(first, pieces[0], {"choices": []}, pieces[1])
    assert list(chat.texts([": ping", "", *deltas, "data: [DONE]"])) == ["a", "b"]


def test_chat_says_what_an_error_event_says() -> None:
    with pytest.raises(click.ClickException, match="the engine is gone"):
        list(chat.texts(events({"error": {"message": "the engine is gone"}})))


def test_chat_does_not_take_a_cut_stream_for_an_answer() -> None:
    with pytest.raises(click.ClickException, match="stream ended early"):
        list(chat.texts(events({"choices": [{"delta": {"content": "a"}}]})))
