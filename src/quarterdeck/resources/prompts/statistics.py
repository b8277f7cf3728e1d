"""Confidence intervals and sample sizes for comparing two versions of a prompt. Pure.

Rates: Wilson's interval, and Newcombe's for a difference, which hold for few requests and for rates near 0. Means:
Welch's, which does not assume equal variances. Quantiles: by order statistics, which assume no distribution.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

CONFIDENCE = 0.95
POWER = 0.8
"""Probability that `requests_to_tell` requests show a difference that exists."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value, and the interval that holds the true one with the stated confidence."""

    value: float
    low: float
    high: float

    def minus(self, other: "Estimate") -> "Estimate":
        """The difference of two independent estimates (Newcombe's method, or MOVER)."""
        value = self.value - other.value
        below = math.hypot(self.value - self.low, other.high - other.value)
        above = math.hypot(self.high - self.value, other.value - other.low)
        return Estimate(value, value - below, value + above)


def z_of(confidence: float) -> float:
    """The two-sided quantile of the normal distribution."""
    return NormalDist().inv_cdf((1 + confidence) / 2)


def rate(hits: int, total: int, confidence: float = CONFIDENCE) -> Estimate:
    """Wilson's interval of a proportion. Of nothing: anything."""
    if total == 0:
        return Estimate(0.0, 0.0, 1.0)
    z, share = z_of(confidence), hits / total
    center = (share + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    return Estimate(share, max(0.0, min(center - half, share)), min(1.0, max(center + half, share)))


@dataclass(frozen=True, slots=True)
class Moments:
    """Number, mean and sample variance of values."""

    count: int
    mean: float
    variance: float

    @classmethod
    def of(cls, values: Sequence[float]) -> "Moments":
        count = len(values)
        if count == 0:
            return cls(0, 0.0, 0.0)
        mean = math.fsum(values) / count
        if count == 1:
            return cls(1, mean, 0.0)
        return cls(count, mean, math.fsum((value - mean) ** 2 for value in values) / (count - 1))

    def times(self, factor: float) -> "Moments":
        return Moments(self.count, self.mean * factor, self.variance * factor * factor)

    def estimate(self, confidence: float = CONFIDENCE) -> Estimate:
        """The mean, with Student's interval. Of fewer than two values: anything."""
        if self.count < 2:
            return Estimate(self.mean, -math.inf, math.inf)
        half = t_of(confidence, self.count - 1) * math.sqrt(self.variance / self.count)
        return Estimate(self.mean, self.mean - half, self.mean + half)


def difference_of_means(first: Moments, second: Moments, confidence: float = CONFIDENCE) -> Estimate:
    """`first` minus `second`, with Welch's interval."""
    value = first.mean - second.mean
    if first.count < 2 or second.count < 2:
        return Estimate(value, -math.inf, math.inf)
    one, two = first.variance / first.count, second.variance / second.count
    if one + two == 0:
        return Estimate(value, value, value)
    weight = one * one / (first.count - 1) + two * two / (second.count - 1)
    freedom = (one + two) ** 2 / weight if weight else first.count + second.count - 2.0
    half = t_of(confidence, freedom) * math.sqrt(one + two)
    return Estimate(value, value - half, value + half)


def quantile(ordered: Sequence[float], share: float, confidence: float = CONFIDENCE) -> Estimate:
    """A quantile of sorted values, with the interval between the order statistics that enclose it."""
    count = len(ordered)
    if count == 0:
        return Estimate(0.0, -math.inf, math.inf)
    half = z_of(confidence) * math.sqrt(count * share * (1 - share))
    low, high = math.floor(count * share - half), math.ceil(count * share + half)
    value = ordered[min(count - 1, math.ceil(count * share) - 1 if share else 0)]
    return Estimate(
        value, ordered[low - 1] if low >= 1 else -math.inf, ordered[high] if high <= count - 1 else math.inf
    )


def requests_to_tell(variances: float, effect: float, confidence: float = CONFIDENCE) -> int | None:
    """About how many requests of each version show a difference of `effect`, where the variances of one request of
    either add up to `variances`. None: there is no difference to show."""
    if effect == 0 or not math.isfinite(variances):
        return None
    z = z_of(confidence) + NormalDist().inv_cdf(POWER)
    return max(2, math.ceil(z * z * variances / (effect * effect)))


def t_of(confidence: float, freedom: float) -> float:
    """The two-sided quantile of Student's distribution: exact for 1 and 2 degrees of freedom, else by Hill's expansion
    (Algorithm 396), which is right to four digits."""
    tail = 1 - confidence
    if freedom < 1.5:
        return 1 / math.tan(math.pi * tail / 2)
    if freedom < 2.5:
        return math.sqrt(2 / (tail * (2 - tail)) - 2)
    a = 1 / (freedom - 0.5)
    b = 48 / (a * a)
    c = ((20700 * a / b - 98) * a - 16) * a + 96.36
    d = ((94.5 / (b + c) - 3) / b + 1) * math.sqrt(a * math.pi / 2) * freedom
    y = (d * tail) ** (2 / freedom)
    if y > 0.05 + a:
        x = NormalDist().inv_cdf(tail / 2)
        y = x * x
        if freedom < 5:
            c += 0.3 * (freedom - 4.5) * (x + 0.6)
        c = (((0.05 * d * x - 5) * x - 7) * x - 2) * x + b + c
        y = (((((0.4 * y + 6.3) * y + 36) * y + 94.5) / c - y - 3) / b + 1) * x
        y = a * y * y
        y = math.expm1(y) if y > 0.002 else 0.5 * y * y + y
    else:
        y = (
            (1 / (((freedom + 6) / (freedom * y) - 0.089 * d - 0.822) * (freedom + 2) * 3) + 0.5 / (freedom + 4)) * y
            - 1
        ) * (freedom + 1) / (freedom + 2) + 1 / y
    return math.sqrt(freedom * y)
