"""Which of the endpoints that are ready for a model is asked. Pure but for the dice.

Load is the tokens of this gateway's requests under way, by how many requests the endpoint runs at once: a request of
100,000 tokens is not one of ten. Up to 16 endpoints are looked at one by one; of more a few are drawn, so that a choice
among a thousand costs what a choice among sixteen does.
"""

from collections.abc import Callable, Sequence
from math import inf

from quarterdeck.inference.endpoints.circuit_breaker import is_offered
from quarterdeck.inference.endpoints.sources import Endpoint
from quarterdeck.inference.routing.ring import Ring

Random = Callable[[], float]
"""0 ≤ x < 1."""

FEW = 16
DRAWN = 8
"""The best of eight at random is within a percent or two of the best of all."""


AVOIDED = 3
"""How much fuller one that failed just now is taken to be."""


def least_loaded(endpoints: Sequence[Endpoint], tokens: int, now: float, tried: Sequence[Endpoint]) -> Endpoint | None:
    """The one with most room for `tokens` more. One that failed just now counts as fuller: it would look idle. One that
    has rested gets the next request, whatever the others' load: else, with little to do, nobody would ever try it."""
    best: Endpoint | None = None
    lowest = inf
    for endpoint in endpoints:
        if endpoint.rests_until or not endpoint.is_alive:
            if not is_offered(endpoint, now):
                continue
            if endpoint not in tried:
                return endpoint
        load = (endpoint.in_flight_tokens + tokens) / endpoint.max_running
        if endpoint.avoided_until > now:
            load *= AVOIDED
        if load < lowest and not (tried and endpoint in tried):
            best, lowest = endpoint, load
    return best


def least_load(
    endpoints: Sequence[Endpoint], tokens: int, now: float, tried: Sequence[Endpoint], random: Random
) -> Endpoint | None:
    """`least_loaded` of all, or of a few drawn where there are many."""
    if len(endpoints) > FEW:
        drawn = [endpoints[int(random() * len(endpoints))] for _ in range(DRAWN)]
        if (found := least_loaded(drawn, tokens, now, tried)) is not None:
            return found
    return least_loaded(endpoints, tokens, now, tried)


def power_of_two(
    endpoints: Sequence[Endpoint], tokens: int, now: float, tried: Sequence[Endpoint], random: Random
) -> Endpoint | None:
    """The better of two drawn: gateways that don't know of one another do not all run to the same one."""
    count = len(endpoints)
    if count > 2:
        first = int(random() * count)
        second = (first + 1 + int(random() * (count - 1))) % count
        if (found := least_loaded((endpoints[first], endpoints[second]), tokens, now, tried)) is not None:
            return found
    return least_load(endpoints, tokens, now, tried, random)


def weighted(
    endpoints: Sequence[Endpoint], tokens: int, now: float, tried: Sequence[Endpoint], random: Random
) -> Endpoint | None:
    """At random, by `max_running`; whoever can't be asked leaves its share to the others."""
    if len(endpoints) > FEW:
        drawn = [endpoints[int(random() * len(endpoints))] for _ in range(DRAWN)]
    else:
        drawn = list(endpoints)
    offered = [endpoint for endpoint in drawn if endpoint not in tried and is_offered(endpoint, now)]
    place = random() * sum(endpoint.max_running for endpoint in offered)
    for endpoint in offered:
        place -= endpoint.max_running
        if place < 0:
            return endpoint
    return least_load(endpoints, tokens, now, tried, random)


class Affinity:
    """Equal keys to equal endpoints, as long as those have no more than their share."""

    __slots__ = ("_capacity", "_picks_left", "_tokens", "ring")

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.ring = Ring(endpoints)
        self._picks_left = 0
        self._tokens = self._capacity = 0

    def choose(self, key: int, bound: float, tokens: int, now: float, tried: Sequence[Endpoint]) -> Endpoint | None:
        """The first on the ring, from the key's place on, that holds at most `bound` times the mean; of those that are
        offered at least one does."""
        endpoints = self.ring.endpoints
        if self._picks_left == 0:  # of many endpoints not all are counted each time: the mean moves slowly
            self._picks_left = len(endpoints) // FEW
            offered = [endpoint for endpoint in endpoints if is_offered(endpoint, now)]
            self._tokens = sum([endpoint.in_flight_tokens for endpoint in offered])
            self._capacity = sum([endpoint.max_running for endpoint in offered])
        else:
            self._picks_left -= 1
        most = bound * self._tokens
        for endpoint in self.ring.walk(key):
            if (
                endpoint.in_flight_tokens * self._capacity <= most * endpoint.max_running
                and endpoint not in tried
                and is_offered(endpoint, now)
            ):
                return endpoint
        return least_loaded(endpoints, tokens, now, tried)


def last_resort(endpoints: Sequence[Endpoint], tried: Sequence[Endpoint]) -> Endpoint | None:
    """Nobody is offered: the one that is alive, if any, and has rested longest."""
    left = [endpoint for endpoint in endpoints if endpoint not in tried]
    return min(left, key=lambda endpoint: (not endpoint.is_alive, endpoint.rests_until), default=None)


def pick(endpoints: Sequence[Endpoint], now: float) -> Endpoint | None:
    """For a question of our own: whoever has most room."""
    return least_loaded(endpoints, 1, now, ()) or last_resort(endpoints, ())
