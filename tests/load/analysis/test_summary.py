"""The figures of a run."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.load.folders import START, request, steady, write_run

from quarterdeck.load.analysis import results, summary
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.results import Results
from quarterdeck.load.analysis.summary import Measured

MIB = 2**20


def side(tmp_path: Path, rows: list[dict[str, object]], **about: object) -> Measured:
    return summary.measured(results.read(write_run(tmp_path, rows, **about)))  # type: ignore[arg-type]  # a folder's fields


def test_a_latency_counts_from_when_the_request_was_due(tmp_path: Path) -> None:
    late = request(1, ttft_ms=80, started=START + 1.03)
    assert side(tmp_path, [late]).ttft == pytest.approx([80], abs=1e-3)


def test_errors_have_no_latency_and_count_against_the_goodput(tmp_path: Path) -> None:
    rows = [request(0), request(1, outcome="timeout", status=0, total_ms=60_000), request(2, ttft_ms=300)]
    measured = side(tmp_path, rows, slo={"ttft_ms": 200})
    assert measured.total == pytest.approx([500, 500], abs=1e-2)
    assert (measured.errors, measured.error_rate) == (1, pytest.approx(1 / 3))
    assert measured.goodput_share == pytest.approx(1 / 3)


def test_a_misbehaving_client_is_neither_error_nor_answer(tmp_path: Path) -> None:
    measured = side(tmp_path, [request(0), request(1, outcome="expected:disconnected")])
    assert (measured.errors, len(measured.answered), measured.error_rate, measured.goodput_share) == (0, 1, 0, 1)


def test_an_answer_that_is_no_stream_has_no_first_token_to_be_late_with(tmp_path: Path) -> None:
    measured = side(tmp_path, [request(0, ttft_ms=None, total_ms=900)], slo={"ttft_ms": 1, "itl_ms": 1})
    assert measured.goodput_share == 1
    assert side(tmp_path, [request(0, ttft_ms=None, total_ms=900)], slo={"total_ms": 800}).goodput_share == 0


def test_the_warm_up_is_left_out(tmp_path: Path) -> None:
    measured = side(tmp_path, steady(60), warmup_seconds=20)
    assert (len(measured.requests), measured.seconds, measured.answered_per_second) == (400, 40, 10)


def test_rates_and_tokens_are_per_second_of_what_was_measured(tmp_path: Path) -> None:
    measured = side(tmp_path, steady(60, rate=5))
    assert (measured.answered_per_second, measured.tokens_per_second) == (5, 50)


def test_over_time_every_stretch_has_its_own_numbers(tmp_path: Path) -> None:
    rows = [request(i / 50, ttft_ms=10 if i < 1500 else 40) for i in range(3001)]
    steps = summary.over_time(side(tmp_path, rows))
    assert [step.at for step in steps] == [i + 0.5 for i in range(60)]
    assert [round(quantile(step.part.ttft, 0.5) or 0) for step in steps] == [10] * 30 + [40] * 30
    assert {step.part.answered_per_second for step in steps} == {50}


def test_stretches_are_wide_enough_for_a_percentile(tmp_path: Path) -> None:
    steps = summary.over_time(side(tmp_path, steady(101, rate=10)))
    assert [len(step.part.requests) for step in steps] == [100] * 10


def test_two_rounds_fill_a_stretch_twice_and_do_not_double_its_rate(tmp_path: Path) -> None:
    for name in ("1-main", "2-main"):
        write_run(tmp_path / "rounds" / name, steady(61))
    steps = summary.over_time(summary.measured(results.read(tmp_path)))
    assert {step.part.answered_per_second for step in steps} == {10}


@given(st.lists(st.floats(0.5, 500), min_size=2, max_size=60, unique=True))
def test_by_rate_every_request_is_in_one_step_and_steps_rise(rates: list[float]) -> None:
    rows = tuple(
        results.Request(
            "main", "chat", i, i, None, i + 1, 200, "ok", 1, 0, 1, None, None, "", "", None, rate
        )
        for i, rate in enumerate(rates)
    )  # fmt: skip
    steps = summary.by_rate(Measured("a", rows, {}, 60.0))
    assert sum(len(step.part.requests) for step in steps) == len(rows)
    assert [step.at for step in steps] == sorted(step.at for step in steps)
    assert len(steps) <= 12


def test_one_rate_alone_is_no_plot(tmp_path: Path) -> None:
    assert summary.by_rate(side(tmp_path, steady(10))) == []


def ramp(breaks_at: int) -> list[dict[str, object]]:
    """Ten seconds at each of 10, 20 … 60/s; from `breaks_at` on half of the answers are late."""
    rows = []
    for i, rate in enumerate(range(10, 70, 10)):
        for n in range(10 * rate):
            is_late = rate >= breaks_at and n % 2
            rows.append(request(10 * i + n / rate, ttft_ms=900 if is_late else 20, rate=rate))
    return rows


@pytest.mark.parametrize(("breaks_at", "knee"), [(40, 30.0), (10, None), (99, 60.0)])
def test_the_knee_is_the_last_rate_that_was_kept_up_with(tmp_path: Path, breaks_at: int, knee: float | None) -> None:
    steps = summary.by_rate(side(tmp_path, ramp(breaks_at)))
    assert [step.at for step in steps] == [10, 20, 30, 40, 50, 60]
    assert steps[-1].part.answered_per_second == pytest.approx(60)
    assert summary.knee(steps) == knee


# ---- the client ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("late_ms", "is_late", "is_bottleneck"),
    [(0, False, False), (2, False, False), (3.9, False, False), (5, True, False), (13, True, False), (15, True, True)],
)
def test_a_client_is_late_from_a_twentieth_of_the_answer_and_the_bottleneck_from_a_quarter(
    tmp_path: Path, late_ms: float, is_late: bool, is_bottleneck: bool
) -> None:
    rows = [request(i, ttft_ms=50, started=START + i + late_ms / 1e3) for i in range(60)]
    late = summary.lag(side(tmp_path, rows))
    assert late is not None
    assert late.share == pytest.approx(late_ms / 50, abs=1e-4)
    assert late.busy_part_of_p50 == pytest.approx(max(0, late_ms - 1.5) / 50, abs=1e-4)
    assert (late.is_late, late.is_bottleneck) == (is_late, is_bottleneck)


def test_a_client_that_stalls_now_and_then_is_seen_at_the_end_of_the_distribution(tmp_path: Path) -> None:
    rows = [request(i / 10, ttft_ms=50, started=START + i / 10 + (0.04 if i % 50 == 0 else 0)) for i in range(600)]
    late = summary.lag(side(tmp_path, rows))
    assert late is not None
    assert (round(late.p50), late.is_late, late.is_bottleneck) == (0, True, False)


# ---- processes and money ---------------------------------------------------------------------------------------------


def run_of(tmp_path: Path, processes: list[tuple[object, ...]]) -> Results:
    return results.read(write_run(tmp_path, steady(1), processes=processes))


def test_growth_is_the_slope_after_the_process_has_settled(tmp_path: Path) -> None:
    # 100 MiB in the first half minute, then 6 MiB/h.
    samples = [(t, "gateway", 1, int((100 * min(1, t / 30) + t / 600) * MIB), 0, 1) for t in range(0, 3600, 10)]
    (process,) = summary.growth(run_of(tmp_path, samples))  # type: ignore[arg-type]  # tuples of a row
    assert process.mib_per_hour == pytest.approx(6, abs=0.01)
    assert process.minutes == pytest.approx(40, abs=0.5)


def test_a_restarted_process_is_fitted_in_parts(tmp_path: Path) -> None:
    samples = [
        (t, "gateway", 1 if t < 1800 else 2, int((100 + (t % 1800) / 360) * MIB), 0, 1) for t in range(0, 3600, 10)
    ]
    (process,) = summary.growth(run_of(tmp_path, samples))  # type: ignore[arg-type]  # tuples of a row
    assert process.mib_per_hour == pytest.approx(10, abs=0.01)


def test_cost_is_what_the_answers_told_or_else_what_the_gateway_counted(tmp_path: Path) -> None:
    values = results.read(write_run(tmp_path / "a", steady(10, cost=0.01)))
    assert summary.cost(values) == pytest.approx(1.0)
    counters = [(t, f'quarterdeck_cost_dollars_total{{model="{m}"}}', 5 + t / 10) for t in range(11) for m in "ab"]
    counted = results.read(write_run(tmp_path / "b", steady(10), metrics=counters))
    assert summary.cost(counted) == pytest.approx(2.0)
    assert summary.cost(results.read(write_run(tmp_path / "c", steady(10)))) is None


def test_a_counter_that_starts_again_did_not_fall(tmp_path: Path) -> None:
    assert summary.rise([(0, 5), (1, 8), (2, 1), (3, 2)]) == 5


def test_cost_drifts_when_a_token_changes_its_price(tmp_path: Path) -> None:
    rows = [request(i / 10, cost=0.01 if i < 300 else 0.011) for i in range(600)]
    assert summary.cost_drift(results.read(write_run(tmp_path / "a", rows))) == pytest.approx(0.1, abs=0.01)
    assert summary.cost_drift(results.read(write_run(tmp_path / "b", steady(60, cost=0.01)))) == pytest.approx(0)
    assert summary.cost_drift(results.read(write_run(tmp_path / "c", steady(60)))) is None


def test_cost_drift_is_found_in_the_gateways_counters_too(tmp_path: Path) -> None:
    metrics = [
        *((t, "quarterdeck_cost_dollars_total{}", t if t < 30 else 30 + 2 * (t - 30)) for t in range(61)),
        *((t, "quarterdeck_tokens_total{}", 100 * t) for t in range(61)),
    ]
    drift = summary.cost_drift(results.read(write_run(tmp_path, steady(60), metrics=metrics)))
    assert drift == pytest.approx(1.0, abs=0.05)
