"""A value that a reload replaces while the process runs.

Built first and handed to everything that reads configuration. A reader takes `current` once per unit of work, so a
request keeps the snapshot that it started with.
"""

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
U = TypeVar("U")


class Live(Generic[T]):
    """A cell with the value in force. Belongs to one event loop; `replace` and its subscribers run without awaiting."""

    __slots__ = ("_subscribers", "current")

    def __init__(self, value: T) -> None:
        self.current = value
        self._subscribers: list[Callable[[T], None]] = []

    def replace(self, value: T) -> None:
        """Put `value` in force, then call the subscribers in the order in which they subscribed."""
        self.current = value
        for subscriber in self._subscribers:
            subscriber(value)

    def subscribe(self, subscriber: Callable[[T], None]) -> None:
        """Call `subscriber` with each later value, for as long as the cell exists."""
        self._subscribers.append(subscriber)

    def select(self, choose: Callable[[T], U]) -> "Live[U]":
        """A cell of what `choose` makes of the value, replaced along with this one."""
        selected = Live(choose(self.current))
        self.subscribe(lambda value: selected.replace(choose(value)))
        return selected
