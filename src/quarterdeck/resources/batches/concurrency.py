"""How many requests of a batch are sent at once: as many as the engines take. Pure."""

START = 8
PAUSE_SECONDS = 1.0
"""Between two decreases: the refusals of one moment are one refusal."""


class Concurrency:
    """Additive increase, multiplicative decrease: one more after as many successes as are sent at once, half as many
    after a refusal. `most` may change."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(min(START, most))
        self._decreased = float("-inf")

    @property
    def limit(self) -> int:
        return max(1, min(int(self._limit), self.most))

    def succeeded(self) -> None:
        self._limit = min(self._limit + 1 / self.limit, float(self.most))

    def refused(self, now: float) -> None:
        """An engine or a limit had no room. `now`: seconds of any clock that does not go back."""
        if now - self._decreased >= PAUSE_SECONDS:
            self._limit, self._decreased = max(1.0, self.limit / 2), now
