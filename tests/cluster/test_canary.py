"""A canary on a real cluster under traffic: the good one is promoted and the bad ones are aborted; no request is "
"lost."""

from collections.abc import Callable

import pytest
from tests.cluster.kubectl import Kubectl, Object, condition_of, is_current
from tests.cluster.release import Release
from tests.cluster.traffic import Traffic

MODEL = "models.quarterdeck.dev"
NAME = "talker"
FAST = {"time_to_first_token": "20ms", "inter_token_latency": "2ms"}
CANARY = {
    "steps": [{"weight": 20, "pauseSeconds": 4}, {"weight": 60, "pauseSeconds": 4}],
    "abort": {"errorRate": 0.05, "ttftRatio": 3, "minRequests": 10},
}


def apply(release: Release, **args: object) -> None:
    release.apply_model(
        NAME,
        engine={"type": "sim", "args": {**FAST, **args}},
        resources={"cpu": "20m"},
        scaling={"min": 2, "max": 2},
        rollout={"drainSeconds": 20, "canary": CANARY},
    )


def canary_of(one: Object | None) -> Object:
    return ((one or {}).get("status") or {}).get("canary") or {}


def reason_of(one: Object | None) -> str:
    ready = condition_of(one, "Ready")
    return ready["reason"] if ready is not None and is_current(one) else ""


def args_of_pods(kubectl: Kubectl) -> list[str]:
    """The command lines of the Model's engines that are not ending."""
    pods = kubectl.select("pods", f"quarterdeck.dev/model={NAME}")
    return [
        " ".join(pod["spec"]["containers"][0]["args"]) for pod in pods if "deletionTimestamp" not in pod["metadata"]
    ]


@pytest.fixture(scope="module")
def talker(release: Release) -> Release:
    apply(release, seed=1)
    release.wait_ready(NAME)
    return release


def test_a_good_canary_is_promoted_without_losing_a_request(talker: Release, traffic: Callable[..., Traffic]) -> None:
    kubectl = talker.kubectl
    driver = traffic(talker, NAME, rate=20)
    with driver.around("good canary") as window:
        apply(talker, seed=2)
        kubectl.wait(MODEL, NAME, lambda one: canary_of(one).get("phase") == "Running", "a canary that runs")
        assert len(args_of_pods(kubectl)) == 3, "one more engine"
        assert NAME in {each.id for each in talker.client().models.list()}
        assert not [each.id for each in talker.client().models.list() if "@" in each.id]
        kubectl.wait(MODEL, NAME, lambda one: not canary_of(one) and reason_of(one) == "Ready", "promoted")
        kubectl.wait_all("pods", f"quarterdeck.dev/model={NAME}", lambda pods: len(pods) == 2, "two engines")
    window.assert_no_errors()
    assert all("--seed=2" in args for args in args_of_pods(kubectl))
    events = [event["reason"] for event in kubectl.events(NAME) if event["reason"].startswith("Canary")]
    assert events.count("CanaryStep") == 2 and events.count("CanaryPromoted") == 1
    driver.stop()
    totals = driver.totals()
    assert talker.ledger(driver.key_id)["requests"] == totals["requests"]


def test_a_canary_that_fails_is_aborted_with_the_figures(talker: Release, traffic: Callable[..., Traffic]) -> None:
    kubectl = talker.kubectl
    driver = traffic(talker, NAME, rate=20)
    with driver.around("bad canary"):
        apply(talker, seed=3, failure_injection_rate=60, failure_types=["500"])
        found = kubectl.wait(MODEL, NAME, lambda one: canary_of(one).get("phase") == "Aborted", "aborted", seconds=300)
        kubectl.wait_all("pods", f"quarterdeck.dev/model={NAME}", lambda pods: len(pods) == 2, "two engines")
    assert "requests failed" in canary_of(found)["message"]
    ready = condition_of(found, "Ready")
    assert ready is not None and (ready["status"], ready["reason"]) == ("True", "CanaryAborted")
    assert "requests failed" in ready["message"]
    assert all("--seed=2" in args for args in args_of_pods(kubectl)), "the revision before"
    warnings = [event for event in kubectl.events(NAME) if event["reason"] == "CanaryAborted"]
    assert len(warnings) == 1 and "requests failed" in warnings[0]["message"]
    with driver.around("after the abort") as window:
        talker.client().models.list()
    window.assert_no_errors()


@pytest.mark.long
def test_a_canary_whose_engine_never_starts_is_aborted_with_the_diagnosis(
    talker: Release, traffic: Callable[..., Traffic]
) -> None:
    kubectl = talker.kubectl
    driver = traffic(talker, NAME, rate=10)
    with driver.around("broken canary") as window:
        apply(talker, seed=4, fail_start="crash")
        found = kubectl.wait(
            MODEL, NAME, lambda one: canary_of(one).get("phase") == "Aborted" and is_current(one), "aborted"
        )
    window.assert_no_errors()
    assert "ZeroDivisionError: division by zero" in canary_of(found)["message"]
    assert all("--seed=2" in args for args in args_of_pods(kubectl))


def test_a_change_that_is_taken_back_ends_the_state(talker: Release) -> None:
    apply(talker, seed=2)
    talker.kubectl.wait(MODEL, NAME, lambda one: not canary_of(one) and reason_of(one) == "Ready", "Ready")
