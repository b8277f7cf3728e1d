"""Whether a server or a Cluster is there, reported when it changes."""

from collections.abc import Callable


class ReportedState:
    """`on_change` is called with False when it goes away, or was never there, and with True when it is back."""

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        self._on_change = on_change
        self.is_up: bool | None = None
        """None: not known yet."""

    def set(self, *, up: bool) -> None:
        if self.is_up is up:
            return
        is_news = self.is_up is not None or not up  # the first connection is no news
        self.is_up = up
        if is_news:
            self._on_change(up)
