"""The retry budget of a route. Retries add load to engines that already fail: without a bound, an outage grows."""

RATIO = 0.2
"""Retries per request of the route."""
RESERVE = 10.0
"""Retries that a route with little traffic has all the same, and starts with."""
RESERVE_SECONDS = 60.0
"""Time in which a spent reserve is refilled."""
MAX_SAVED = 50.0
"""Retries saved up at most: those of 250 requests. An hour without failures doesn't pay for a storm of retries."""


class RetryBudget:
    """A token bucket: each request adds a fifth of a retry, each retry takes one."""

    __slots__ = ("_left", "_spent_at", "denied")

    def __init__(self, now: float) -> None:
        self.denied = 0
        """Retries refused because the budget was spent."""
        self._left = RESERVE
        self._spent_at = now

    def earn(self) -> None:
        """Count a request of the route."""
        if self._left < MAX_SAVED:
            self._left += RATIO

    def spend(self, now: float) -> bool:
        """Take a retry. Returns whether one was left. `now` is the loop's time."""
        if self._left < RESERVE:
            self._left = min(RESERVE, self._left + (now - self._spent_at) * RESERVE / RESERVE_SECONDS)
        self._spent_at = now
        if self._left < 1.0:
            self.denied += 1
            return False
        self._left -= 1.0
        return True
