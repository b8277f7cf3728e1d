"""Verdicts of each limit, and errors in the budgets file."""

from pathlib import Path
from typing import Any

import pytest
from tests.load.folders import START, request, steady, write_run

from quarterdeck.load.analysis import budgets, results
from quarterdeck.load.analysis.budgets import BudgetError

SHIPPED = Path(__file__).parents[3] / "loadtests" / "budgets.yaml"
GAPS = {"main": {"chat": {"edges_ms": [1, 10, 100], "counts": [90, 10]}}}


def verdict(folder: Path, values: dict[str, Any], name: str | None = None) -> budgets.Verdict:
    found = budgets.check(budgets.parse(values), results.read(folder))
    return next(v for v in found if name is None or v.name == name)


def process(mib_per_hour: float, minutes: int) -> list[tuple[Any, ...]]:
    rate = mib_per_hour / 3600
    return [(t, "gateway", 1, int((100 + rate * t) * 2**20), 0, 1) for t in range(0, minutes * 60, 10)]


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ({"ttft_p50_ms": 60}, "kept"),
        ({"ttft_p50_ms": 49}, "broken"),
        ({"ttft_p99_ms": 49}, "broken"),
        ({"total_p99_ms": 501}, "kept"),
        ({"itl_p99_ms": 100}, "kept"),
        ({"itl_p99_ms": 50}, "broken"),
        ({"error_rate": 0}, "kept"),
        ({"goodput": 1}, "kept"),
        ({"ttft_p50_over_baseline_ms": 5}, "not judged"),
        ({"rss_slope_mib_per_hour": 5}, "not judged"),
        ({"cost_drift": 0.01}, "not judged"),
        ({"client_lag": 0.05}, "kept"),
    ],
)
def test_a_steady_run_against_each_limit(tmp_path: Path, values: dict[str, float], outcome: str) -> None:
    assert verdict(write_run(tmp_path, steady(10), gaps=GAPS), values).outcome == outcome


def test_a_broken_limit_says_by_what(tmp_path: Path) -> None:
    broken = verdict(write_run(tmp_path, steady(10)), {"ttft_p99_ms": 40})
    assert broken.text == "the time to first token at p99 was 50.0 ms; at most 40 ms is allowed"


def test_twenty_milliseconds_more_than_the_baseline_are_caught(tmp_path: Path) -> None:
    rows = [*steady(10), *(row | {"target": "baseline"} for row in steady(10, first_token=""))]
    slow = [request(i / 10, ttft_ms=50) for i in range(100)]
    bare = [request(i / 10, ttft_ms=30, target="baseline") for i in range(100)]
    found = verdict(write_run(tmp_path / "a", [*slow, *bare]), {"ttft_p50_over_baseline_ms": 10})
    assert (found.outcome, round(found.value or 0)) == ("broken", 20)
    assert verdict(write_run(tmp_path / "b", rows), {"ttft_p50_over_baseline_ms": 10}).outcome == "not judged"


def test_errors_are_told_in_numbers(tmp_path: Path) -> None:
    rows = [*steady(10), request(10, outcome="timeout")]
    found = verdict(write_run(tmp_path, rows), {"error_rate": 0.001, "goodput": 0.999})
    assert found.outcome == "broken"
    assert "(1 of 101 requests)" in found.text
    assert verdict(tmp_path, {"goodput": 0.999}).outcome == "broken"


def test_a_run_without_a_request_keeps_no_budget_of_errors(tmp_path: Path) -> None:
    assert verdict(write_run(tmp_path, []), {"error_rate": 0.5}).outcome == "broken"


def test_goodput_needs_objectives(tmp_path: Path) -> None:
    found = verdict(write_run(tmp_path, steady(1), slo={}), {"goodput": 0.9})
    assert found.outcome == "not judged"
    assert "sets no objective" in found.text


@pytest.mark.parametrize(
    ("mib_per_hour", "minutes", "values", "outcome"),
    [
        (30, 30, 20, "broken"),
        (10, 30, 20, "kept"),
        (-50, 30, 20, "kept"),
        (3000, 5, 20, "not judged"),
        (30, 30, {"default": 20, "gateway": 40}, "kept"),
        (30, 30, {"default": 40, "gateway": 20}, "broken"),
    ],
)
def test_growth_is_judged_by_process_once_there_is_enough_of_it(
    tmp_path: Path, mib_per_hour: float, minutes: int, values: Any, outcome: str
) -> None:
    write_run(tmp_path, steady(1), processes=process(mib_per_hour, minutes))
    found = verdict(tmp_path, {"rss_slope_mib_per_hour": values}, "rss_slope_mib_per_hour[gateway]")
    assert found.outcome == outcome


def test_a_price_that_moves_either_way_is_caught(tmp_path: Path) -> None:
    rows = [request(i / 10, cost=0.01 if i < 300 else 0.009) for i in range(600)]
    assert verdict(write_run(tmp_path, rows), {"cost_drift": 0.05}).outcome == "broken"


def test_a_late_client_is_caught(tmp_path: Path) -> None:
    rows = [request(i, started=START + i + 0.03) for i in range(10)]
    assert verdict(write_run(tmp_path, rows), {"client_lag": 0.05}).outcome == "broken"


def test_a_profile_replaces_what_it_names_and_keeps_the_rest(tmp_path: Path) -> None:
    limits = budgets.parse({"ttft_p99_ms": 40, "error_rate": 0, "profiles": {"steady": {"ttft_p99_ms": 60}}})
    assert (limits.of("steady").ttft_p99_ms, limits.of("steady").error_rate) == (60, 0)
    assert limits.of("other").ttft_p99_ms == 40
    assert budgets.is_kept(budgets.check(limits, results.read(write_run(tmp_path, steady(1)))))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ttft_p99: 5", r"unknown field `ttft_p99`; known fields: ttft_p50_ms, "),
        ("profiles: {soak: {erorr_rate: 0}}", r"unknown field `erorr_rate` - at `\$\.profiles"),
        ("error_rate: few", r"Expected `float.*at `\$\.error_rate`"),
        ("error_rate: -1", "error_rate must be 0 or more"),
        ("rss_slope_mib_per_hour: {default: -1}", "rss_slope_mib_per_hour must be 0 or more"),
        ("- 1", "Expected `object`"),
        ("a: [", "while parsing"),
    ],
)
def test_a_mistake_in_the_file_is_told_with_its_place(tmp_path: Path, text: str, expected: str) -> None:
    file = tmp_path / "budgets.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(BudgetError, match=expected) as error:
        budgets.load(file)
    assert str(error.value).startswith(str(file))


def test_an_empty_file_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "budgets.yaml").write_text("# nothing yet\n", encoding="utf-8")
    assert budgets.check(budgets.load(tmp_path / "budgets.yaml"), results.read(write_run(tmp_path, steady(1)))) == []


@pytest.mark.parametrize(("ttft_ms", "broken"), [(5, []), (25, ["ttft_p50_ms"])])
def test_the_shipped_file_keeps_a_good_run_and_catches_twenty_milliseconds_more(
    tmp_path: Path, ttft_ms: float, broken: list[str]
) -> None:
    rows = [request(i / 10, ttft_ms=ttft_ms) for i in range(100)]
    verdicts = budgets.check(budgets.load(SHIPPED), results.read(write_run(tmp_path, rows, gaps=GAPS)))
    assert [verdict.name for verdict in verdicts if verdict.outcome == "broken"] == broken
