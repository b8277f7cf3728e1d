"""Estimates of start times."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.model_lifecycle.start_times import FIRST_GUESS_SECONDS, LEAST_SECONDS, MAX_KEPT, StartTimes, left


def test_a_start_that_was_seen_is_the_estimate_after_a_restart(tmp_path: Path) -> None:
    StartTimes(tmp_path / "a" / "times.json").record("k", 41.0, 10**9)
    assert StartTimes(tmp_path / "a" / "times.json").estimate("k", 0) == 41.0


def test_a_larger_model_than_those_seen_takes_longer() -> None:
    times = StartTimes(None)
    assert times.estimate("k", 0) == FIRST_GUESS_SECONDS
    times.record("small", 30.0, 10**9)
    assert times.estimate("other", 10**9) == 30.0
    assert times.estimate("large", 11 * 10**9) > 100.0


def test_a_damaged_file_is_no_error(tmp_path: Path) -> None:
    for text in ("", "[]", '{"a": 1}', '{"a": ["x", 1]}'):
        (tmp_path / "times.json").write_text(text)
        assert StartTimes(tmp_path / "times.json").estimate("a", 0) == FIRST_GUESS_SECONDS


def test_the_file_has_a_bound(tmp_path: Path) -> None:
    times = StartTimes(tmp_path / "times.json")
    for number in range(MAX_KEPT + 5):
        times.record(str(number), 1.0, 0)
    assert StartTimes(tmp_path / "times.json").estimate("0", 0) == 1.0  # by the others
    assert (tmp_path / "times.json").read_text().count('"') == 2 * MAX_KEPT


def test_a_file_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    StartTimes(tmp_path / "file" / "times.json").record("k", 1.0, 0)


@given(st.floats(0, 1e5), st.floats(0, 1e5))
def test_there_is_always_some_time_left(estimate: float, elapsed: float) -> None:
    assert left(estimate, elapsed) >= LEAST_SECONDS
