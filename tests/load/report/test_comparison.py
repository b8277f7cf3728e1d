"""Comparisons: a run with its baseline, and two runs."""

from pathlib import Path

from tests.load.folders import GAPS, rich, rich_rows, steady, write_run
from tests.load.report.reader import read

from quarterdeck.load.report import run_report


def test_a_baseline_stands_beside_the_target_with_ratios(tmp_path: Path) -> None:
    write_run(
        tmp_path,
        [*rich_rows(more_ms=40), *rich_rows("baseline")],
        gaps={"main": GAPS, "baseline": GAPS},
        baseline={"url": "http://127.0.0.1:8011/v1"},
    )
    page = read(run_report.write(tmp_path))
    table = page.tables["Figures: target and baseline on the same schedule (one after the other)"]
    assert table[0] == ["", "target", "baseline", "difference", "target ÷ baseline"]
    assert ["time to first token, p50", "80.0 ms", "40.0 ms", "+40.0 ms", "2.00×"] in table
    assert "a model at http://127.0.0.1:8011/v1; same schedule" in page.words
    assert "time to first token: p50 80.0 ms against 40.0 ms (2.00×)" in page.words


def test_two_runs_side_by_side_say_what_was_not_the_same(tmp_path: Path) -> None:
    rich(tmp_path / "new")
    write_run(tmp_path / "old", steady(60), seed=8, machine={"cpu": "Another"})
    page = read(run_report.write(tmp_path / "new", tmp_path / "old"))
    assert "Caution: the runs differ in machine and seed" in page.words
    assert "p50 40.0 ms against 50.0 ms (0.80×)" in page.words
    table = page.tables["A ÷ B: below 1, A took less time or did fewer"]
    assert ["time to first token, p50", "40.0 ms", "50.0 ms", "−10.0 ms", "0.80×"] in table
    assert ["machine.cpu", "A processor", "Another"] in page.tables["Differences"]
    assert (tmp_path / "new" / "against-old.html").exists()


def test_equal_runs_are_compared_without_a_warning(tmp_path: Path) -> None:
    write_run(tmp_path / "a", steady(60))
    write_run(tmp_path / "b", steady(60))
    words = read(run_report.write(tmp_path / "a", tmp_path / "b")).words
    assert "Caution:" not in words
    assert "No differences." in words


def test_warmer_caches_on_one_side_are_told(tmp_path: Path) -> None:
    write_run(tmp_path / "a", steady(60))
    write_run(tmp_path / "b", steady(60, cached_tokens=15))
    words = read(run_report.write(tmp_path / "a", tmp_path / "b")).words
    assert "0 % of A's prompt tokens and 75 % of B's were in the engines' prefix caches" in words
    write_run(tmp_path / "c", steady(60, cached_tokens=1))
    assert "prefix caches:" not in read(run_report.write(tmp_path / "a", tmp_path / "c")).words
