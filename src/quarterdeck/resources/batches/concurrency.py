"""How many requests of a batch are sent at once: as many as the engines take. Pure."""

START = 8
PAUSE_SECONDS = 1.0
"""Between two decreases: the refusals of one moment are one refusal."""
CALM_SECONDS = 5.0
"""Without a refusal: other requests have gone, and there may be room for many."""


class Concurrency:
    """Additive increase, multiplicative decrease: one more after as many successes as are sent at once, half as many
    after a refusal. While there was none for some seconds, and at the beginning, one more after each success, as TCP's
    slow start: a thousand requests would be over before they are many at once. `most` may change; `now` is seconds of
    any clock that does not go back."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._limit = float(min(START, most))
        self._decreased = float("-inf")

    @property
    def limit(self) -> int:
        return max(1, min(int(self._limit), self.most))

    def succeeded(self, now: float) -> None:
        more = 1.0 if now - self._decreased >= CALM_SECONDS else 1 / self.limit
        self._limit = min(self._limit + more, float(self.most))

    def refused(self, now: float) -> None:
        """An engine or a limit had no room."""
        if now - self._decreased >= PAUSE_SECONDS:
            self._limit, self._decreased = max(1.0, self.limit / 2), now
