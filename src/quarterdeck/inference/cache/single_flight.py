"""Equal requests in progress in one gateway: the first is sent to an engine, the others wait for its answer.

They wait for the complete answer and do not read along: otherwise all of them would depend on the first client's
reading speed and on the engine surviving. If the first request has no answer to share (it failed, its client
disconnected, the answer is too long), the others continue on their own.
"""

import asyncio

import msgspec

from quarterdeck.inference.cache.entry import Entry


class Flight(msgspec.Struct, eq=False):
    """The request that leads. `end` must be called once its outcome is known."""

    key: str
    flights: dict[str, "Flight"]
    """The flights in progress, of which this is one."""
    future: asyncio.Future[Entry | None] | None = None
    """Made for the first follower: most leaders have none."""

    def end(self, entry: Entry | None) -> None:
        """Give the followers their answer. None: there is none for them. Only the first call has an effect."""
        if self.flights.get(self.key) is self:
            del self.flights[self.key]
        if self.future is not None and not self.future.done():
            self.future.set_result(entry)

    async def wait(self, seconds: float) -> Entry | None:
        """The leader's answer. None: there is none, or not within `seconds`."""
        if self.future is None:
            self.future = asyncio.get_running_loop().create_future()
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self.future)
        except TimeoutError:
            return None


class Flights(dict[str, Flight]):
    """The flights of one gateway, by cache key."""

    def begin(self, key: str) -> Flight:
        """Lead. The caller must end the flight, however its request ends."""
        flight = self[key] = Flight(key, self)
        return flight
