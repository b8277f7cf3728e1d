"""Finds the knee: the rate at which a server stops keeping up while the load rises. Pure."""

from dataclasses import dataclass, field

KEPT_SHARE = 0.95
"""A server keeps up with a step if at least this share of its requests is answered within the objectives …"""
EXPLODED = 5.0
"""… and its p99 is at most this many times that of the lowest step."""
GROWN = 1.02
"""Goodput must exceed the best so far by this factor to count as growing."""


@dataclass(frozen=True, slots=True)
class RampStep:
    """The result of one rate."""

    rate: float
    """Scheduled arrivals per second."""
    goodput: float
    """Answers per second within the objectives."""
    p99_ms: float | None
    """Time to the first token, or to the answer if nothing is streamed. None: no answer."""

    @property
    def kept_share(self) -> float:
        return self.goodput / self.rate


@dataclass
class KneeFinder:
    """Takes steps as they end. The knee is the last step that the server kept up with."""

    steps: list[RampStep] = field(default_factory=list)
    knee: RampStep | None = None
    reason: str | None = None
    """Why the ramp should stop; None: it should go on."""

    def add(self, step: RampStep) -> str | None:
        """Add a finished step; return why the ramp should stop, or None."""
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
        """The result in one line."""
        why = self.reason or "the ramp ended before the server was saturated"
        if self.knee is None:
            return f"No knee: the server did not keep up with the lowest rate; {why}."
        p99 = "" if self.knee.p99_ms is None else f" (p99 of the first answer {self.knee.p99_ms:.0f} ms)"
        above = next((step.rate for step in self.steps if step.rate > self.knee.rate), None)
        between = "" if above is None else f", below {above:.1f}"
        return f"Knee: {self.knee.rate:.1f} requests/s{between}{p99}; {why}."
