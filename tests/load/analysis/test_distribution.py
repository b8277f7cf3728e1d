"""Percentiles and histograms."""

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.load.analysis.distribution import LatencyHistogram, merged, quantile, slope

values = st.lists(st.floats(0, 1e6), min_size=1, max_size=200)
shares = st.floats(0, 1)


@st.composite
def histograms(draw: st.DrawFn, edges: tuple[float, ...] | None = None) -> LatencyHistogram:
    if edges is None:
        steps = draw(st.lists(st.floats(0.01, 10), min_size=1, max_size=30))
        edges = tuple(sum(steps[: i + 1]) for i in range(len(steps))) if len(steps) > 1 else (0.0, steps[0])
    counts = draw(st.lists(st.integers(0, 1000), min_size=len(edges) - 1, max_size=len(edges) - 1))
    return LatencyHistogram(edges, tuple(counts))


@given(values, shares, shares)
def test_percentiles_stay_in_range_and_never_cross(values: list[float], a: float, b: float) -> None:
    ordered = sorted(values)
    low, high = (quantile(ordered, q) for q in sorted((a, b)))
    assert low is not None and high is not None
    assert ordered[0] <= low <= high <= ordered[-1]


@given(values)
def test_the_middle_is_the_median(values: list[float]) -> None:
    assert quantile(sorted(values), 0.5) == pytest.approx(statistics.median(values))


def test_of_nothing_there_is_no_percentile() -> None:
    assert quantile([], 0.5) is None
    assert LatencyHistogram((1.0, 2.0), (0,)).quantile(0.5) is None
    assert merged([]) is None


@given(st.lists(st.floats(0.2, 900), min_size=1, max_size=300), shares)
def test_a_histograms_percentile_is_within_a_bucket_of_the_true_one(values: list[float], q: float) -> None:
    edges = tuple(0.1 * 1.1**i for i in range(100))
    counts = [0] * 99
    for value in values:
        counts[next(i for i in range(99) if value <= edges[i + 1])] += 1
    estimate = LatencyHistogram(edges, tuple(counts)).quantile(q)
    # The nearest rank: a histogram does not interpolate between values.
    rank = max(0, min(len(values) - 1, int(-(-q * len(values) // 1)) - 1))
    assert estimate is not None
    assert sorted(values)[rank] / 1.101 <= estimate <= sorted(values)[rank] * 1.101


@given(st.data(), st.integers(1, 5))
def test_merging_keeps_every_count(data: st.DataObject, number: int) -> None:
    parts = [data.draw(histograms()) for _ in range(number)]
    together = merged(parts)
    assert together is not None
    assert together.total == sum(part.total for part in parts)


@given(st.data())
def test_merging_histograms_of_the_same_edges_is_adding_their_counts_in_any_order(data: st.DataObject) -> None:
    edges = (0.5, 1.0, 2.0, 4.0)
    a, b = data.draw(histograms(edges)), data.draw(histograms(edges))
    assert (
        merged([a, b])
        == merged([b, a])
        == LatencyHistogram(edges, tuple(map(sum, zip(a.counts, b.counts, strict=True))))
    )


def test_edges_that_end_sooner_lose_nothing() -> None:
    long, short = LatencyHistogram((1.0, 2.0, 4.0, 8.0), (1, 2, 3)), LatencyHistogram((1.0, 2.0), (5,))
    assert merged([long, short]) == merged([short, long]) == LatencyHistogram(long.edges, (6, 2, 3))


@given(histograms(), histograms(), shares)
def test_a_merged_percentile_lies_between_those_of_its_parts(
    a: LatencyHistogram, b: LatencyHistogram, q: float
) -> None:
    b = LatencyHistogram(a.edges, tuple(b.counts[i % len(b.counts)] for i in range(len(a.counts))))
    together = merged([a, b])
    values = [value for part in (a, b) if (value := part.quantile(q)) is not None]
    assert together is not None
    whole = together.quantile(q)
    if whole is None:
        assert values == []
    else:
        assert min(values) * (1 - 1e-9) <= whole <= max(values) * (1 + 1e-9)


@given(histograms())
def test_the_drawn_distribution_rises_to_one(histogram: LatencyHistogram) -> None:
    points = histogram.cumulative()
    if not histogram.total:
        assert points == []
        return
    assert points == sorted(points)
    assert points[0][1] == 0
    assert points[-1][1] == 1


@pytest.mark.parametrize(
    ("edges", "counts", "expected"),
    [
        ((1.0, 2.0), (1, 2), "bound 1 buckets, not 2"),
        ((2.0, 1.0), (1,), "must increase"),
        ((-1.0, 1.0), (1,), "must increase from 0"),
        ((1.0, 2.0), (-1,), "negative"),
    ],
)
def test_a_histogram_that_makes_no_sense_is_refused(
    edges: tuple[float, ...], counts: tuple[int, ...], expected: str
) -> None:
    with pytest.raises(ValueError, match=expected):
        LatencyHistogram(edges, counts)


@given(st.floats(-100, 100), st.lists(st.floats(0, 1000), min_size=1, max_size=5))
def test_a_restart_at_another_height_does_not_change_a_slope(rise: float, heights: list[float]) -> None:
    lives = [
        [(float(100 * i + x), height + rise * (100 * i + x)) for x in range(10)] for i, height in enumerate(heights)
    ]
    assert slope(lives) == pytest.approx(rise, abs=1e-6)


def test_too_little_has_no_slope() -> None:
    assert slope([[(1.0, 5.0)], []]) is None
