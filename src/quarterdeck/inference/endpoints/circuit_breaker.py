"""The circuit breaker of an endpoint: the one rule for when failures eject it, for how long, and how it comes back.

closed
    Requests go there. Three failures in a row, or failures in half of its recent calls, open it.
open
    Ejected: it gets requests only when no other endpoint is left. Ten seconds at first, then twice as long each time.
half-open
    The time is over. One request at a time may go there as a probe; the first success closes the breaker, a failure
    opens it again.

Resting is apart from this: an endpoint that refuses requests for a time of its own (429, or 503 with Retry-After)
works, so its breaker may stay closed, but it is left alone for that long while others answer.

Errors never eject more than half of a model's endpoints while others answer, as those would be overloaded; one that
can't be reached at all carries no load and is ejected in any case. A failed health check ejects an endpoint, too, until
a check succeeds. Times are the event loop's.
"""

from collections.abc import Sequence

FAILURES_TO_OPEN = 3
OPEN_SECONDS = 10.0
MAX_OPEN_SECONDS = 300.0
PROBE_SECONDS = 10.0
"""How long a probe keeps other requests away. A time and not a flag, so that a caller who disconnects can't leave it
set."""
AVOIDED_SECONDS = 5.0
"""How long an endpoint that failed counts as fuller than its load says."""
LEARNING_RATE = 0.1
"""Weight of the latest call in the failure share: it covers some twenty calls."""
MAX_FAILURE_SHARE = 0.5
MIN_CALLS = 10
"""Calls before the failure share counts."""
REST_SECONDS = 1.0
"""How long an endpoint rests that refuses requests and doesn't say for how long; twice as long for each refusal after
such a rest, up to MAX_OPEN_SECONDS / 10."""


class CircuitBreaker:
    """Whether an endpoint is offered requests. Read by the router and by the catalogue, changed only here."""

    __slots__ = (
        "avoided_until",
        "calls",
        "ejections",
        "failure_share",
        "failures",
        "health_error",
        "is_alive",
        "open_until",
        "openings",
        "probed_until",
        "refusals",
        "rests_until",
    )

    def __init__(self) -> None:
        self.is_alive = True
        """Result of the last health checks. True where there are none."""
        self.health_error = ""
        """Why the last checks failed."""
        self.failures = 0
        """In a row."""
        self.calls = 0
        """Since it was closed last."""
        self.failure_share = 0.0
        """Moving average over recent calls, 0 to 1."""
        self.openings = 0
        """How often it opened, forgotten after a long time without failures; each one doubles the time."""
        self.ejections = 0
        """How often it opened since the endpoint is known: a counter for metrics."""
        self.open_until = 0.0
        """0: closed. In the future: open. In the past: half-open."""
        self.avoided_until = 0.0
        """Until when the endpoint counts as fuller than its load says."""
        self.probed_until = 0.0
        """Until when a probe keeps other requests away."""
        self.rests_until = 0.0
        """Until when it is left alone because it said that it is full."""
        self.refusals = 0
        """Rests in a row."""

    def is_ejected(self, now: float) -> bool:
        """Whether it is open, or health checks fail."""
        return self.open_until > now or not self.is_alive

    def is_offered(self, now: float) -> bool:
        """Whether a request may go there while other endpoints are available: closed, or half-open without a probe."""
        if self.rests_until > now:
            return False
        if not self.open_until:
            return self.is_alive
        return not self.is_ejected(now) and self.probed_until <= now

    def is_resting(self, now: float) -> bool:
        """Whether it is left alone only because it is full."""
        return self.rests_until > now and not self.is_ejected(now)

    def begin_probe(self, now: float) -> None:
        """A request goes to an endpoint whose breaker is not closed."""
        self.probed_until = now + PROBE_SECONDS

    def record_health(self, *, is_alive: bool, error: str = "") -> None:
        """Note the result of health checks; `error`: why they failed."""
        self.is_alive, self.health_error = is_alive, error

    def record_success(self) -> None:
        """A call was answered. When the breaker isn't closed, only an answer to a probe closes it."""
        self.calls += 1
        if self.failures:
            self.failures = 0
        if self.refusals:
            self.refusals = 0
        if self.failure_share:
            self.failure_share *= 1.0 - LEARNING_RATE
        if self.probed_until:
            self.open_until = self.failure_share = self.probed_until = 0.0
            self.calls = 0

    def record_refusal(self, now: float, seconds: float | None) -> bool:
        """It refused a request because it is full, for so many seconds if it said so. Says nothing about failures.
        Returns whether a rest has begun."""
        is_first = self.rests_until <= now  # the others were on their way
        if not seconds:
            if not is_first:
                return False
            seconds = min(REST_SECONDS * 2.0 ** min(self.refusals, 10), MAX_OPEN_SECONDS / 10)
        self.refusals += is_first
        self.rests_until = max(self.rests_until, now + min(seconds, MAX_OPEN_SECONDS))
        return is_first

    def share_rest(self, until: float) -> None:
        """Another endpoint of its account rests until then."""
        self.rests_until = max(self.rests_until, until)

    def record_failure(
        self, now: float, siblings: "Sequence[CircuitBreaker]" = (), *, was_reached: bool = True
    ) -> None:
        """A call failed by the endpoint's fault.

        `siblings`: the breakers of all endpoints ready for the model, with or without this one. `was_reached`: whether
        the endpoint accepted the request.
        """
        self.failures += 1
        self.avoided_until = now + AVOIDED_SECONDS
        self.calls += 1
        self.failure_share += LEARNING_RATE * (1.0 - self.failure_share)
        if self.open_until > now:  # a call from before it opened
            return
        share_is_bad = self.calls >= MIN_CALLS and self.failure_share >= MAX_FAILURE_SHARE
        is_half_open = self.open_until > 0.0
        if not (is_half_open or share_is_bad or self.failures >= FAILURES_TO_OPEN):
            return
        if was_reached and not is_half_open and not self._may_open(siblings):
            return
        if now - self.open_until > MAX_OPEN_SECONDS:  # the last failures are long ago
            self.openings = 0
        self.open_until = now + min(OPEN_SECONDS * 2.0 ** min(self.openings, 10), MAX_OPEN_SECONDS)
        self.openings += 1
        self.ejections += 1
        self.probed_until = 0.0

    def _may_open(self, siblings: "Sequence[CircuitBreaker]") -> bool:
        """Whether at most half of the model's endpoints would be ejected, or all others are already."""
        others = [each for each in siblings if each is not self]
        not_closed = sum(1 for each in others if each.open_until)
        return not_closed == len(others) or 2 * (not_closed + 1) <= len(others) + 1
