"""Where a server stops keeping up, found while the load rises. Pure: finished steps in, a verdict out."""

from dataclasses import dataclass, field

KEPT_SHARE = 0.95
"""A step is kept up with while at least this share of what was asked for is answered within the objectives …"""
EXPLODED = 5.0
"""… and its p99 is at most so many times the lowest step's."""
GROWN = 1.02
"""Goodput that is not above the best so far by this much no longer grows."""


@dataclass(frozen=True, slots=True)
class Step:
    """What came of one rate."""

    rate: float
    """Arrivals a second that were wanted."""
    goodput: float
    """Answers a second that kept the objectives."""
    p99_ms: float | None
    """To the first token, or to the answer where nothing is streamed. None: there was no answer."""

    @property
    def kept_share(self) -> float:
        return self.goodput / self.rate


@dataclass
class KneeFinder:
    """Takes steps as they end. A knee is the last step that was kept up with."""

    steps: list[Step] = field(default_factory=list)
    knee: Step | None = None
    reason: str | None = None
    """Why it is over; None: it is not."""

    def add(self, step: Step) -> str | None:
        """Returns why the ramp should stop, or None."""
        best = max((s.goodput for s in self.steps), default=0.0)
        lowest = next((s.p99_ms for s in self.steps if s.p99_ms), None)
        self.steps.append(step)
        if step.p99_ms is None:
            self.reason = f"no answer at {step.rate:.0f}/s"
        elif lowest and step.p99_ms > EXPLODED * lowest:
            self.reason = f"p99 at {step.rate:.0f}/s is {step.p99_ms / lowest:.1f} times that of the first step"
        elif step.kept_share < KEPT_SHARE and step.goodput < best * GROWN:
            self.reason = f"goodput no longer grows at {step.rate:.0f}/s ({step.goodput:.0f}/s, best {best:.0f}/s)"
        elif step.kept_share >= KEPT_SHARE:
            self.knee = step
        return self.reason

    def verdict(self) -> str:
        """What was found, in a line."""
        why = self.reason or "the ramp ended before anything gave in"
        if self.knee is None:
            return f"No knee: not even the lowest rate was kept up with; {why}."
        p99 = "" if self.knee.p99_ms is None else f" (p99 of the first answer {self.knee.p99_ms:.0f} ms)"
        above = next((step.rate for step in self.steps if step.rate > self.knee.rate), None)
        between = "" if above is None else f", below {above:.1f}"
        return f"Knee: {self.knee.rate:.1f} requests/s{between}{p99}; {why}."
