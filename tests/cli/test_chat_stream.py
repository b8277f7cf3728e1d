"""What a stream says."""

import json

import click
import pytest

from quarterdeck.cli.chat_stream import Piece, Usage, pieces, stats_text, waiting_text


def events(*bodies: object) -> list[str]:
    return [f"data: {json.dumps(body)}" for body in bodies]


def delta(**fields: str) -> dict[str, object]:
    return {"choices": [{"delta": fields}]}


def test_text_reasoning_and_usage_come_apart() -> None:
    usage = {"prompt_tokens": 3, "completion_tokens": 9, "completion_tokens_details": {"reasoning_tokens": 4}}
    lines = events(
        delta(role="assistant", content=""),
        delta(reasoning_content="hm"),
        delta(reasoning="m"),
        delta(content="a"),
        {"choices": [], "usage": usage},
    )
    assert list(pieces([": ping", "", *lines, "data: [DONE]"])) == [
        Piece("reasoning", "hm"),
        Piece("reasoning", "m"),
        Piece("text", "a"),
        Usage(3, 9, 4),
    ]


def test_an_error_event_ends_it_with_its_message() -> None:
    with pytest.raises(click.ClickException, match="the engine is gone"):
        list(pieces(events({"error": {"message": "the engine is gone"}})))


def test_a_cut_stream_is_no_answer() -> None:
    with pytest.raises(click.ClickException, match="stream ended early"):
        list(pieces(events(delta(content="a"))))
    with pytest.raises(click.ClickException, match="not a stream of JSON"):
        list(pieces(["data: {half"]))


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ('{"model": "qwen", "state": "loading", "seconds_left": 40.2}', "qwen is loading (about 40 s)"),
        ('{"model": "qwen", "state": "warming_up"}', "qwen is warming up"),
        ('{"model": "qwen", "state": "downloading", "detail": "downloading 34 %"}', "qwen is downloading 34 %"),
        ("half", ""),
        ("[]", ""),
    ],
)
def test_a_model_that_loads_is_said_in_words(data: str, text: str) -> None:
    assert waiting_text(data) == text
    found = list(pieces([f": model {data}", "data: [DONE]"]))
    assert found == ([Piece("waiting", text)] if text else [])


def test_stats_are_one_line() -> None:
    assert stats_text(Usage(3, 11), 0.5, 1.5, "0.00012") == (
        "3 + 11 tokens, 10.0 tokens/s, first after 0.50 s, 1.50 s, $0.00012"
    )
    assert stats_text(None, None, 2.0, None) == "2.00 s"
