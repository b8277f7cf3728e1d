"""Equal requests under way in one gateway: the first goes to an engine, the others wait for its answer.

They wait for the whole of it and not along with it: a leader whose reader is slow, or whose engine dies in the middle,
would otherwise be everybody's. Whatever keeps the leader from an answer that can be shared (a failure, its caller
hanging up, an answer too long) sends the others on their way, each by itself.
"""

import asyncio

import msgspec

from quarterdeck.inference.cache.entry import Entry


class Flight(msgspec.Struct, eq=False):
    """One leader's request. `end` is called once it is known what comes of it."""

    key: str
    flights: dict[str, "Flight"]
    """Those under way, of which this is one."""
    followers: int = 0
    """Who wait for it now."""
    future: asyncio.Future[Entry | None] | None = None
    """Made with the first follower: a leader alone, as most are, costs nothing."""

    def end(self, entry: Entry | None) -> None:
        """Give those who wait their answer; None: there is none for them. Repeatable; the first word counts."""
        if self.flights.get(self.key) is self:
            del self.flights[self.key]
        if self.future is not None and not self.future.done():
            self.future.set_result(entry)

    async def wait(self, seconds: float) -> Entry | None:
        """The leader's answer; None where there is none, or none in time."""
        if self.future is None:
            self.future = asyncio.get_running_loop().create_future()
        self.followers += 1
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self.future)
        except TimeoutError:
            return None
        finally:
            self.followers -= 1


class Flights(dict[str, Flight]):
    """All of one gateway, by key."""

    @property
    def waiting(self) -> int:
        """Requests that wait for another's answer."""
        return sum(flight.followers for flight in self.values())

    def begin(self, key: str) -> Flight:
        """Lead. Whoever does must end it, however its request ends."""
        flight = self[key] = Flight(key, self)
        return flight
