"""A clock for hundreds of concurrent streams.

Waits are grouped in slots of one millisecond, with one event-loop timer per slot however many streams it wakes.
"""

import asyncio
import heapq
import time


class Clock:
    """One per engine. `resolution` in seconds."""

    def __init__(self, resolution: float = 0.001) -> None:
        self._resolution = resolution
        self._slots: dict[int, list[asyncio.Future[None]]] = {}
        self._due: list[int] = []
        self._armed: int | None = None

    def now(self) -> float:
        return time.monotonic()  # not the loop's: uvloop updates its time once per iteration

    async def sleep_until(self, due: float) -> None:
        """Return at `due`, up to a millisecond late; immediately if it has passed."""
        if due <= self.now():
            return
        loop = asyncio.get_running_loop()
        slot = int(due / self._resolution) + 1
        waiter: asyncio.Future[None] = loop.create_future()
        waiters = self._slots.get(slot)
        if waiters is None:
            self._slots[slot] = [waiter]
            heapq.heappush(self._due, slot)
            if self._armed is None or slot < self._armed:
                self._arm(loop, slot)
        else:
            waiters.append(waiter)
        await waiter

    async def sleep(self, seconds: float) -> None:
        await self.sleep_until(self.now() + seconds)

    def _arm(self, loop: asyncio.AbstractEventLoop, slot: int) -> None:
        self._armed = slot
        loop.call_later(max(slot * self._resolution - self.now(), 0.0), self._wake, loop, slot)

    def _wake(self, loop: asyncio.AbstractEventLoop, slot: int) -> None:
        if self._armed == slot:
            self._armed = None
        past = self.now() / self._resolution
        while self._due and self._due[0] <= max(past, slot):
            for waiter in self._slots.pop(heapq.heappop(self._due)):
                if not waiter.done():
                    waiter.set_result(None)
        if self._due and self._armed is None:
            self._arm(loop, self._due[0])
