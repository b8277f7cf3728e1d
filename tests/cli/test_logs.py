"""Logs of the platform on this machine."""

import json
from itertools import islice
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from quarterdeck.cli import logs
from quarterdeck.cli.__main__ import cli

LINE = {"ts": "2026-11-30T07:00:00.000+00:00", "level": "warning", "logger": "x", "message": "slow", "model": "chat"}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("QUARTERDECK_STATE", str(tmp_path))
    (tmp_path / "logs" / "models").mkdir(parents=True)
    (tmp_path / "logs" / "gateway.log").write_text("".join(f"line {number}\n" for number in range(30)))
    (tmp_path / "logs" / "worker.log").write_text(json.dumps(LINE) + "\n")
    (tmp_path / "logs" / "models" / "chat.log").write_text("loading\n")
    return tmp_path / "logs"


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, ["logs", *words])


def test_the_last_lines_of_a_part_or_model_are_printed(folder: Path) -> None:
    assert run("gateway", "-n", "2").stdout == "line 28\nline 29\n"
    assert run("chat").stdout == "loading\n"
    assert run("gateway", "-n", "0").stdout == ""


def test_all_parts_are_printed_with_their_names(folder: Path) -> None:
    lines = run("-n", "1").stdout.splitlines()
    assert lines == ["gateway | line 29", f"worker  | {json.dumps(LINE)}", "chat    | loading"]


def test_an_unknown_part_is_refused_with_those_that_exist(folder: Path) -> None:
    done = run("gatway")
    assert (done.exit_code, done.stderr) == (
        1,
        "Error: no log of 'gatway' (there are: gateway, worker, chat)\n",
    )


def test_a_folder_without_logs_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUARTERDECK_STATE", str(tmp_path))
    assert "start the platform" in run().stderr


def test_new_lines_are_followed_through_a_rotation(folder: Path) -> None:
    file = folder / "gateway.log"
    found = logs.follow_files({"gateway": file}, {"gateway": file.stat().st_size})
    with file.open("a") as log:
        log.write("one\ntwo\nhalf")
    assert list(islice(found, 2)) == [("gateway", "one"), ("gateway", "two")]
    file.write_text("new\n")
    assert next(found) == ("gateway", "new")


def test_a_json_line_is_shown_as_text() -> None:
    text = logs.line_text(json.dumps(LINE))
    assert "WARNING" in text and "slow" in text and "model=chat" in text
    assert "\x1b]0;" not in logs.line_text('{"ts": "x", "level": "info", "message": "a\\u001b]0;title"}')
    assert logs.line_text("{not json") == "{not json"
