"""Two versions of a prompt compared by what their requests did: a verdict, and when a guard's bound is broken. Pure.

Each measure has a difference with its confidence interval. If the interval excludes zero, the candidate is better or
worse; otherwise it is unclear, and the number of requests that would decide it is estimated. Measures are judged one by
one, at 95 % each: of twenty comparisons of equal versions, one shows a difference.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from quarterdeck.resources.prompts.statistics import (
    CONFIDENCE,
    Estimate,
    Moments,
    difference_of_means,
    quantile,
    rate,
    requests_to_tell,
)
from quarterdeck.settings.prompts import RolloutGuard

Verdict = Literal["better", "worse", "unclear"]

GUARD_CONFIDENCE = 0.997
"""Of a guard: it looks again and again, and would break a bound by chance with a lower one."""
SMALLEST_EFFECT = 0.05
"""The smallest relative difference that matters: the basis of `requests_to_tell` where none is seen."""
SMALLEST_RATE = 0.01
"""The same for a share of the requests."""


@dataclass(frozen=True, slots=True)
class Sample:
    """What a version's requests did. Answers from the cache have no cost and no duration."""

    version: int
    requests: int
    errors: int
    """Those that failed: at the engine or in the gateway, or refused by the engine."""
    costs: Sequence[float]
    """$ of each answer."""
    seconds: Sequence[float]
    """Duration of each answer."""
    scores: dict[str, Sequence[float]] = field(default_factory=dict)
    """Feedback and scores by name. Higher is better."""
    checked: int = 0
    """Answers that were checked against the version's schema. 0: it has none, or no answer was captured."""
    valid: int = 0
    """Those of them that it accepts."""


@dataclass(frozen=True, slots=True)
class Measure:
    """One measure of both versions. Infinite bounds: there are too few requests for any."""

    name: str
    baseline: Estimate
    candidate: Estimate
    difference: Estimate
    """Candidate minus baseline."""
    verdict: Verdict
    requests_to_tell: int | None
    """About how many requests of each version would decide it. None: it is decided, or there is no request yet."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """`verdict`: worse if any measure is, better if one is and none is worse."""

    baseline: Sample
    candidate: Sample
    measures: tuple[Measure, ...]
    verdict: Verdict
    requests_to_tell: int | None
    """The fewest of all measures."""


def compare(baseline: Sample, candidate: Sample, confidence: float = CONFIDENCE) -> Comparison:
    measures = [
        _rates(
            "error_rate",
            (baseline.errors, baseline.requests),
            (candidate.errors, candidate.requests),
            confidence,
            higher_is_better=False,
        ),
        _means("cost", baseline.costs, candidate.costs, confidence),
        _means("latency_mean", baseline.seconds, candidate.seconds, confidence),
        _quantiles("latency_p50", 0.5, baseline.seconds, candidate.seconds, confidence),
        _quantiles("latency_p95", 0.95, baseline.seconds, candidate.seconds, confidence),
    ]
    if baseline.checked or candidate.checked:
        checks = (baseline.valid, baseline.checked), (candidate.valid, candidate.checked)
        measures.append(_rates("schema_validity", *checks, confidence, higher_is_better=True))
    for name in sorted(baseline.scores.keys() | candidate.scores.keys()):
        scores = baseline.scores.get(name, ()), candidate.scores.get(name, ())
        measures.append(_means(f"score.{name}", *scores, confidence, higher_is_better=True))
    verdicts = {measure.verdict for measure in measures}
    verdict: Verdict = "worse" if "worse" in verdicts else "better" if "better" in verdicts else "unclear"
    numbers = [measure.requests_to_tell for measure in measures if measure.requests_to_tell is not None]
    fewest = min(numbers, default=None) if verdict == "unclear" else None
    return Comparison(baseline, candidate, tuple(measures), verdict, fewest)


def broken_bound(guard: RolloutGuard, baseline: Sample, candidate: Sample) -> str | None:
    """The bound that the candidate has broken, with the figures. None: no bound is broken with confidence."""
    if candidate.requests < guard.min_requests:
        return None
    errors = rate(candidate.errors, candidate.requests, GUARD_CONFIDENCE)
    if guard.max_error_rate is not None and errors.low > guard.max_error_rate:
        return (
            f"max_error_rate {guard.max_error_rate:g}: {candidate.errors} of {candidate.requests} requests of version"
            f" {candidate.version} failed"
        )
    if baseline.requests < guard.min_requests:
        return None
    if guard.max_error_rate_increase is not None:
        more = errors.minus(rate(baseline.errors, baseline.requests, GUARD_CONFIDENCE))
        if more.low > guard.max_error_rate_increase:
            return (
                f"max_error_rate_increase {guard.max_error_rate_increase:g}: {candidate.errors} of"
                f" {candidate.requests} requests of version {candidate.version} failed, and {baseline.errors} of"
                f" {baseline.requests} of version {baseline.version}"
            )
    ratios = (
        ("max_cost_ratio", guard.max_cost_ratio, baseline.costs, candidate.costs, "$"),
        ("max_latency_ratio", guard.max_latency_ratio, baseline.seconds, candidate.seconds, "s"),
    )
    for name, bound, before, after, unit in ratios:
        if bound is None or min(len(before), len(after)) < guard.min_requests:
            continue
        old, new = Moments.of(before), Moments.of(after)
        if difference_of_means(new, old.times(bound), GUARD_CONFIDENCE).low > 0:
            return (
                f"{name} {bound:g}: a request of version {candidate.version} took {new.mean:.6g} {unit} in the mean of"
                f" {new.count}, and one of version {baseline.version} {old.mean:.6g} {unit}"
            )
    return None


def _rates(
    name: str, before: tuple[int, int], after: tuple[int, int], confidence: float, *, higher_is_better: bool
) -> Measure:
    """`before` and `after`: how many of how many."""
    old, new = rate(*before, confidence), rate(*after, confidence)
    difference = new.minus(old)
    needed = None
    if before[1] and after[1]:
        # Wilson's centers: a rate of 0 in a few requests is not known to be 0.
        shares = [(count + 1) / (total + 2) for count, total in (before, after)]
        variances = sum(share * (1 - share) for share in shares)
        needed = requests_to_tell(variances, max(abs(difference.value), SMALLEST_RATE), confidence)
    return _measure(name, old, new, difference, needed, higher_is_better=higher_is_better)


def _means(
    name: str, old: Sequence[float], new: Sequence[float], confidence: float, *, higher_is_better: bool = False
) -> Measure:
    before, after = Moments.of(old), Moments.of(new)
    difference = difference_of_means(after, before, confidence)
    needed = None
    if before.count > 1 and after.count > 1:
        effect = max(abs(difference.value), abs(before.mean) * SMALLEST_EFFECT)
        needed = requests_to_tell(before.variance + after.variance, effect, confidence)
    estimates = before.estimate(confidence), after.estimate(confidence)
    return _measure(name, *estimates, difference, needed, higher_is_better=higher_is_better)


def _quantiles(name: str, share: float, old: Sequence[float], new: Sequence[float], confidence: float) -> Measure:
    before, after = quantile(sorted(old), share, confidence), quantile(sorted(new), share, confidence)
    return _measure(name, before, after, after.minus(before), None, higher_is_better=False)


def _measure(
    name: str,
    old: Estimate,
    new: Estimate,
    difference: Estimate,
    needed: int | None,
    *,
    higher_is_better: bool,
) -> Measure:
    verdict: Verdict = "unclear"
    if not math.isnan(difference.value):
        if difference.low > 0:
            verdict = "better" if higher_is_better else "worse"
        elif difference.high < 0:
            verdict = "worse" if higher_is_better else "better"
    return Measure(name, old, new, difference, verdict, needed if verdict == "unclear" else None)


def comparison_object(found: Comparison) -> dict[str, object]:
    """As the API shows it. An infinite bound is null."""
    return {
        "baseline": _sample_object(found.baseline),
        "candidate": _sample_object(found.candidate),
        "verdict": found.verdict,
        "requests_to_tell": found.requests_to_tell,
        "measures": [
            {
                "name": measure.name,
                "baseline": _estimate_object(measure.baseline),
                "candidate": _estimate_object(measure.candidate),
                "difference": _estimate_object(measure.difference),
                "verdict": measure.verdict,
                "requests_to_tell": measure.requests_to_tell,
            }
            for measure in found.measures
        ],
    }


def _sample_object(sample: Sample) -> dict[str, object]:
    return {"version": sample.version, "requests": sample.requests, "errors": sample.errors}


def _estimate_object(estimate: Estimate) -> dict[str, float | None]:
    values = {"value": estimate.value, "low": estimate.low, "high": estimate.high}
    return {name: value if math.isfinite(value) else None for name, value in values.items()}
