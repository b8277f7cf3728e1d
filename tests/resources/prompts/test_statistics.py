"""Intervals hold what they say, and match published values."""

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.resources.prompts.statistics import (
    Moments,
    difference_of_means,
    quantile,
    rate,
    requests_to_tell,
    t_of,
    z_of,
)

_values = st.floats(-1e6, 1e6)


@pytest.mark.parametrize(
    ("freedom", "expected"), [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (1000, 1.962)]
)
def test_students_quantiles_are_those_of_the_tables(freedom: int, expected: float) -> None:
    assert t_of(0.95, freedom) == pytest.approx(expected, abs=0.002)


@pytest.mark.parametrize(("freedom", "expected"), [(3, 5.841), (5, 4.032), (10, 3.169), (30, 2.750), (100, 2.626)])
def test_students_quantiles_at_99_percent(freedom: int, expected: float) -> None:
    assert t_of(0.99, freedom) == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    # Newcombe 1998, table I, method 3 (Wilson's score without correction).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilsons_interval_is_the_published_one(hits: int, total: int, low: float, high: float) -> None:
    found = rate(hits, total)
    assert (found.low, found.high) == (pytest.approx(low, abs=5e-5), pytest.approx(high, abs=5e-5))


def test_newcombes_interval_of_a_difference_is_the_published_one() -> None:
    # Newcombe 1998, table II, method 10: 56/70 - 48/80.
    found = rate(56, 70).minus(rate(48, 80))
    assert (found.low, found.high) == (pytest.approx(0.0524, abs=5e-5), pytest.approx(0.3339, abs=5e-5))


@given(st.integers(0, 5000), st.integers(1, 5000), st.floats(0.5, 0.999))
def test_a_rates_interval_holds_it_and_stays_between_0_and_1(hits: int, more: int, confidence: float) -> None:
    found = rate(hits, hits + more, confidence)
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(st.integers(0, 500), st.integers(1, 500), st.integers(0, 500), st.integers(1, 500))
def test_a_difference_is_antisymmetric(a: int, b: int, c: int, d: int) -> None:
    one, two = rate(a, a + b), rate(c, c + d)
    there, back = one.minus(two), two.minus(one)
    assert there.value == pytest.approx(-back.value)
    assert (there.low, there.high) == (pytest.approx(-back.high), pytest.approx(-back.low))


@given(st.lists(_values, min_size=2, max_size=50), st.lists(_values, min_size=2, max_size=50))
def test_welchs_interval_holds_the_difference_of_the_means(first: list[float], second: list[float]) -> None:
    found = difference_of_means(Moments.of(first), Moments.of(second))
    assert found.low <= found.value <= found.high


def test_welchs_interval_is_the_known_one() -> None:
    # R: t.test(c(1:10), y = c(7:20)), 95 %: -11.052802, -4.947198 (df 21.982)
    found = difference_of_means(Moments.of(range(1, 11)), Moments.of(range(7, 21)))
    assert (found.low, found.high) == (pytest.approx(-11.0528, abs=5e-4), pytest.approx(-4.9472, abs=5e-4))


@given(st.lists(_values, max_size=200), st.sampled_from([0.5, 0.95]))
def test_a_quantiles_interval_holds_it(values: list[float], share: float) -> None:
    found = quantile(sorted(values), share)
    assert found.low <= found.value <= found.high
    if values:
        assert found.value in values


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random, rounds = Random(7), 2000
    held = {"rate": 0, "mean": 0, "median": 0, "p95": 0}
    for _ in range(rounds):
        sample = sorted(random.expovariate(1) for _ in range(100))
        held["median"] += quantile(sample, 0.5).low <= math.log(2) <= quantile(sample, 0.5).high
        held["p95"] += quantile(sample, 0.95).low <= -math.log(0.05) <= quantile(sample, 0.95).high
        mean = Moments.of(sample).estimate()
        held["mean"] += mean.low <= 1 <= mean.high
        errors = rate(sum(random.random() < 0.1 for _ in range(100)), 100)
        held["rate"] += errors.low <= 0.1 <= errors.high
    assert all(0.92 <= count / rounds <= 0.995 for count in held.values()), held


def test_as_many_requests_as_it_takes_show_the_difference_four_times_in_five() -> None:
    random, rounds = Random(3), 300
    needed = requests_to_tell(0.1 * 0.9 + 0.2 * 0.8, 0.1)
    assert needed == 197  # the textbook's n for 10 % against 20 %, 5 % and 80 %, without correction
    seen = 0
    for _ in range(rounds):
        one, two = (rate(sum(random.random() < p for _ in range(needed)), needed) for p in (0.2, 0.1))
        seen += one.minus(two).low > 0
    assert 0.7 < seen / rounds < 0.9


def test_of_nothing_anything_can_be_true() -> None:
    assert (rate(0, 0).low, rate(0, 0).high) == (0, 1)
    assert Moments.of([]).estimate().high == Moments.of([3.0]).estimate().high == math.inf
    assert quantile([], 0.5).low == -math.inf
    assert requests_to_tell(1.0, 0.0) is None
    assert z_of(0.95) == pytest.approx(1.96, abs=0.001)
