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
    assert "up to 40 % of a latency is its own lag" in words
    assert "The client was the bottleneck" not in read(run_report.write(rich(tmp_path / "other"))).words


def test_a_client_that_is_somewhat_late_is_not_called_the_bottleneck(tmp_path: Path) -> None:
    """From a quarter of the median on, where the budget `client_lag` fails by default, it is."""
    write_run(tmp_path, [request(i, ttft_ms=50, started=START + i + 0.008) for i in range(50)])
    limits = budgets.load(Path("loadtests/budgets.yaml"))
    verdicts = budgets.check(limits, results.read(tmp_path))
    budgets.write(tmp_path, verdicts)
    words = read(run_report.write(tmp_path)).words
    assert [v.outcome for v in verdicts if v.name == "client_lag"] == ["kept"]
    assert "The client was late. It sent requests 8.00 ms (p50)" in words
    assert "bottleneck" not in words


def test_counts_that_differ_are_explained(tmp_path: Path) -> None:
    expected = [request(20 + i / 10, ttft_ms=None, outcome="expected:disconnected") for i in range(30)]
    failed = [request(30, outcome="timeout", status=0)]
    write_run(tmp_path, [*steady(60), *expected, *failed], warmup_seconds=10)
    words = read(run_report.write(tmp_path)).words
    assert (
        "631 requests were sent; 100 of them in the warm-up, which only the ledger and the processes count; 531"
        " measured; 30 of these by misbehaving clients, which were cut off or rejected as intended; 501 remain that"
        " should be answered; 500 answered and 1 failed."
    ) in words
    assert "1 of 501 requests failed" in words


def test_a_client_that_stalled_now_and_then_is_told_to_have_spoiled_the_end(tmp_path: Path) -> None:
    rows = [request(i / 10, started=START + i / 10 + (0.03 if i % 50 == 0 else 0)) for i in range(500)]
    words = read(run_report.write(write_run(tmp_path, rows))).words
    assert words.count("The client kept up at the median and was late at p99.") == 2
    assert "bottleneck" not in words


def test_a_closed_loop_says_what_it_hides(tmp_path: Path) -> None:
    write_run(tmp_path, [request(i, started=START + i) for i in range(50)])
    assert (
        "Closed loop: each user sent its next request after the previous answer."
        in read(run_report.write(tmp_path)).words
    )
