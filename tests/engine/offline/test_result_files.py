"""Results of an offline run: on the disk when they are written, continued after a kill, never twice."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quarterdeck.engine.offline.result_files import Identity, ResultFiles, ResultFilesError
from quarterdeck.protocol.batches.results import Result, Tokens, answered

SAME, OTHER = Identity("aa", "/v1/chat/completions"), Identity("bb", "/v1/chat/completions")


def a_result(number: int, *, status: int = 200) -> Result:
    body = b'{"usage": {"prompt_tokens": 2, "completion_tokens": 3}}'
    return answered("run", number, f"line-{number}", status=status, request="req_1", body=body)


def files(folder: Path, identity: Identity = SAME) -> ResultFiles:
    return ResultFiles(folder / "out.jsonl", folder / "err.jsonl", identity)


def ids(path: Path) -> list[Any]:
    return [json.loads(line)["custom_id"] for line in path.read_text().splitlines()]


def test_results_are_in_the_file_that_their_status_says_and_get_its_name_at_the_end(tmp_path: Path) -> None:
    with files(tmp_path) as found:
        found.write([a_result(1), a_result(2, status=400)])
        assert ids(tmp_path / "out.jsonl.part") == ["line-1"]
        assert not (tmp_path / "out.jsonl").exists()
        found.write([a_result(3)])
        assert (found.totals.completed, found.totals.failed) == (2, 1)
        assert found.totals.tokens == Tokens(input=4, output=6)
        written = found.finish()
    assert written == {"output_file_id": tmp_path / "out.jsonl", "error_file_id": tmp_path / "err.jsonl"}
    assert ids(tmp_path / "out.jsonl") == ["line-1", "line-3"] and ids(tmp_path / "err.jsonl") == ["line-2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["err.jsonl", "out.jsonl"]


@given(st.integers(0, 3), st.integers(0, 200))
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_that_was_killed_is_continued_after_its_last_whole_line(tmp_path: Path, whole: int, cut: int) -> None:
    folder = tmp_path / f"{whole}-{cut}"
    folder.mkdir(exist_ok=True)
    with files(folder) as found:
        found.write([a_result(number) for number in range(whole)])
    next_text = a_result(99).text
    with (folder / "out.jsonl.part").open("ab") as part:
        part.write(next_text[: min(cut, len(next_text))])
    with files(folder) as found:
        assert found.done == {f"line-{number}" for number in range(whole)}
        assert (found.totals.completed, found.totals.tokens.output) == (whole, 3 * whole)
        found.write([a_result(99)])
        found.finish()
    assert ids(folder / "out.jsonl") == [*(f"line-{number}" for number in range(whole)), "line-99"]
    (folder / "out.jsonl").unlink()


def test_results_of_another_input_are_not_continued(tmp_path: Path) -> None:
    with files(tmp_path) as found:
        found.write([a_result(1)])
    with pytest.raises(ResultFilesError, match="another input"), files(tmp_path, OTHER):
        pass
    with files(tmp_path) as found:
        assert found.done == {"line-1"}


def test_a_run_after_a_completed_one_begins_anew(tmp_path: Path) -> None:
    with files(tmp_path) as found:
        found.write([a_result(1), a_result(2, status=500)])
        found.finish()
    with files(tmp_path, OTHER) as found:
        assert found.done == set()
        found.write([a_result(3)])
        found.finish()
    assert ids(tmp_path / "out.jsonl") == ["line-3"]
    assert not (tmp_path / "err.jsonl").exists()


def test_two_runs_do_not_write_the_same_files(tmp_path: Path) -> None:
    with files(tmp_path), pytest.raises(ResultFilesError, match="another run"), files(tmp_path):
        pass


def test_a_file_with_other_lines_is_refused(tmp_path: Path) -> None:
    with files(tmp_path) as found:
        found.write([a_result(1)])
    with (tmp_path / "out.jsonl.part").open("ab") as part:
        part.write(b"[]\n")
    with pytest.raises(ResultFilesError, match="line 2"), files(tmp_path):
        pass
