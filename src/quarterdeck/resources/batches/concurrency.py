"""How many requests of a batch are sent at once: as many as the engines take. Pure."""

START = 8
PAUSE_SECONDS = 1.0
"""Between two decreases: the refusals of one moment are one refusal."""


class Concurrency:
    """Additive increase, multiplicative decrease: one more after as many successes as are sent at once, half as many
    after a refusal. Until the first refusal one more after each success, as TCP's slow start: a hundred requests would
    be over before they are many at once. `most` may change."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(min(START, most))
        self._decreased = float("-inf")
        self._was_refused = False

    @property
    def limit(self) -> int:
        return max(1, min(int(self._limit), self.most))

    def succeeded(self) -> None:
        more = 1 / self.limit if self._was_refused else 1.0
        self._limit = min(self._limit + more, float(self.most))

    def refused(self, now: float) -> None:
        """An engine or a limit had no room. `now`: seconds of any clock that does not go back."""
        self._was_refused = True
        if now - self._decreased >= PAUSE_SECONDS:
            self._limit, self._decreased = max(1.0, self.limit / 2), now
