"""Measurements of a request, and histograms of gaps."""

import random

import pytest

from quarterdeck.load.analysis.distribution import LatencyHistogram, quantile
from quarterdeck.load.analysis.objectives import Slo
from quarterdeck.load.analysis.samples import COLUMNS, Gaps, Sample, from_row


def stream(*pieces: float, intended: float = 100.0, started: float = 100.5) -> Sample:
    sample = Sample("stream", intended, started, rate=10)
    for at in pieces:
        sample.add_piece(at)
    sample.ended = pieces[-1]
    sample.output_tokens = len(pieces)
    return sample


def test_latencies_count_from_when_a_request_was_wanted() -> None:
    sample = stream(101.0, 101.01, 101.03)
    assert sample.ttft_ms == pytest.approx(1000)  # not 500: the client's lag counts too
    assert sample.total_ms == pytest.approx(1030)
    assert sample.gaps_ms == pytest.approx([10, 20])
    assert sample.tokens_per_second == pytest.approx(2 / 0.03)


def test_a_good_answer_keeps_every_objective_that_is_set() -> None:
    sample = stream(100.2, 100.21, 100.23)
    assert sample.keeps(Slo())
    assert sample.keeps(Slo(ttft_ms=201, itl_ms=16, total_ms=231))
    assert not sample.keeps(Slo(ttft_ms=199))
    assert not sample.keeps(Slo(itl_ms=14))
    assert not sample.keeps(Slo(total_ms=229))
    sample.outcome = "cut"
    assert not sample.keeps(Slo())


def test_a_misbehaving_client_that_got_what_it_deserves_is_neither_ok_nor_an_error() -> None:
    sample = stream(100.2)
    sample.outcome = "expected:hung_up"
    assert not sample.is_ok
    assert not sample.is_error


def test_a_row_says_all_that_judging_needs() -> None:
    sample = stream(100.2, 100.21, 100.23)
    row = sample.row("main")
    assert len(row) == len(COLUMNS)
    again = from_row(row)
    assert (again.ttft_ms, again.total_ms, *again.gaps_ms) == pytest.approx((sample.ttft_ms, sample.total_ms, 15))
    assert [again.keeps(Slo(itl_ms=limit)) for limit in (14, 16)] == [False, True]


def test_gaps_in_buckets_have_the_quantiles_of_the_gaps() -> None:
    draw = random.Random(1)
    values = [draw.lognormvariate(2.5, 0.5) for _ in range(5000)]
    gaps, other = Gaps(), Gaps()
    gaps.add("stream", values[:2000])
    other.add("stream", values[2000:])
    gaps.merge(other.counts)
    held = gaps.as_json()["stream"]
    histogram = LatencyHistogram(tuple(held["edges_ms"]), tuple(int(count) for count in held["counts"]))
    assert histogram.total == 5000
    for q in (0.5, 0.99):
        exact = quantile(sorted(values), q)
        assert exact is not None
        assert histogram.quantile(q) == pytest.approx(exact, rel=0.03)
