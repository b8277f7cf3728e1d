"""The next request goes where there is most room."""

from tests.inference.making import an_endpoint

from quarterdeck.inference.routing import pick


def test_the_least_loaded_is_picked_by_what_it_can_run() -> None:
    small, large = an_endpoint("small", max_running=4), an_endpoint("large", max_running=64)
    small.in_flight, large.in_flight = 1, 10
    assert pick([small, large], "m", now=0.0) is large
    large.in_flight = 20
    assert pick([small, large], "m", now=0.0) is small


def test_the_first_is_picked_where_all_are_equal() -> None:
    endpoints = [an_endpoint(f"e#{n}") for n in range(3)]
    assert pick(endpoints, "m", now=0.0) is endpoints[0]


def test_only_those_that_are_ready_and_serve_the_name_are_asked() -> None:
    endpoints = [
        an_endpoint("other", model="other"),
        an_endpoint("starting", state="starting"),
        an_endpoint("draining", state="draining"),
        an_endpoint("ready", adapters=frozenset({"pirate"})),
    ]
    assert getattr(pick(endpoints, "m", now=0.0), "id", None) == "ready"
    assert getattr(pick(endpoints, "pirate", now=0.0), "id", None) == "ready"
    assert pick(endpoints[:3], "m", now=0.0) is None
    assert pick([], "m", now=0.0) is None


def test_one_that_was_tried_is_not_tried_again() -> None:
    one, other = an_endpoint("one"), an_endpoint("other")
    assert pick([one, other], "m", now=0.0, avoid=[one]) is other
    assert pick([one, other], "m", now=0.0, avoid=[one, other]) is None


def test_one_that_rests_is_asked_only_where_nobody_else_is() -> None:
    resting, busy = an_endpoint("resting", rests_until=10.0), an_endpoint("busy", in_flight=1000)
    assert pick([resting, busy], "m", now=5.0) is busy
    assert pick([resting], "m", now=5.0) is resting
    assert pick([resting, busy], "m", now=10.0) is resting
