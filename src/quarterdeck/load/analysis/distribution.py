"""Percentiles, slopes and log-bucketed histograms. Pure."""

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass


def quantile(ordered: Sequence[float], q: float) -> float | None:
    """The `q` quantile of ordered values, interpolated linearly. None: no values."""
    if not ordered:
        return None
    place = q * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    # Clamp: rounding of a + (b - a) * f could exceed b, and percentiles must never cross.
    return min(ordered[high], ordered[low] + (ordered[high] - ordered[low]) * (place - low))


def slope(groups: Iterable[Sequence[tuple[float, float]]]) -> float | None:
    """Slope of the least-squares fit with one slope for all groups and an offset per group, so that a process restarted
    at a lower level does not look like a decrease. None: too few points."""
    rise = run = 0.0
    for points in groups:
        if len(points) < 2:
            continue
        mean_x = math.fsum(x for x, _ in points) / len(points)
        mean_y = math.fsum(y for _, y in points) / len(points)
        rise += math.fsum((x - mean_x) * (y - mean_y) for x, y in points)
        run += math.fsum((x - mean_x) ** 2 for x, _ in points)
    return rise / run if run else None


@dataclass(frozen=True, slots=True)
class LatencyHistogram:
    """Counts between edges: `counts[i]` values lie in `(edges[i], edges[i + 1]]`. Edges increase from 0 or more."""

    edges: tuple[float, ...]
    counts: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.counts) != len(self.edges) - 1:
            raise ValueError(f"{len(self.edges)} edges bound {len(self.edges) - 1} buckets, not {len(self.counts)}")
        if any(a >= b for a, b in itertools.pairwise(self.edges)) or self.edges[0] < 0:
            raise ValueError("histogram edges must increase from 0 or more")
        if any(count < 0 for count in self.counts):
            raise ValueError("histogram counts must not be negative")

    @property
    def total(self) -> int:
        return sum(self.counts)

    def quantile(self, q: float) -> float | None:
        """The `q` quantile, to within a bucket's width."""
        total = self.total
        if not total:
            return None
        wanted, seen = q * total, 0
        for low, high, count in zip(self.edges, self.edges[1:], self.counts, strict=False):
            if count and seen + count >= wanted:
                return between(low, high, max(0.0, wanted - seen) / count)
            seen += count
        return self.edges[-1]

    def cumulative(self) -> list[tuple[float, float]]:
        """(value, share at or below it) pairs for a plot. Empty: no values."""
        total = self.total
        if not total:
            return []
        first = next(i for i, count in enumerate(self.counts) if count)
        last = max(i for i, count in enumerate(self.counts) if count)
        shares = itertools.accumulate(self.counts[first : last + 1])
        return [
            (self.edges[first], 0.0),
            *((self.edges[first + 1 + i], seen / total) for i, seen in enumerate(shares)),
        ]


def between(low: float, high: float, part: float) -> float:
    """Interpolate between two edges, logarithmically if `low` is above 0, because buckets are log-spaced."""
    return low * (high / low) ** part if low > 0 else low + (high - low) * part


def merged(histograms: Iterable[LatencyHistogram]) -> LatencyHistogram | None:
    """Merge histograms; None without any. Edge lists may differ in length; the longest is used.

    A bucket of a histogram with other edges is added to the bucket that contains its middle.
    """
    waiting = list(histograms)
    if not waiting:
        return None
    edges = max((histogram.edges for histogram in waiting), key=lambda edges: (edges[-1], len(edges)))
    counts = [0] * (len(edges) - 1)
    for histogram in waiting:
        is_beginning = edges[: len(histogram.edges)] == histogram.edges
        for i, count in enumerate(histogram.counts):
            if is_beginning:
                counts[i] += count
            elif count:
                place = bisect.bisect_left(edges, between(histogram.edges[i], histogram.edges[i + 1], 0.5)) - 1
                counts[min(max(place, 0), len(counts) - 1)] += count
    return LatencyHistogram(edges, tuple(counts))
