"""From endpoint to endpoint, from model to model: what is tried next, and when nothing is."""

import pytest
from tests.inference.routing.fixed_routes import BACKED, CANARY, LONG, Routing, go

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    NotFoundError,
    RateLimitError,
    ServiceUnavailableError,
)
from quarterdeck.inference.routing.retry_budget import RESERVE
from quarterdeck.inference.routing.selection import condition_of


def test_a_models_name_is_a_route_of_one_target() -> None:
    selection = Routing("").begin("big")
    choice = selection.next(0.0)
    assert choice is not None
    assert (choice.endpoint.id, choice.served.name, choice.timeouts, choice.renamed) == ("big#0", "big", None, None)


def test_other_endpoints_are_tried_as_often_as_the_file_says() -> None:
    routing = Routing("gateway: {retries: 1}")
    assert go(routing.begin("big"), *[EngineError("x")] * 5) == ["big#0", "big#1"]
    assert go(Routing("gateway: {retries: 0}").begin("big"), EngineError("x")) == ["big#0"]


def test_what_the_caller_did_wrong_is_not_tried_again() -> None:
    assert go(Routing("").begin("big"), LONG) == ["big#0"]
    assert go(Routing("").begin("big"), NotFoundError("no")) == ["big#0"]


def test_a_mistake_of_the_caller_says_nothing_of_the_endpoint() -> None:
    routing = Routing("")
    for _ in range(10):
        go(routing.begin("big"), LONG)
    assert routing.listed.endpoints[0].breaker.failures == 0


def test_an_endpoint_that_is_full_is_not_ill() -> None:
    routing = Routing("")
    assert go(routing.begin("big"), RateLimitError("full")) == ["big#0", "big#1"]
    assert routing.listed.endpoints[0].breaker.failures == 0


def full(seconds: float | None = None) -> RateLimitError:
    error = RateLimitError("full")
    error.is_refusal, error.rest_seconds = True, seconds
    return error


@pytest.mark.parametrize("policy", ["least_load", "power_of_two", "prefix", "session", "weighted"])
def test_an_endpoint_that_refuses_at_once_does_not_draw_the_traffic(policy: str) -> None:
    routing = Routing(f"routes: [{{name: r, targets: [{{model: big}}], routing: {{policy: {policy}}}}}]", big=2)
    bad, good = routing.listed.serving("big")
    asked: list[str] = []
    for number in range(120):
        selection = routing.begin(tokens=100, metadata={"session_id": str(number)}, messages=[{"role": str(number)}])
        while (choice := selection.next(number / 100)) is not None:
            asked.append(choice.endpoint.id)
            if choice.endpoint is good:
                selection.succeeded(choice)
                good.load.begin(100)  # it stays busy, while the other one looks idle
                break
            assert selection.failed(choice, full(30.0), number / 100), "the sound one is always tried"
    assert asked.count(good.id) == 120
    assert asked.count(bad.id) == 1


def test_a_refusal_costs_no_retry_where_another_endpoint_is_offered() -> None:
    routing = Routing("gateway: {retries: 1}", big=5)
    assert go(routing.begin("big"), *[full()] * 4) == ["big#0", "big#1", "big#2", "big#3", "big#4"]
    assert routing.router.retries_denied() == {}


def test_where_all_are_full_the_first_one_ready_again_is_asked_once() -> None:
    routing = Routing("", big=3)
    assert go(routing.begin("big"), full(9.0), full(3.0), full(6.0)) == ["big#0", "big#1", "big#2"]
    assert go(routing.begin("big"), full(3.0)) == ["big#1"]


def test_a_fallback_for_full_endpoints_is_asked_at_once_while_they_rest() -> None:
    route = "routes: [{name: r, targets: [{model: big}], fallbacks: [{model: far, after: [rate_limited]}]}]"
    routing = Routing(route, big=1)
    assert go(routing.begin(), full(9.0)) == ["big#0", "far#0"]
    assert go(routing.begin()) == ["far#0"]


def test_a_request_that_met_its_own_time_limit_is_no_failure_of_the_endpoint() -> None:
    routing = Routing("")
    for _ in range(5):
        go(routing.begin("big"), EngineTimeoutError("over", code="request_timeout"))
    assert all(each.breaker.failures == 0 for each in routing.listed.endpoints)


def test_in_an_outage_retries_end_with_the_budget() -> None:
    routing = Routing("gateway: {retries: 2}")
    attempts = sum(len(go(routing.begin("big"), *[EngineError("x")] * 3)) for _ in range(1000))
    assert attempts <= 1000 * 1.2 + RESERVE
    assert attempts > 1000 * 1.19


def test_nobody_is_there() -> None:
    assert Routing("", big=0).begin("big").next(0.0) is None


def test_where_all_rest_one_is_asked_all_the_same_and_an_answer_ends_its_rest() -> None:
    routing = Routing("")
    routing.eject("big")
    selection = routing.begin("big")
    choice = selection.next(0.0)
    assert choice is not None
    selection.succeeded(choice)
    assert choice.endpoint.breaker.open_until == 0.0


def test_another_target_stands_in_and_the_engine_is_told_its_name() -> None:
    routing = Routing(CANARY, big=0)
    for _ in range(20):
        choice = routing.begin().next(0.0)
        assert choice is not None
        assert choice.served.name == "small"
    routing = Routing(CANARY, big=1)
    selection = next(found for _ in range(100) if (found := routing.begin()).served.name == "big")
    choice = selection.next(0.0)
    assert choice is not None
    assert selection.failed(choice, EngineUnavailableError("x"), 0.0)
    choice = selection.next(0.0)
    assert choice is not None
    assert (choice.served.name, choice.renamed) == ("small", "small")


@pytest.mark.parametrize(
    ("error", "went"),
    [
        (LONG, ["big#0", "small#0"]),
        (EngineTimeoutError("late"), ["big#0", "big#1"]),
        (EngineError("broken"), ["big#0", "big#1"]),
        (RateLimitError("full"), ["big#0", "big#1"]),
        (BadRequestError("the printer is out of paper"), ["big#0", "far#0"]),
        (BadRequestError("negative temperature"), ["big#0"]),
    ],
)
def test_a_fallback_is_asked_after_the_failures_it_is_meant_for(error: APIError, went: list[str]) -> None:
    assert go(Routing(BACKED).begin(), error) == went


def test_after_the_retries_come_the_fallbacks() -> None:
    assert go(Routing(BACKED).begin(), *[EngineError("x")] * 9) == ["big#0", "big#1", "far#0", "far#1"]


def test_fallbacks_are_asked_in_order_and_each_once() -> None:
    late = EngineTimeoutError("late")
    assert go(Routing(BACKED).begin(), late, late, LONG) == ["big#0", "big#1", "small#0"]
    assert go(Routing(BACKED).begin(), late, late, EngineError("x"), EngineError("x"), LONG) == [
        *("big#0", "big#1", "small#0", "small#1", "far#0")
    ]


def test_the_whole_times_end_is_no_reason_for_a_fallback() -> None:
    assert condition_of(EngineTimeoutError("over", code="request_timeout")) is None


def test_fallbacks_cost_no_retries() -> None:
    """An outage of a model sends all its requests on, not a fifth of them."""
    routing = Routing(BACKED.replace("retries: 1", "retries: 0"))
    for _ in range(200):
        selection = routing.begin()
        choice = selection.next(0.0)
        if choice is not None and choice.served.name == "big":
            assert selection.failed(choice, EngineError("x"), 0.0)
            choice = selection.next(0.0)
        assert choice is not None
        assert choice.endpoint.id == "far#0"


def test_where_a_model_rests_its_requests_go_on_without_failing_there_first() -> None:
    routing = Routing(BACKED)
    routing.eject("big")
    assert go(routing.begin()) == ["far#0"]
    routing.eject("far")
    assert go(routing.begin())[0].startswith("big"), "small is no fallback for errors: the target is tried"


def test_a_fallback_is_asked_before_an_endpoint_that_rests() -> None:
    routing = Routing(BACKED, big=2)
    routing.listed.endpoints[1].breaker.open_until = 100.0
    assert go(routing.begin(), EngineError("x")) == ["big#0", "far#0"]
    assert go(routing.begin("big"), EngineError("x")) == ["big#0", "big#1"], "where there is no fallback, it is"


def test_where_nobody_is_there_a_fallback_for_errors_is_asked() -> None:
    assert go(Routing(BACKED, big=0).begin()) == ["far#0"]
    assert Routing(BACKED, big=0, far=0).begin().next(0.0) is None


def test_no_room_here_is_a_reason_too() -> None:
    selection = Routing(BACKED).begin()
    assert selection.not_admitted(ServiceUnavailableError("no room", code="queue_timeout"))
    assert go(selection) == ["far#0"]
    assert not selection.not_admitted(RateLimitError("no room", code="queue_full"))


def test_time_outs_of_a_route_hold_for_its_attempts() -> None:
    text = BACKED.replace("name: r", "name: r\n    timeouts: {first_token: 3, total: 20}")
    routing = Routing(text)
    choice = routing.begin().next(0.0)
    assert choice is not None
    assert choice.timeouts is not None
    assert (choice.timeouts.connect, choice.timeouts.first_byte, choice.timeouts.idle) == (2, 3, 60)
    assert routing.directory.routes["r"].total_seconds == 20
    assert routing.directory.routes["big"].total_seconds == 900
