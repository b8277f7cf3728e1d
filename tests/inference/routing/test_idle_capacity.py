"""Requests of batches fill an endpoint that has nothing else to do, and take few places of one that has."""

import pytest
from tests.inference.routing.fixed_routes import Routing

from quarterdeck.errors import RateLimitError
from quarterdeck.inference.routing.idle_capacity import QUIET_SECONDS, check_idle
from quarterdeck.settings.batches import BatchesConfig

TEXT = "routes: [{name: r, targets: [{model: small}, {model: big}]}]"
NOW = 1000.0
CONFIG = BatchesConfig(idle_share=0.5, busy_share=0.05)
"""Of 64 places, 32 and 3."""


def has_room(*loads: tuple[int, int], last_other: float = float("-inf")) -> bool:
    """Whether there is room at endpoints with so many requests, and so many of batches among them."""
    routing = Routing(TEXT, small=1, big=1)
    served = routing.directory.routes["r"].models
    endpoints = [each for model in served for each in routing.listed.serving(model.name)]
    for each, (requests, of_batches) in zip(endpoints, loads, strict=True):
        each.load.requests, each.load.of_batches, each.load.last_other = requests, of_batches, last_other
    try:
        check_idle(routing.listed, served, CONFIG, NOW)
    except RateLimitError as error:
        assert (error.code, error.retry_after) == ("no_idle_capacity", 1)
        return False
    return True


FULL = (64, 0)


def test_an_idle_endpoint_is_filled_to_its_share() -> None:
    assert has_room((31, 31), FULL)
    assert not has_room((32, 32), FULL)


def test_a_busy_one_is_sent_few() -> None:
    assert has_room((10, 2), FULL) and not has_room((10, 3), FULL)
    assert has_room((1, 0), FULL)


def test_it_is_busy_for_a_while_after_the_last_request() -> None:
    assert not has_room((8, 8), FULL, last_other=NOW - QUIET_SECONDS + 1)
    assert has_room((8, 8), FULL, last_other=NOW - QUIET_SECONDS)


@pytest.mark.parametrize("share", [0.0, 0.001])
def test_a_small_share_leaves_room_for_one(share: float) -> None:
    routing = Routing(TEXT, small=1, big=0)
    served = routing.directory.routes["r"].models
    (endpoint,) = routing.listed.serving("small")
    endpoint.load.requests = 5
    config = BatchesConfig(busy_share=share)
    check_idle(routing.listed, served, config, NOW)
    endpoint.load.requests, endpoint.load.of_batches = 6, 1
    with pytest.raises(RateLimitError):
        check_idle(routing.listed, served, config, NOW)


def test_a_model_without_endpoints_is_left_to_the_router() -> None:
    routing = Routing(TEXT, small=0, big=0)
    check_idle(routing.listed, routing.directory.routes["r"].models, CONFIG, NOW)
