"""What comes in one turn of the event loop and goes to Redis together: batches by key, sent at the turn's end."""

from collections.abc import Callable, Hashable
from typing import Generic, TypeVar

from quarterdeck.net.redis import Redis

Batch = TypeVar("Batch")


class Turn(Generic[Batch]):
    """`send` is given each batch once. `first`: before those that nobody waits for (`Redis.gather`)."""

    def __init__(self, redis: Redis, send: Callable[[Batch], None], *, first: bool = False) -> None:
        self._redis = redis
        self._send = send
        self._first = first
        self._batches: dict[Hashable, Batch] = {}

    def __bool__(self) -> bool:
        """Whether anything is still to be sent."""
        return bool(self._batches)

    def batch(self, key: Hashable, make: Callable[[], Batch]) -> Batch:
        """The one to add to; made with the first that comes."""
        batches = self._batches
        if not batches:
            self._redis.gather(self.send, first=self._first)
        batch = batches.get(key)
        if batch is None:
            batch = batches[key] = make()
        return batch

    def send_now(self, key: Hashable) -> None:
        """It is full: what comes next is another one's."""
        self._send(self._batches.pop(key))

    def send(self) -> None:
        """All of them."""
        batches, self._batches = self._batches, {}
        for batch in batches.values():
            self._send(batch)
