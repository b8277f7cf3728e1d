"""Batches for Redis: items of one event-loop turn are grouped by key and sent at the end of the turn."""

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from quarterdeck.net.redis import Redis

Batch = TypeVar("Batch")


class TurnBatches(Generic[Batch]):
    """Open batches of this turn of the event loop, by key.

    `send` gets each batch once. `first`: ahead of other batches, because requests wait for the reply
    (`Redis.call_before_flush`).
    """

    def __init__(self, redis: Redis, send: Callable[[Batch], None], *, first: bool = False) -> None:
        self._redis = redis
        self._send = send
        self._first = first
        self._batches: dict[Hashable, Batch] = {}

    def __bool__(self) -> bool:
        """Whether a batch is waiting to be sent."""
        return bool(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        """The batches that are waiting to be sent."""
        return iter(self._batches.values())

    def batch(self, key: Hashable, make: Callable[[], Batch]) -> Batch:
        """The open batch of `key`; `make` makes it if there is none."""
        batches = self._batches
        if not batches:
            self._redis.call_before_flush(self.send_all, first=self._first)
        batch = batches.get(key)
        if batch is None:
            batch = batches[key] = make()
        return batch

    def send(self, key: Hashable) -> None:
        """Send the batch of `key` now, because it is full."""
        self._send(self._batches.pop(key))

    def send_all(self) -> None:
        """Send every open batch."""
        batches, self._batches = self._batches, {}
        for batch in batches.values():
            self._send(batch)
