"""Tables and objects in the terminal."""

import json

import pytest
from tests.cli.admin_api import KEY

from quarterdeck.cli import output


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert output.columns(("A", "B"), [("long", "x"), ("s", "")]) == "A     B\nlong  x\ns"


def test_an_object_is_shown_a_line_a_field(capsys: pytest.CaptureFixture[str]) -> None:
    output.show(KEY)
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["limits"] == "5 tokens each"
    assert shown["budget"] == "$10 per month"
    assert (shown["tags"], shown["admin"]) == ("a, b", "no")
    assert "models" not in shown
    assert "key" not in shown


def test_times_and_counts_of_an_object_are_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    counts = {"total": 3, "completed": 2, "failed": 0}
    metadata = {"created": "yesterday", "finished_at": "noon", "is_test": True}
    output.show({"id": "batch_1", "completed_at": 1_800_000_000, "request_counts": counts, "metadata": metadata})
    shown = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert shown["completed_at"] == output.local_time(1_800_000_000)
    assert shown["request_counts"] == "total 3, completed 2, failed 0"
    assert shown["metadata"] == "created yesterday, finished_at noon, is_test yes"


def test_a_budgets_state_is_shown_in_a_line() -> None:
    status = {"period_start": 1_798_761_600, "spent": "3.2", "held": "0.1", "left": "6.7", "is_counting": False}
    assert output.status_text(status) == "$3.2 spent, $0.1 held, $6.7 left, since 2027-01-01 UTC"
    text = output.status_text({**status, "period_start": None, "is_counting": True})
    assert text == "$3.2 spent, $0.1 held, $6.7 left, earlier spending is still being counted"


HOSTILE = "a\x1b]0;pwned\x07\x1b[2J\r\n\x9b31m\u202eevil\u200b\x7f"
"""Sets the window's title, clears the screen, forges a line, reorders and hides text."""


def is_harmless(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


def test_a_callers_text_is_printed_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    table = output.columns(("USER", "COST"), [(HOSTILE, "$1"), ("größe 日本", "$2")])
    assert is_harmless(table)
    assert len(table.splitlines()) == 3
    assert "a\\x1b]0;pwned\\x07" in table
    assert "größe 日本" in table
    output.show({"name": HOSTILE, "tags": [HOSTILE]})
    assert is_harmless(capsys.readouterr().out)


def test_json_is_printed_and_not_obeyed(capsys: pytest.CaptureFixture[str]) -> None:
    output.print_json({"user": HOSTILE, "name": "größe"})
    text = capsys.readouterr().out
    assert is_harmless(text)
    assert json.loads(text) == {"user": HOSTILE, "name": "größe"}


def test_a_models_answer_keeps_its_lines_and_emojis() -> None:
    assert output.answer_text("a\r\n\tb 👩\u200d💻 \x1b[2J\x9b") == "a\n\tb 👩\u200d💻 \\x1b[2J\\x9b"
