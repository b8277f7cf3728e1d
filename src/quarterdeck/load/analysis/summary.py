"""The figures of a run, used by budgets, tables and comparisons. Pure.

Definitions:

- Latencies are those of answered requests (outcome `ok`) and count from when a request was due.
- A gap (inter-token latency, ITL) is the time between two chunks of a stream, over all streams.
- Goodput counts answered requests that met every objective (SLO); an error meets none.
- The warm-up is excluded.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from quarterdeck.load.analysis import distribution
from quarterdeck.load.analysis.distribution import LatencyHistogram, quantile
from quarterdeck.load.analysis.knee import KEPT_SHARE
from quarterdeck.load.analysis.results import BASELINE, MAIN, ProcessReading, Request, Results

LAG_SHARE = 0.05
"""Lag up to this share of a latency is not worth a word."""
BOTTLENECK_SHARE = 0.25
"""Lag above this share of the median makes the client the bottleneck: the default of the budget `client_lag`."""
TIMER_MS, SLICE_MS = 1.5, 5.0
"""Lag of an idle client, which does not make it a bottleneck: timers have a resolution of a millisecond (p50), and a
process that wakes while another one runs waits for the end of its time slice (p99)."""
MIN_STEP_REQUESTS = 50
"""Minimum mean number of requests per step over time."""
SETTLE_SECONDS = 60.0
"""Growth excludes a process's first minute, or first third if that is longer, in which it fills its caches."""
MIB = 2**20


@dataclass(frozen=True)
class Measured:
    """The measurements of one target of a run."""

    label: str
    requests: tuple[Request, ...]
    gaps: Mapping[str, LatencyHistogram]
    """By scenario."""
    seconds: float
    """Measured time, over all rounds."""
    slo: Mapping[str, float] = field(default_factory=dict)
    rounds: int = 1

    @cached_property
    def answered(self) -> tuple[Request, ...]:
        return tuple(request for request in self.requests if request.is_ok)

    @cached_property
    def judged(self) -> tuple[Request, ...]:
        """Requests that should be answered: all except those of misbehaving clients rejected as intended."""
        return tuple(request for request in self.requests if request.is_ok or request.is_error)

    @cached_property
    def scenarios(self) -> tuple[str, ...]:
        return tuple(sorted({request.scenario for request in self.requests}))

    @cached_property
    def all_gaps(self) -> LatencyHistogram | None:
        return distribution.merged(self.gaps.values())

    @cached_property
    def ttft(self) -> list[float]:
        return sorted(ms for request in self.answered if (ms := request.ttft_ms) is not None)

    @cached_property
    def total(self) -> list[float]:
        return sorted(request.total_ms for request in self.answered)

    @cached_property
    def lag(self) -> list[float]:
        return sorted(request.lag_ms for request in self.requests)

    @cached_property
    def good(self) -> int:
        return sum(keeps(request, self.slo) for request in self.answered)

    @property
    def errors(self) -> int:
        return sum(request.is_error for request in self.requests)

    @property
    def error_rate(self) -> float | None:
        return self.errors / len(self.judged) if self.judged else None

    @property
    def goodput_share(self) -> float | None:
        return self.good / len(self.judged) if self.judged else None

    @property
    def answered_per_second(self) -> float | None:
        return len(self.answered) / self.seconds if self.seconds else None

    @property
    def goodput_per_second(self) -> float | None:
        return self.good / self.seconds if self.seconds else None

    @property
    def tokens_per_second(self) -> float | None:
        return sum(request.output_tokens for request in self.answered) / self.seconds if self.seconds else None

    def of(self, scenario: str) -> "Measured":
        """The measurements of one scenario."""
        rows = tuple(request for request in self.requests if request.scenario == scenario)
        gaps = {scenario: self.gaps[scenario]} if scenario in self.gaps else {}
        return Measured(scenario, rows, gaps, self.seconds, self.slo, self.rounds)


def measured(results: Results, target: str = MAIN, label: str | None = None) -> Measured:
    """The measurements of one target, without the warm-up."""
    after = results.run.warmup_seconds
    rows = tuple(r for r in results.requests if r.target == target and r.intended >= after)
    gaps = {scenario: histogram for (of, scenario), histogram in results.gaps.items() if of == target}
    return Measured(label or target, rows, gaps, results.run.seconds * results.rounds, results.run.slo, results.rounds)


def sides(results: Results) -> list[Measured]:
    """The measurements of the target and, if there is one, of the baseline."""
    labels = {MAIN: "target", BASELINE: "baseline"}
    found = [target for target in results.targets if target in labels] or [MAIN]
    return [measured(results, target, labels[target]) for target in found]


def keeps(request: Request, slo: Mapping[str, float]) -> bool:
    """Whether an answer met every objective. Objectives on values that it does not have do not apply.

    ITL is judged by the mean gap: one late token in a thousand does not make an answer bad.
    """
    values = {"ttft_ms": request.ttft_ms, "itl_ms": request.itl_ms, "total_ms": request.total_ms}
    return request.is_ok and all((value := values.get(name)) is None or value <= limit for name, limit in slo.items())


@dataclass(frozen=True, slots=True)
class Step:
    """The measurements of one rate, or of one stretch of time."""

    at: float
    """The rate in arrivals/s, or the middle of the stretch in seconds."""
    part: Measured

    @property
    def kept_share(self) -> float:
        return self.part.goodput_share or 0.0


def over_time(side: Measured, points: int = 60) -> list[Step]:
    """Split the run into even stretches, by when requests were due."""
    if not side.requests:
        return []
    first = min(request.intended for request in side.requests)
    last = max(request.intended for request in side.requests)
    # Wide enough for a meaningful p99.
    points = max(1, min(points, len(side.requests) // side.rounds // MIN_STEP_REQUESTS))
    width = even_width((last - first) / points)
    rows: dict[int, list[Request]] = {}
    for request in side.requests:
        rows.setdefault(int((request.intended - first) / width), []).append(request)
    # Each round fills every stretch once.
    return [
        Step(first + (i + 0.5) * width, Measured(side.label, tuple(rows[i]), {}, width * side.rounds, side.slo))
        for i in sorted(rows)
        if (i + 1) * width <= last - first or len(rows) == 1  # an incomplete last stretch would look like a drop
    ]


def even_width(seconds: float) -> float:
    """The next round width."""
    widths = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800)
    return float(next((width for width in widths if width >= seconds), 3600))


def by_rate(side: Measured, most: int = 12) -> list[Step]:
    """Split the run by scheduled rate. Many rates, as in a ramp, are merged into at most `most` groups."""
    rows: dict[float, list[Request]] = {}
    for request in side.requests:
        if request.rate:
            rows.setdefault(request.rate, []).append(request)
    rates = sorted(rows)
    if len(rates) < 2:
        return []
    size = -(-len(rates) // most)
    groups = [rates[i : i + size] for i in range(0, len(rates), size)]
    steps = []
    for group in groups:
        held = tuple(request for rate in group for request in rows[rate])
        mean = sum(request.rate or 0 for request in held) / len(held)
        # Time at these rates: the scheduled requests of each rate, divided by it.
        seconds = sum(len(rows[rate]) / rate for rate in group)
        steps.append(Step(mean, Measured(side.label, held, {}, seconds, side.slo)))
    return steps


def knee(steps: Sequence[Step]) -> float | None:
    """The highest rate up to which the server kept up with every rate. None: not even with the lowest."""
    best = None
    for step in steps:
        if step.kept_share < KEPT_SHARE:
            break
        best = step.at
    return best


# ---- the client itself -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lag:
    """The client's lag and the measured latencies, at p50 and p99, in milliseconds."""

    p50: float
    p99: float
    answer_p50: float
    answer_p99: float

    @property
    def share(self) -> float:
        """The larger of the client's shares of p50 and p99."""
        return max(_part(self.p50, self.answer_p50), _part(self.p99, self.answer_p99))

    @property
    def busy_part_of_p50(self) -> float:
        """The client's share of p50, without the lag of an idle client."""
        return _part(self.p50 - TIMER_MS, self.answer_p50)

    @property
    def busy_part_of_p99(self) -> float:
        return _part(self.p99 - SLICE_MS, self.answer_p99)

    @property
    def is_bottleneck(self) -> bool:
        """Whether the median says more about the client than it should."""
        return self.busy_part_of_p50 > BOTTLENECK_SHARE

    @property
    def is_late(self) -> bool:
        """Whether a reader has to know of the lag, at the median or at p99."""
        return max(self.busy_part_of_p50, self.busy_part_of_p99) > LAG_SHARE


def _part(late_ms: float, answer_ms: float) -> float:
    return max(0.0, late_ms) / answer_ms if answer_ms > 0 else 0.0


def lag(side: Measured) -> Lag | None:
    answers = sorted(request.answer_ms for request in side.answered)
    p50, p99 = quantile(side.lag, 0.5), quantile(side.lag, 0.99)
    answer_p50, answer_p99 = quantile(answers, 0.5), quantile(answers, 0.99)
    if p50 is None or p99 is None or answer_p50 is None or answer_p99 is None:
        return None
    return Lag(p50, p99, answer_p50, answer_p99)


# ---- processes and money ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Growth:
    """Memory growth of a process after settling."""

    name: str
    mib_per_hour: float | None
    minutes: float
    """Observed time after settling. A slope over few minutes means little."""


def growth(results: Results) -> list[Growth]:
    """Growth by process name; restarts are fitted in parts, with one slope."""
    named: dict[str, list[Sequence[ProcessReading]]] = {}
    for (name, _), samples in results.processes.items():
        named.setdefault(name, []).append(settled(samples))
    found = []
    for name, parts in sorted(named.items()):
        per_second = distribution.slope([[(s.at, s.rss_bytes / MIB) for s in part] for part in parts])
        minutes = sum(part[-1].at - part[0].at for part in parts if part) / 60
        found.append(Growth(name, None if per_second is None else per_second * 3600, minutes))
    return found


def settled(samples: Sequence[ProcessReading]) -> Sequence[ProcessReading]:
    if not samples:
        return samples
    life = samples[-1].at - samples[0].at
    start = samples[0].at + max(SETTLE_SECONDS, life / 3)
    return [sample for sample in samples if sample.at >= start]


def metric(results: Results, name: str) -> list[tuple[float, float]]:
    """A counter summed over its labels, at each scrape."""
    sums: dict[float, float] = {}
    for series, points in results.series.items():
        if series.partition("{")[0].removesuffix("_total") == name:
            for at, value in points:
                sums[at] = sums.get(at, 0.0) + value
    return sorted(sums.items())


def rise(points: Sequence[tuple[float, float]]) -> float:
    """The increase of a counter, taking resets into account."""
    pairs = itertools.pairwise(points)
    return sum(after - before if after >= before else after for (_, before), (_, after) in pairs)


def cost(results: Results) -> float | None:
    """Dollars reported in the answers, else counted by the gateway. None: unknown."""
    costs = [request.cost for request in results.requests if request.cost is not None and request.target == MAIN]
    if costs:
        return sum(costs)
    counted = metric(results, "quarterdeck_cost_dollars")
    return rise(counted) if len(counted) > 1 else None


def cost_drift(results: Results) -> float | None:
    """The relative change of the price per token from the first to the second half of the run. None: unknown.

    The traffic mix is constant, so a changed price means that something is counted twice or not at all.
    """
    main = [r for r in results.requests if r.target == MAIN]
    priced = [r for r in main if r.cost is not None]
    if priced:
        middle = (min(r.ended for r in priced) + max(r.ended for r in priced)) / 2
        halves = [[r for r in priced if (r.ended < middle) == is_first] for is_first in (True, False)]
        return _drift([(sum(r.cost or 0 for r in half), tokens(half)) for half in halves])
    counted = metric(results, "quarterdeck_cost_dollars")
    token_counts = metric(results, "quarterdeck_tokens")
    if len(counted) < 4 or len(token_counts) < 4:
        return None
    middle = (counted[0][0] + counted[-1][0]) / 2

    def half(points: Sequence[tuple[float, float]], *, is_first: bool) -> float:
        return rise([point for point in points if (point[0] < middle) == is_first])

    return _drift(
        [(half(counted, is_first=is_first), half(token_counts, is_first=is_first)) for is_first in (True, False)]
    )


def tokens(requests: Iterable[Request]) -> int:
    return sum(request.input_tokens + request.output_tokens for request in requests)


def _drift(halves: Sequence[tuple[float, float]]) -> float | None:
    (first, first_tokens), (second, second_tokens) = halves
    if not (first and first_tokens and second_tokens):
        return None
    return (second / second_tokens) / (first / first_tokens) - 1
