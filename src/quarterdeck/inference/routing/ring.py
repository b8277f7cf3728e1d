"""Consistent hashing: keys and endpoints have places on a ring. When an endpoint leaves, only its own keys move.

Places depend on the endpoints' ids alone, so every gateway computes the same ring.
"""

from array import array
from bisect import bisect
from collections.abc import Iterator, Sequence
from hashlib import blake2b

from quarterdeck.inference.endpoints.endpoint import Endpoint

POINTS = 96
"""Places per endpoint, 12 bytes each. With 96, the endpoints' shares of the ring differ by some 10 %."""


class Ring:
    """The ring of a set of endpoints."""

    __slots__ = ("_owners", "_places", "endpoints")

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self.endpoints = endpoints
        places = sorted((place, owner) for owner, each in enumerate(endpoints) for place in _places(each.id))
        self._places = array("Q", [place for place, _ in places])
        self._owners = array("I", [owner for _, owner in places])

    def __len__(self) -> int:
        return len(self._places)

    def walk(self, key: int) -> Iterator[Endpoint]:
        """Every endpoint once, starting at the key's place. `key`: 64 well mixed bits (`affinity.mixed`)."""
        endpoints, owners = self.endpoints, self._owners
        start, size = bisect(self._places, key), len(owners)
        seen: set[int] = set()
        for at in range(start, start + size):
            owner = owners[at % size]
            if owner not in seen:
                yield endpoints[owner]
                seen.add(owner)
                if len(seen) == len(endpoints):
                    return


def _places(id: str) -> "array[int]":
    """The endpoint's places, 64 bits each; a digest yields eight."""
    places = array("Q")
    for part in range(POINTS // 8):
        places.frombytes(blake2b(f"{part}/{id}".encode(), digest_size=64).digest())
    return places
