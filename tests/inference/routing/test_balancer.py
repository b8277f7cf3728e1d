"""Whatever the policy, an endpoint is found, and another one after a failure."""

import pytest
from tests.inference.making import an_endpoint
from tests.inference.routing.fixed_routes import Routing, go

from quarterdeck.errors import EngineError, EngineUnavailableError
from quarterdeck.inference.endpoints.sources import indexed


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


@pytest.mark.parametrize(("error", "ejected"), [(EngineUnavailableError("refused"), 2), (EngineError("oops"), 1)])
def test_errors_eject_at_most_half_unless_the_endpoints_can_not_be_reached(error: EngineError, ejected: int) -> None:
    routing = Routing("routes: [{name: r, targets: [{model: big}]}]")
    selection = routing.begin()
    if type(error) is EngineError:
        error.engine_status = 500
    for endpoint in routing.listed.endpoints[:2]:
        for _ in range(3):
            selection.balancer.report_error(endpoint, selection.served, error, 100.0)
    assert sum(not each.breaker.is_offered(100.0) for each in routing.listed.endpoints[:3]) == ejected


def test_a_changed_set_of_endpoints_is_a_new_ring() -> None:
    routing = Routing("routes: [{name: r, targets: [{model: big}], routing: {policy: prefix}}]")
    go(routing.begin())
    routing.listed.endpoints = [an_endpoint("new", model="big")]
    routing.listed.index = indexed(routing.listed.endpoints)
    assert go(routing.begin()) == ["new"]
