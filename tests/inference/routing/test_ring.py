"""A key's endpoint is the same in every gateway, and hardly changes with the set of endpoints."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.inference.making import an_endpoint

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.routing.affinity import mixed
from quarterdeck.inference.routing.ring import POINTS, Ring

KEYS = [mixed(number) for number in range(3000)]


def some(count: int) -> list[Endpoint]:
    return [an_endpoint(f"m#{number}") for number in range(count)]


def homes(ring: Ring) -> list[Endpoint]:
    return [next(ring.walk(key)) for key in KEYS]


@settings(max_examples=15)
@given(st.integers(2, 20), st.data())
def test_where_an_endpoint_leaves_only_its_own_keys_move(count: int, data: st.DataObject) -> None:
    endpoints = some(count)
    gone = endpoints[data.draw(st.integers(0, count - 1))]
    before = homes(Ring(endpoints))
    after = homes(Ring([each for each in endpoints if each is not gone]))
    moved = [one for one, other in zip(before, after, strict=True) if one is not other]
    assert all(one is gone for one in moved)
    assert len(moved) / len(KEYS) < 1.6 / count, "its share is 1/n, give or take what 96 places leave to chance"


def test_shares_are_about_equal() -> None:
    found = homes(Ring(endpoints := some(8)))
    shares = [found.count(each) / len(found) for each in endpoints]
    assert min(shares) > 0.6 / 8
    assert max(shares) < 1.5 / 8


def test_every_gateway_draws_the_same_ring() -> None:
    here, there = homes(Ring(some(5))), homes(Ring(some(5)[::-1]))
    assert [each.id for each in here] == [each.id for each in there]


def test_a_walk_comes_by_everybody_once() -> None:
    endpoints = some(9)
    for key in (0, 2**64 - 1, *KEYS[:20]):
        assert sorted(each.id for each in Ring(endpoints).walk(key)) == sorted(each.id for each in endpoints)
    assert list(Ring([]).walk(0)) == []


def test_its_size_is_known() -> None:
    assert len(Ring(some(10))) == 10 * POINTS
