"""How many retries a route may spend: retries that answer a failure with more load are how an outage grows."""

RATIO = 0.2
"""Of the route's requests."""
RESERVE = 10.0
"""What a route that is seldom asked has all the same, and begins with."""
RESERVE_SECONDS = 60.0
"""In which a spent reserve comes back."""
MOST = 50.0
"""What can be saved up: 250 requests without a retry; a quiet hour does not pay for a storm."""


class RetryBudget:
    """A bucket: each request puts a fifth of a retry in, each retry takes one out."""

    __slots__ = ("_asked", "_left", "denied")

    def __init__(self, now: float) -> None:
        self.denied = 0
        """Retries that were asked for and not left."""
        self._left = RESERVE
        self._asked = now

    def earn(self) -> None:
        """A request came."""
        if self._left < MOST:
            self._left += RATIO

    def spend(self, now: float) -> bool:
        """Take a retry, if one is left."""
        if self._left < RESERVE:
            self._left = min(RESERVE, self._left + (now - self._asked) * RESERVE / RESERVE_SECONDS)
        self._asked = now
        if self._left < 1.0:
            self.denied += 1
            return False
        self._left -= 1.0
        return True
