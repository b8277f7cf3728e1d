"""Equal requests under way in one gateway: the first goes to an engine, the others wait for its answer.

They wait for the whole of it and not along with it: a leader whose reader is slow, or whose engine dies in the middle,
would otherwise be everybody's. Whatever keeps the leader from an answer that can be shared (a failure, its caller
hanging up, an answer too long) sends the others on their way, each by itself.
"""

import asyncio

from quarterdeck.inference.cache.entry import Entry


class Flight:
    """One leader's request. `end` is called once it is known what comes of it."""

    __slots__ = ("_flights", "_future", "followers", "key")

    def __init__(self, key: str, flights: dict[str, "Flight"]) -> None:
        self.key = key
        self.followers = 0
        """Who wait for it now."""
        self._flights = flights
        self._future: asyncio.Future[Entry | None] | None = None

    def end(self, entry: Entry | None) -> None:
        """Give those who wait their answer; None: there is none for them. Repeatable; the first word counts."""
        if self._flights.get(self.key) is self:
            del self._flights[self.key]
        if self._future is not None and not self._future.done():
            self._future.set_result(entry)

    async def wait(self, seconds: float) -> Entry | None:
        """The leader's answer; None where there is none, or none in time."""
        if self._future is None:  # made with the first follower: a leader alone, as most are, costs nothing
            self._future = asyncio.get_running_loop().create_future()
        self.followers += 1
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._future)
        except TimeoutError:
            return None
        finally:
            self.followers -= 1


class Flights:
    """All of one gateway."""

    def __init__(self) -> None:
        self._flights: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def waiting(self) -> int:
        """Requests that wait for another's answer."""
        return sum(flight.followers for flight in self._flights.values())

    def find(self, key: str) -> Flight | None:
        """Somebody else's, to wait for."""
        return self._flights.get(key)

    def begin(self, key: str) -> Flight:
        """Lead. Whoever does must end it, however its request ends."""
        flight = self._flights[key] = Flight(key, self._flights)
        return flight
