"""Laws of the scaling rule."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.operator.models import model, sim_spec

from quarterdeck.kube.resources.scaling import Scaling
from quarterdeck.operator.autoscaler import Autoscaler
from quarterdeck.operator.scaling import Decision, Demand, Situation, decide


@st.composite
def scalings(draw: st.DrawFn) -> Scaling:
    low = draw(st.integers(0, 5))
    high = draw(st.integers(max(low, 1), 12))
    replicas = draw(st.one_of(st.none(), st.none(), st.integers(0, 20)))
    return Scaling(min=low, max=high, target=draw(st.integers(1, 50)), idle_seconds=60, replicas=replicas)


SITUATIONS = st.builds(
    Situation,
    scaling=scalings(),
    suspended=st.booleans(),
    current=st.one_of(st.none(), st.integers(0, 14)),
    ready=st.integers(0, 14),
    was_suspended=st.booleans(),
    demand=st.builds(Demand, st.integers(0, 500), st.integers(0, 50), st.booleans()),
    idle_seconds=st.floats(0, 1000),
    recent_wants=st.lists(st.integers(0, 30), max_size=4),
)


def situation(**values: Any) -> Situation:
    scaling = values.pop("scaling", {"min": 0, "max": 4, "target": 10, "idle_seconds": 60})
    defaults: dict[str, Any] = {
        "suspended": False,
        "current": 1,
        "ready": 1,
        "was_suspended": False,
        "demand": Demand(is_complete=True),
        "idle_seconds": 0.0,
    }
    return Situation(scaling=Scaling(**scaling), **{**defaults, **values})


@given(SITUATIONS)
def test_replicas_stay_within_the_bounds(at: Situation) -> None:
    found = decide(at).replicas
    assert found == 0 if at.suspended else at.scaling.min <= found <= at.scaling.upper


@given(SITUATIONS)
def test_nothing_is_scaled_down_while_a_replica_starts_or_a_gateway_is_silent(at: Situation) -> None:
    if at.suspended or at.scaling.replicas is not None or at.current is None or at.current > at.scaling.upper:
        return
    if at.ready < at.current or not at.demand.is_complete:
        assert decide(at).replicas >= at.current


@given(SITUATIONS)
def test_more_requests_never_mean_fewer_replicas(at: Situation) -> None:
    more = Situation(
        at.scaling,
        at.suspended,
        at.current,
        at.ready,
        at.was_suspended,
        Demand(at.demand.in_flight + 7, at.demand.waiting, at.demand.is_complete),
        at.idle_seconds,
        at.recent_wants,
    )
    assert decide(more).replicas >= decide(at).replicas


@given(SITUATIONS)
def test_a_decision_that_was_carried_out_stands(at: Situation) -> None:
    """With all replicas ready and the same demand the rule asks for no further change upward."""
    found = decide(at).replicas
    after = Situation(at.scaling, at.suspended, found, found, False, at.demand, 0.0, at.recent_wants)
    assert decide(after).replicas <= max(found, at.scaling.min)


@pytest.mark.parametrize(
    ("values", "replicas"),
    [
        ({"current": None}, 1),
        ({"current": None, "scaling": {"min": 3}}, 3),
        ({"idle_seconds": 61.0}, 0),
        ({"idle_seconds": 59.0}, 1),
        ({"idle_seconds": 61.0, "ready": 0}, 1),
        ({"idle_seconds": 61.0, "demand": Demand(is_complete=False)}, 1),
        ({"idle_seconds": 61.0, "demand": Demand(1, 0, True)}, 1),
        ({"current": 0, "ready": 0, "demand": Demand(0, 1, False)}, 1),
        ({"current": 0, "ready": 0, "demand": Demand(0, 25, True)}, 3),
        ({"current": 0, "ready": 0}, 0),
        ({"current": 0, "ready": 0, "was_suspended": True}, 1),
        ({"suspended": True, "demand": Demand(5, 5, True)}, 0),
        ({"demand": Demand(11, 0, True)}, 2),
        ({"demand": Demand(400, 0, True)}, 4),
        ({"current": 3, "ready": 3, "demand": Demand(11, 0, True), "recent_wants": [3]}, 3),
        ({"current": 3, "ready": 3, "demand": Demand(11, 0, True), "recent_wants": [2, 1]}, 2),
        ({"scaling": {"min": 1, "max": 4, "replicas": 9}}, 4),
        ({"scaling": {"min": 0, "max": 4, "replicas": 0}, "demand": Demand(5, 0, True)}, 0),
    ],
)
def test_the_rule_by_example(values: dict[str, Any], replicas: int) -> None:
    assert decide(situation(**values)).replicas == replicas


def test_idle_time_begins_when_the_engine_is_ready() -> None:
    now = 0.0
    scaler = Autoscaler(60, clock=lambda: now)
    idle = model(**sim_spec(scaling={"min": 0, "max": 2, "idleSeconds": 30}))
    for now, ready, expected in ((0.0, 0, 1), (500.0, 0, 1), (520.0, 1, 1), (529.0, 1, 1), (531.0, 1, 0)):
        scaler.observe({idle.name: Demand(is_complete=True)}, {idle.name: idle})
        assert scaler.decide(idle, current=1, ready=ready).replicas == expected, now


def test_a_request_makes_the_idle_time_begin_anew() -> None:
    now = 0.0
    scaler = Autoscaler(60, clock=lambda: now)
    idle = model(**sim_spec(scaling={"min": 0, "max": 2, "idleSeconds": 30}))
    for now, in_flight, expected in ((0.0, 0, 1), (29.0, 1, 1), (31.0, 0, 1), (58.0, 0, 1), (60.0, 0, 0)):
        scaler.observe({idle.name: Demand(in_flight, 0, True)}, {idle.name: idle})
        assert scaler.decide(idle, current=1, ready=1).replicas == expected, now


def test_a_replica_is_removed_when_fewer_were_enough_for_a_while() -> None:
    now = 0.0
    scaler = Autoscaler(60, clock=lambda: now)
    busy = model(**sim_spec(scaling={"min": 1, "max": 4, "target": 1}))
    found = []
    for now, in_flight in ((0.0, 3), (10.0, 1), (59.0, 1), (61.0, 1), (130.0, 0)):  # noqa: B007 - the clock's
        scaler.observe({busy.name: Demand(in_flight, 0, True)}, {busy.name: busy})
        found.append(scaler.decide(busy, current=3, ready=3))
    assert [each.replicas for each in found] == [3, 3, 3, 1, 1]
    assert isinstance(found[0], Decision)


def test_what_is_remembered_of_a_model_goes_with_it() -> None:
    scaler = Autoscaler(60, clock=lambda: 0.0)
    tiny = model()
    scaler.observe({}, {tiny.name: tiny})
    scaler.observe({}, {})
    assert scaler._models == {}
