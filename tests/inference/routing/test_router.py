"""From target to target, from endpoint to endpoint: who is asked next, and when nobody is."""

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from tests.inference.making import CHAT, an_endpoint, as_json

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
from quarterdeck.inference.call import Operation
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.endpoints.sources import indexed
from quarterdeck.inference.request import decode
from quarterdeck.inference.routing.directory import Directory
from quarterdeck.inference.routing.retry_budget import RESERVE
from quarterdeck.inference.routing.router import Router
from quarterdeck.inference.routing.selection import Selection, condition_of
from quarterdeck.settings.loading import parse

MODELS = """
models:
  - {name: big, endpoints: [{url: "http://unused"}]}
  - {name: small, endpoints: [{url: "http://unused"}]}
  - {name: far, endpoints: [{url: "http://unused"}]}
"""
CANARY = "routes: [{name: r, targets: [{model: big, weight: 9}, {model: small, weight: 1}]}]"
BACKED = """
gateway: {retries: 1}
routes:
  - name: r
    targets: [{model: big}]
    fallbacks:
      - {model: small, after: [context_length, timeout]}
      - {model: far, after: [error, queue], contains: "out of paper"}
"""
LONG = BadRequestError("too long", code="context_length_exceeded")


class Listed:
    """Endpoints, three of each model unless said otherwise."""

    def __init__(self, **counts: int) -> None:
        each = {"big": 3, "small": 3, "far": 3} | counts
        self.endpoints = [
            an_endpoint(f"{model}#{number}", model=model) for model, count in each.items() for number in range(count)
        ]
        self.index = indexed(self.endpoints)

    def all(self) -> Sequence[Endpoint]:
        return self.endpoints

    def serving(self, name: str) -> Sequence[Endpoint]:
        return self.index.get(name, ())


class Routing:
    def __init__(self, text: str, **counts: int) -> None:
        self.directory = Directory.of(parse(MODELS + text))
        self.listed = Listed(**counts)
        self.router = Router(self.listed, Random(1).random)

    def begin(self, name: str = "r", tokens: int = 100, **asked: Any) -> Selection:
        body = as_json({**CHAT, **asked})
        route = self.directory.routes[name]
        return self.router.select(route, decode(Operation.CHAT, body), tokens=tokens, now=0.0)

    def rest(self, model: str) -> None:
        for endpoint in self.listed.serving(model):
            endpoint.breaker.open_until = 100.0


def go(selection: Selection, *failures: APIError) -> list[str]:
    """Where it goes while these failures come, in order."""
    went = []
    for failure in failures:
        choice = selection.next(0.0)
        if choice is None:
            break
        went.append(choice.endpoint.id)
        if not selection.failed(choice, failure, 0.0):
            break
    else:
        choice = selection.next(0.0)
        if choice is not None:
            went.append(choice.endpoint.id)
    return went


# a model


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


def test_in_an_outage_retries_end_with_the_budget() -> None:
    routing = Routing("gateway: {retries: 2}")
    attempts = sum(len(go(routing.begin("big"), *[EngineError("x")] * 3)) for _ in range(1000))
    assert attempts <= 1000 * 1.2 + RESERVE
    assert attempts > 1000 * 1.19


def test_nobody_is_there() -> None:
    assert Routing("", big=0).begin("big").next(0.0) is None


def test_where_all_rest_one_is_asked_all_the_same_and_an_answer_ends_its_rest() -> None:
    routing = Routing("")
    routing.rest("big")
    selection = routing.begin("big")
    choice = selection.next(0.0)
    assert choice is not None
    selection.succeeded(choice)
    assert choice.endpoint.breaker.open_until == 0.0


# targets


def test_targets_are_drawn_by_weight() -> None:
    routing = Routing(CANARY)
    drawn = Counter(routing.begin().served.name for _ in range(5000))
    assert abs(drawn["small"] / 5000 - 0.1) < 0.02


def test_a_target_without_weight_is_never_drawn_but_stands_in() -> None:
    text = "routes: [{name: r, targets: [{model: small, weight: 0}, {model: big}]}]"
    routing = Routing(text)
    assert {routing.begin().served.name for _ in range(200)} == {"big"}
    assert go(Routing(text, big=1).begin(), *[EngineError("x")]) == ["big#0", "small#0"]


def test_a_session_stays_with_its_target() -> None:
    routing = Routing(CANARY.replace("name: r,", "name: r, stickiness: session,").replace("9", "1"))
    for number in range(50):
        names = {routing.begin(metadata={"session_id": f"s{number}"}).served.name for _ in range(5)}
        assert len(names) == 1
    drawn = Counter(routing.begin(metadata={"session_id": f"s{number}"}).served.name for number in range(1000))
    assert abs(drawn["big"] - 500) < 80


def test_a_conversation_stays_with_its_target() -> None:
    routing = Routing(CANARY.replace("name: r,", "name: r, stickiness: prefix,").replace("9", "1"))
    assert len({routing.begin().served.name for _ in range(20)}) == 1


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


# fallbacks


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
    routing.rest("big")
    assert go(routing.begin()) == ["far#0"]
    routing.rest("far")
    assert go(routing.begin())[0].startswith("big"), "small is not meant for it: the route's own model is asked"


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


# policies


@pytest.mark.parametrize("policy", ["least_load", "power_of_two", "weighted", "prefix", "session"])
def test_every_policy_finds_somebody_and_goes_on_to_others(policy: str) -> None:
    routing = Routing(f"routes: [{{name: r, targets: [{{model: big}}], routing: {{policy: {policy}}}}}]")
    went = go(routing.begin(metadata={"session_id": "s"}), *[EngineError("x")] * 2)
    assert sorted(went) == ["big#0", "big#1", "big#2"]
    assert go(routing.begin()), "and where it belongs to no session"


def test_a_conversation_goes_where_its_beginning_is_known() -> None:
    routing = Routing("routes: [{name: r, targets: [{model: big}], routing: {policy: prefix}}]")
    chats = [[{"role": "user", "content": f"question {number}"}] for number in range(30)]
    first = [go(routing.begin(messages=chat)) for chat in chats]
    more = [{"role": "assistant", "content": "answer"}, {"role": "user", "content": "again"}]
    assert [go(routing.begin(messages=[*chat, *more])) for chat in chats] == first
    assert len({went[0] for went in first}) == 3


def test_a_changed_set_of_endpoints_is_a_new_ring() -> None:
    routing = Routing("routes: [{name: r, targets: [{model: big}], routing: {policy: prefix}}]")
    go(routing.begin())
    routing.listed.endpoints = [an_endpoint("new", model="big")]
    routing.listed.index = indexed(routing.listed.endpoints)
    assert go(routing.begin()) == ["new"]
