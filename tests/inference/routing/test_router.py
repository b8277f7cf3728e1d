"""A route's target is drawn by weight, or by what the request belongs to."""

from collections import Counter

from tests.inference.routing.fixed_routes import CANARY, Routing, go

from quarterdeck.errors import EngineError


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
