"""The measurements of one request, and histograms of the gaps between tokens. Pure, without locust."""

import bisect
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.objectives import Slo

EDGES_MS: tuple[float, ...] = (0.0, *(round(0.05 * 1.04**i, 6) for i in range(360)))
"""Bucket edges for gaps: 4 % wide, from 50 µs to more than a minute. Everything below 50 µs is one bucket."""
COLUMNS = (
    "target", "scenario", "intended", "started", "first_token", "ended", "status", "outcome", "input_tokens",
    "cached_tokens", "output_tokens", "pieces", "itl_ms_mean", "itl_ms_p50", "itl_ms_p99", "itl_ms_max", "cache",
    "request_id", "cost", "rate",
)  # fmt: skip
"""The columns of requests.csv. Workers send their rows to the master in this form."""

OK = "ok"
EXPECTED = "expected:"


@dataclass(slots=True)
class Sample:
    """One request as the client saw it. Times are Unix seconds."""

    scenario: str
    intended: float
    """When the schedule made it due; in a closed loop, when it was sent."""
    started: float
    rate: float | None = None
    ended: float = 0.0
    first_token: float | None = None
    last_token: float | None = None
    status: int = 0
    """HTTP status; 0: no response."""
    outcome: str = OK
    """`ok`, an error code, or `expected:…` for a misbehaving client that was rejected as intended."""
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    pieces: int = 0
    """Stream events with text or part of a tool call."""
    gaps_ms: list[float] = field(default_factory=list)
    cache: str = ""
    request_id: str = ""
    cost: float | None = None
    bytes: int = 0

    @property
    def is_ok(self) -> bool:
        return self.outcome == OK

    @property
    def is_error(self) -> bool:
        return not self.is_ok and not self.outcome.startswith(EXPECTED)

    @property
    def total_ms(self) -> float:
        return (self.ended - self.intended) * 1e3

    @property
    def ttft_ms(self) -> float | None:
        return None if self.first_token is None else (self.first_token - self.intended) * 1e3

    @property
    def answer_ms(self) -> float:
        """Until the first token; until the end for an answer that is not streamed."""
        return self.total_ms if self.ttft_ms is None else self.ttft_ms

    @property
    def tokens_per_second(self) -> float | None:
        """From the first token of the stream to its last. None: fewer than two tokens."""
        if self.first_token is None or self.last_token is None or self.last_token <= self.first_token:
            return None
        return (max(self.output_tokens, self.pieces) - 1) / (self.last_token - self.first_token)

    def add_piece(self, at: float) -> None:
        """Record a token event."""
        if self.last_token is None:
            self.first_token = at
        else:
            self.gaps_ms.append((at - self.last_token) * 1e3)
        self.last_token = at
        self.pieces += 1

    def keeps(self, slo: Slo) -> bool:
        """Whether the answer met every objective. Objectives on values that it does not have do not apply."""
        mean = sum(self.gaps_ms) / len(self.gaps_ms) if self.gaps_ms else None
        pairs = ((self.ttft_ms, slo.ttft_ms), (mean, slo.itl_ms), (self.total_ms, slo.total_ms))
        return self.is_ok and all(got is None or limit is None or got <= limit for got, limit in pairs)

    def row(self, target: str) -> list[str | float | int | None]:
        """The values of COLUMNS."""
        gaps = sorted(self.gaps_ms)
        mean = sum(gaps) / len(gaps) if gaps else None
        figures = (mean, quantile(gaps, 0.5), quantile(gaps, 0.99), gaps[-1] if gaps else None)
        return [
            target, self.scenario, round(self.intended, 6), round(self.started, 6),
            None if self.first_token is None else round(self.first_token, 6), round(self.ended, 6),
            self.status, self.outcome, self.input_tokens, self.cached_tokens, self.output_tokens, self.pieces,
            *(None if figure is None else round(figure, 3) for figure in figures),
            self.cache, self.request_id, self.cost, None if self.rate is None else round(self.rate, 3),
        ]  # fmt: skip


def from_row(row: Sequence[Any]) -> Sample:
    """Restore a sample from a row, with the mean as its only gap: enough to check objectives."""
    value = dict(zip(COLUMNS, row, strict=True))
    mean = value["itl_ms_mean"]
    return Sample(
        scenario=value["scenario"],
        intended=value["intended"],
        started=value["started"],
        ended=value["ended"],
        first_token=value["first_token"],
        outcome=value["outcome"],
        output_tokens=value["output_tokens"],
        gaps_ms=[] if mean is None else [mean],
    )


@dataclass
class Gaps:
    """Counts of gaps by scenario in the buckets of EDGES_MS. Sparse: bucket → count."""

    counts: dict[str, dict[int, int]] = field(default_factory=dict)

    def add(self, scenario: str, gaps_ms: list[float]) -> None:
        held = self.counts.setdefault(scenario, {})
        for gap in gaps_ms:
            bucket = min(max(bisect.bisect_left(EDGES_MS, gap) - 1, 0), len(EDGES_MS) - 2)
            held[bucket] = held.get(bucket, 0) + 1

    def merge(self, other: dict[str, dict[int, int]]) -> None:
        for scenario, counts in other.items():
            held = self.counts.setdefault(scenario, {})
            for bucket, count in counts.items():
                held[bucket] = held.get(bucket, 0) + count

    def as_json(self) -> dict[str, dict[str, list[float] | list[int]]]:
        """The content of itl.json for one target. Edges end with the last non-empty bucket."""
        found: dict[str, dict[str, list[float] | list[int]]] = {}
        last = max(itertools.chain.from_iterable(self.counts.values()), default=0)
        for scenario, counts in self.counts.items():
            if counts:
                found[scenario] = {
                    "edges_ms": list(EDGES_MS[: last + 2]),
                    "counts": [counts.get(bucket, 0) for bucket in range(last + 1)],
                }
        return found
