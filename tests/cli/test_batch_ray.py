"""`quarterdeck batch run --ray`: the command line of the run, its progress, its end. A script stands in its place."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from quarterdeck.cli.__main__ import cli

DONE = {
    "id": "offline_1",
    "status": "completed",
    "request_counts": {"total": 3, "completed": 3, "failed": 0},
    "errors": None,
    "written": {"output_file_id": "out.jsonl"},
    "seconds": 10.0,
    "start_seconds": 4.0,
    "requests_per_second": 0.5,
    "output_tokens_per_second": 12.0,
}
PROGRESS = {"status": "in_progress", "request_counts": {"total": 3, "completed": 1, "failed": 0}}


def run(folder: Path, events: list[Any], *words: str, status: int = 0) -> Result:
    """Run the command; the engine's interpreter is a script that writes `events`, and its arguments to `words`."""
    source = folder / "requests.jsonl"
    source.write_text("{}\n")
    (folder / "events").write_text("".join(json.dumps(event) + "\n" for event in events))
    python = folder / "python"
    python.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {folder}/words\ncat {folder}/events\nexit {status}\n')
    python.chmod(0o755)
    environ = {"QUARTERDECK_STATE": str(folder / "state"), "QUARTERDECK_ENGINE_PYTHON": str(python)}
    return CliRunner().invoke(cli, ["batch", "run", str(source), "--ray", *words], env=environ)


def test_the_result_and_its_throughput_are_shown(tmp_path: Path) -> None:
    done = run(tmp_path, [{"progress": PROGRESS}, {"result": DONE}], "--ray-address", "auto", "--replicas", "2")
    assert done.exit_code == 0, done.output
    assert "offline_1 completed: 3 of 3" in done.stdout and "  out.jsonl" in done.stdout
    assert "10.0 s, 4.0 s of it to start; 0.5 requests/s, 12 output tokens/s" in done.stdout
    words = (tmp_path / "words").read_text().split("\n")
    assert words[:2] == ["-m", "quarterdeck.engine.offline"]
    for option, value in (
        ("--endpoint", "/v1/chat/completions"),
        ("--output", str(tmp_path / "requests.output.jsonl")),
        ("--errors", str(tmp_path / "requests.errors.jsonl")),
        ("--ray-address", "auto"),
        ("--replicas", "2"),
    ):
        assert words[words.index(option) + 1] == value


def test_failed_requests_are_an_exit_code(tmp_path: Path) -> None:
    counts = {"total": 3, "completed": 2, "failed": 1}
    done = run(tmp_path, [{"result": {**DONE, "request_counts": counts}}])
    assert done.exit_code == 1 and "3 of 3, 1 failed" in done.stdout


def test_invalid_lines_are_named(tmp_path: Path) -> None:
    errors = {"data": [{"line": 2, "code": "x", "message": "not JSON"}]}
    failed = {
        "id": None,
        "status": "failed",
        "request_counts": {"total": 3, "completed": 0, "failed": 0},
        "written": {},
    }
    done = run(tmp_path, [{"result": {**failed, "errors": errors}}])
    assert done.exit_code == 1 and "line 2: not JSON" in done.stderr


def test_an_error_is_shown_with_the_log(tmp_path: Path) -> None:
    done = run(tmp_path, [{"progress": PROGRESS}, {"error": "no engine for the model 'x'"}], status=1)
    assert done.exit_code == 1 and "no engine for the model 'x'" in done.stderr and "offline.log" in done.stderr


def test_a_run_that_ends_without_a_word_is_an_error(tmp_path: Path) -> None:
    done = run(tmp_path, [], status=3)
    assert done.exit_code == 1 and "status 3" in done.stderr


def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path) -> None:
    done = run(tmp_path, [{"progress": PROGRESS}], status=130)
    assert done.exit_code == 130 and "requests.output.jsonl.part" in done.stderr


def test_responses_are_refused(tmp_path: Path) -> None:
    done = run(tmp_path, [], "--endpoint", "/v1/responses")
    assert done.exit_code == 1 and "--ray" in done.stderr


def test_the_engines_environment_may_be_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "requests.jsonl"
    source.write_text("{}\n")
    environ = {"QUARTERDECK_STATE": str(tmp_path), "QUARTERDECK_ENGINE_PYTHON": str(tmp_path / "none")}
    done = CliRunner().invoke(cli, ["batch", "run", str(source), "--ray"], env=environ)
    assert done.exit_code == 1 and "environment is missing" in done.stderr
