"""Requests of batches are refused while the model's endpoints have more to do than a share of what they can."""

import pytest
from tests.inference.routing.fixed_routes import Routing

from quarterdeck.errors import RateLimitError
from quarterdeck.inference.routing.idle_capacity import check_idle

TEXT = "routes: [{name: r, targets: [{model: small}, {model: big}]}]"


def check(routing: Routing, *loads: int, share: float = 0.5) -> None:
    served = routing.directory.routes["r"].models
    endpoints = [each for model in served for each in routing.listed.serving(model.name)]
    assert len(endpoints) == len(loads)
    for each, load in zip(endpoints, loads, strict=True):
        each.load.requests = load
    check_idle(routing.listed, served, share)


def test_there_is_room_while_one_endpoint_has_little_to_do() -> None:
    routing = Routing(TEXT, small=1, big=1)
    most = 32
    check(routing, most - 1, 64)
    with pytest.raises(RateLimitError) as raised:
        check(routing, most, most)
    assert (raised.value.code, raised.value.retry_after) == ("no_idle_capacity", 1)


def test_a_small_share_leaves_room_for_one() -> None:
    routing = Routing(TEXT, small=1, big=1)
    check(routing, 0, 64, share=0.001)
    with pytest.raises(RateLimitError):
        check(routing, 1, 64, share=0.001)


def test_a_model_without_endpoints_is_left_to_the_router() -> None:
    routing = Routing(TEXT, small=0, big=0)
    check(routing)
