"""The report's sentences: headline, description and caveats."""

from pathlib import Path

from tests.load.folders import START, request, rich, steady, write_run
from tests.load.report.reader import read

from quarterdeck.load.analysis import budgets, results
from quarterdeck.load.report import run_report


def test_a_good_run_is_told_in_a_sentence(tmp_path: Path) -> None:
    write_run(tmp_path, steady(60))
    budgets.write(tmp_path, budgets.check(budgets.parse({"error_rate": 0, "cost_drift": 1}), results.read(tmp_path)))
    words = read(run_report.write(tmp_path)).words
    assert "Passed. 1 of 2 budgets kept, 1 not checked. All 600 requests succeeded." in words
    assert "Time to the first token: p50 50.0 ms, p99 50.0 ms." in words
    assert "600 requests to sim at http://127.0.0.1:8000/v1 in 60 s, 10 per second. Scenarios: chat 100 %." in words
    assert "constant arrivals; 10 per second; 60 s; chat (max_tokens 64)" in words
    assert "A processor, 2 cores, 24 GiB, Linux 6.1" in words


def test_a_client_that_was_the_bottleneck_is_told_at_the_top(tmp_path: Path) -> None:
    write_run(tmp_path, [request(i, ttft_ms=50, started=START + i + 0.02) for i in range(50)])
    words = read(run_report.write(tmp_path)).words
    assert words.count("The client was the bottleneck.") == 2
    assert "up to 40 % of the latencies above is its own lag" in words
    assert "The client was the bottleneck" not in read(run_report.write(rich(tmp_path / "other"))).words


def test_a_client_that_stalled_now_and_then_is_told_to_have_spoiled_the_end(tmp_path: Path) -> None:
    rows = [request(i / 10, started=START + i / 10 + (0.03 if i % 50 == 0 else 0)) for i in range(500)]
    words = read(run_report.write(write_run(tmp_path, rows))).words
    assert "The client was the bottleneck at p99, but not at the median." in words


def test_a_closed_loop_says_what_it_hides(tmp_path: Path) -> None:
    write_run(tmp_path, [request(i, started=START + i) for i in range(50)])
    assert (
        "Closed loop: each user sent its next request after the previous answer."
        in read(run_report.write(tmp_path)).words
    )
