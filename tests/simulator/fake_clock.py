"""A clock for engines in process: time passes only while a request sleeps."""

import asyncio

from quarterdeck.simulator.scheduling.clock import Clock


class FakeClock(Clock):
    """A sleep sets the time to its end at once. For one request at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.time = 0.0

    def now(self) -> float:
        return self.time

    async def sleep_until(self, due: float) -> None:
        self.time = max(self.time, due)
        await asyncio.sleep(0)
