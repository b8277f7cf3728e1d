"""How many replicas a Model should have. Pure: no clock, no network.

A plain rule of requests in flight. Upward at once; downward only when fewer would have been enough for a while, and
never while a replica is starting: a model that is still loading must not be stopped for being idle.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from quarterdeck.kube.resources.scaling import Scaling


@dataclass(frozen=True, slots=True)
class Demand:
    """Requests for one Model in all gateways."""

    in_flight: int = 0
    waiting: int = 0
    """Requests without an endpoint."""
    is_complete: bool = False
    """Whether every gateway has answered; without that, nothing is scaled down."""

    @property
    def total(self) -> int:
        return self.in_flight + self.waiting


@dataclass(frozen=True, slots=True)
class Situation:
    """What the rule looks at. Times are monotonic seconds."""

    scaling: Scaling
    suspended: bool
    current: int | None
    """Replicas that the backend is asked for; None: there is no backend object yet."""
    ready: int
    was_suspended: bool
    demand: Demand
    idle_seconds: float
    """Since the last request was seen, or since the operator or the first replica started."""
    recent_wants: Sequence[int] = ()
    """What the rule wanted in the last `down_seconds`, this moment left out."""


@dataclass(frozen=True, slots=True)
class Decision:
    """A number of replicas and why."""

    replicas: int
    reason: str


def wanted(scaling: Scaling, demand: Demand) -> int:
    """Replicas for the demand alone."""
    return math.ceil(demand.total / scaling.target)


def decide(situation: Situation) -> Decision:
    """Return the number of replicas, within `min` and `max`, or 0 if suspended."""
    scaling = situation.scaling
    low, high = scaling.min, max(scaling.upper, scaling.min)
    if situation.suspended:
        return Decision(0, "suspended")
    if scaling.replicas is not None:
        replicas = min(max(scaling.replicas, low), high)
        return Decision(replicas, "set by spec.scaling.replicas")
    want = min(max(wanted(scaling, situation.demand), low), high)
    if situation.current is None:
        return Decision(max(want, 1), "created")
    current = situation.current
    if current == 0 and situation.was_suspended:
        return Decision(max(want, 1), "resumed")
    if current < low or current > high:
        return Decision(min(max(current, want), high), "bounds of spec.scaling")
    if want > current:
        return Decision(want, _reason(situation.demand, scaling.target))
    return _down(situation, current, want, low)


def _down(situation: Situation, current: int, want: int, low: int) -> Decision:
    """`current`, or fewer."""
    stay = Decision(current, "unchanged")
    if want >= current or not situation.demand.is_complete or situation.ready < current or current == 0:
        return stay
    scaling = situation.scaling
    if low == 0 and situation.demand.total == 0 and situation.idle_seconds >= scaling.idle_seconds:
        return Decision(0, f"no request for {scaling.idle_seconds} s")
    enough = max(want, low, 1, *situation.recent_wants)
    if enough < current:
        return Decision(enough, _reason(situation.demand, scaling.target))
    return stay


def _reason(demand: Demand, target: int) -> str:
    waiting = f" and {demand.waiting} waiting" if demand.waiting else ""
    return f"{demand.in_flight} requests in flight{waiting}, target {target} per replica"
