"""The keys that wait for a reconcile.

A key waits at most once, however often it is added, and is never handled twice at the same time. A key whose reconcile
fails is added again after a growing pause.
"""

import asyncio
import heapq
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

log = logging.getLogger(__name__)

K = TypeVar("K")

FIRST_PAUSE_SECONDS = 0.5
MAX_PAUSE_SECONDS = 60.0
"""A broken object is tried once a minute; a change of it, or of what it owns, is handled at once."""


class WorkQueue(Generic[K]):
    """`handle` reconciles a key and returns the seconds after which it wants to be called again, or None."""

    def __init__(
        self,
        handle: Callable[[K], Awaitable[float | None]],
        *,
        on_failure: Callable[[K, Exception], None] = lambda key, error: None,
        on_wait: Callable[[float], None] = lambda seconds: None,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._handle, self._on_failure, self._on_wait = handle, on_failure, on_wait
        self._first_pause_seconds = first_pause_seconds
        self._ready: deque[K] = deque()
        self._waiting: dict[K, float] = {}
        """When each key in `_ready` was added."""
        self._running: set[K] = set()
        self._again: set[K] = set()
        """Keys that were added while they were handled."""
        self._timers: list[tuple[float, int, K]] = []
        self._due: dict[K, float] = {}
        self._failures: dict[K, int] = {}
        self._count = 0
        self._changed = asyncio.Event()

    @property
    def depth(self) -> int:
        """Keys that wait for a worker or are being handled."""
        return len(self._ready) + len(self._running)

    def add(self, key: K) -> None:
        """Handle `key` as soon as a worker is free."""
        if key in self._running:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting[key] = asyncio.get_running_loop().time()
            self._ready.append(key)
            self._changed.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Handle `key` after a pause, or earlier if it is due earlier or added."""
        at = asyncio.get_running_loop().time() + seconds
        if key in self._due and self._due[key] <= at:
            return
        self._due[key] = at
        self._count += 1
        heapq.heappush(self._timers, (at, self._count, key))
        self._changed.set()

    def forget(self, key: K) -> None:
        """Drop what is kept about a key that is gone."""
        self._failures.pop(key, None)
        self._due.pop(key, None)

    async def run(self, workers: int) -> None:
        """Handle keys until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(workers):
                group.create_task(self._work())
            group.create_task(self._keep_time())

    async def _work(self) -> None:
        while True:
            while not self._ready:
                self._changed.clear()
                await self._changed.wait()
            key = self._ready.popleft()
            self._on_wait(asyncio.get_running_loop().time() - self._waiting.pop(key))
            self._running.add(key)
            try:
                await self._handle_one(key)
            finally:
                self._running.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)

    async def _handle_one(self, key: K) -> None:
        try:
            again = await self._handle(key)
        except Exception as error:  # an error boundary: a broken object must not stop the others
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            self._on_failure(key, error)
            self.add_after(key, min(self._first_pause_seconds * 2.0 ** min(failures - 1, 16), MAX_PAUSE_SECONDS))
            return
        self._failures.pop(key, None)
        if again is not None:
            self.add_after(key, again)

    async def _keep_time(self) -> None:
        """Move keys that are due. Woken by `_changed`, or by the next timer."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            while self._timers and self._timers[0][0] <= now:
                at, _, key = heapq.heappop(self._timers)
                if self._due.get(key) == at:
                    del self._due[key]
                    self.add(key)
            pause = min(self._timers[0][0] - now, 1.0) if self._timers else 1.0
            await asyncio.sleep(max(min(pause, 0.1), 0.005))
