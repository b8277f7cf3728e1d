"""The routing policies: which of the endpoints that are ready for a model gets a request. Pure but for `random`.

Load is the estimated tokens of this gateway's running requests divided by the requests an endpoint runs at once: a
request of 100,000 tokens weighs more than one of ten. Up to 16 endpoints are compared one by one; of more, a few are
drawn at random, so that choosing among a thousand costs no more than choosing among sixteen.
"""

from collections.abc import Callable, Sequence
from math import inf

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.routing.ring import Ring

Random = Callable[[], float]
"""0 ≤ x < 1."""

MAX_COMPARED = 16
"""With more endpoints than this, a sample is compared."""
SAMPLE = 8
"""The best of eight at random is within a percent or two of the best of all."""
AVOIDED_FACTOR = 3
"""How much fuller an endpoint counts just after a failure."""


def least_loaded(endpoints: Sequence[Endpoint], tokens: int, now: float, tried: Sequence[Endpoint]) -> Endpoint | None:
    """The endpoint with the lowest load after adding `tokens`.

    One that failed just now counts as fuller, as it would look idle. One whose breaker is half-open gets the request
    whatever the loads are: with little traffic, it would otherwise never be probed.
    """
    best: Endpoint | None = None
    lowest = inf
    for endpoint in endpoints:
        breaker = endpoint.breaker
        if breaker.open_until or not breaker.is_alive or breaker.rests_until > now:
            if not breaker.is_offered(now):
                continue
            if endpoint not in tried:
                return endpoint
        load = (endpoint.load.tokens + tokens) / endpoint.spec.max_running
        if breaker.avoided_until > now:
            load *= AVOIDED_FACTOR
        if load < lowest and not (tried and endpoint in tried):
            best, lowest = endpoint, load
    return best


def least_load(
    endpoints: Sequence[Endpoint], tokens: int, now: float, tried: Sequence[Endpoint], random: Random
) -> Endpoint | None:
    """`least_loaded` of all endpoints, or of a sample where there are many."""
    if len(endpoints) > MAX_COMPARED:
        drawn = [endpoints[int(random() * len(endpoints))] for _ in range(SAMPLE)]
        if (found := least_loaded(drawn, tokens, now, tried)) is not None:
            return found
    return least_loaded(endpoints, tokens, now, tried)


def power_of_two(
    endpoints: Sequence[Endpoint], tokens: int, now: float, tried: Sequence[Endpoint], random: Random
) -> Endpoint | None:
    """The less loaded of two at random: gateways that don't know each other's load then don't all pick the same one."""
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
    """At random, weighted by `max_running`; the share of an ejected endpoint goes to the others."""
    if len(endpoints) > MAX_COMPARED:
        drawn = [endpoints[int(random() * len(endpoints))] for _ in range(SAMPLE)]
    else:
        drawn = list(endpoints)
    offered = [each for each in drawn if each not in tried and each.breaker.is_offered(now)]
    place = random() * sum(endpoint.spec.max_running for endpoint in offered)
    for endpoint in offered:
        place -= endpoint.spec.max_running
        if place < 0:
            return endpoint
    return least_load(endpoints, tokens, now, tried, random)


class Affinity:
    """Consistent hashing with bounded loads: equal keys go to one endpoint while its load is near the mean."""

    __slots__ = ("_capacity", "_picks_left", "_tokens", "ring")

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.ring = Ring(endpoints)
        self._picks_left = 0
        self._tokens = self._capacity = 0

    def choose(self, key: int, bound: float, tokens: int, now: float, tried: Sequence[Endpoint]) -> Endpoint | None:
        """The first endpoint on the ring, from the key's place on, whose load is at most `bound` times the mean; of the
        endpoints that are offered, at least one is."""
        endpoints = self.ring.endpoints
        if self._picks_left == 0:  # with many endpoints the mean moves slowly, so it isn't computed for each request
            self._picks_left = len(endpoints) // MAX_COMPARED
            offered = [endpoint for endpoint in endpoints if endpoint.breaker.is_offered(now)]
            self._tokens = sum([endpoint.load.tokens for endpoint in offered])
            self._capacity = sum([endpoint.spec.max_running for endpoint in offered])
        else:
            self._picks_left -= 1
        most = bound * self._tokens
        for endpoint in self.ring.walk(key):
            if (
                endpoint.load.tokens * self._capacity <= most * endpoint.spec.max_running
                and endpoint not in tried
                and endpoint.breaker.is_offered(now)
            ):
                return endpoint
        return least_loaded(endpoints, tokens, now, tried)


def last_resort(endpoints: Sequence[Endpoint], tried: Sequence[Endpoint]) -> Endpoint | None:
    """When no endpoint is offered: one that passes its health checks, if any, and whose ejection, then whose rest, ends
    first."""
    left = [endpoint for endpoint in endpoints if endpoint not in tried]
    return min(
        left,
        key=lambda each: (not each.breaker.is_alive, each.breaker.open_until, each.breaker.rests_until),
        default=None,
    )


def pick(endpoints: Sequence[Endpoint], now: float) -> Endpoint | None:
    """For a request of the gateway's own: the least loaded endpoint."""
    return least_loaded(endpoints, 1, now, ()) or last_resort(endpoints, ())
