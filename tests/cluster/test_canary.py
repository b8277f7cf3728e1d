"""A canary on a real cluster under traffic: the good one is promoted and the bad ones are aborted; no request is lost.

Each test starts from the state that it asks for, so that one which fails does not fail the next.
"""

from collections import Counter
from collections.abc import Callable

import pytest
from tests.cluster.kubectl import Kubectl, Object, Objects, condition_of, is_current, is_ending
from tests.cluster.release import Release
from tests.cluster.traffic import Traffic

MODEL = "models.quarterdeck.dev"
NAME = "talker"
PODS = f"quarterdeck.dev/model={NAME}"
FAST = {"time_to_first_token": "20ms", "inter_token_latency": "2ms"}
CANARY = {
    # Of two replicas, each step asks for one engine of the candidate.
    "steps": [{"weight": 20, "pauseSeconds": 4}, {"weight": 50, "pauseSeconds": 4}],
    "abort": {"errorRate": 0.05, "ttftRatio": 3, "minRequests": 10},
}


def apply(release: Release, canary: Object | None = CANARY, **args: object) -> None:
    release.apply_model(
        NAME,
        engine={"type": "sim", "args": {**FAST, **args}},
        resources={"cpu": "20m"},
        scaling={"min": 2, "max": 2},
        rollout={"drainSeconds": 20, **({"canary": canary} if canary else {})},
    )


def canary_of(one: Object | None) -> Object:
    return ((one or {}).get("status") or {}).get("canary") or {}


def reason_of(one: Object | None) -> str:
    ready = condition_of(one, "Ready")
    return ready["reason"] if ready is not None and is_current(one) else ""


def seeds_of(pods: Objects) -> Counter[str]:
    """Engines that are not ending, by their seed."""
    words = [" ".join(pod["spec"]["containers"][0]["args"]).split() for pod in pods.values() if not is_ending(pod)]
    return Counter(word.removeprefix("--seed=") for each in words for word in each if word.startswith("--seed="))


def settle(release: Release, seed: str) -> None:
    """Wait until two engines of a seed are there, and no other pod."""
    release.kubectl.wait_all(
        "pods",
        PODS,
        lambda pods: len(pods) == 2 and seeds_of(pods) == Counter({seed: 2}),
        f"two engines of seed {seed}",
    )


@pytest.fixture
def talker(release: Release) -> Release:
    """The Model at rest with two engines of seed 1: brought there by a plain rollout, without a canary."""
    apply(release, canary=None, seed=1)
    release.kubectl.wait(MODEL, NAME, lambda one: not canary_of(one) and reason_of(one) == "Ready", "at rest")
    release.wait_replicas(NAME, 2)
    settle(release, "1")
    return release


def test_a_good_canary_is_promoted_without_losing_a_request(talker: Release, traffic: Callable[..., Traffic]) -> None:
    kubectl: Kubectl = talker.kubectl
    before = {event["metadata"]["uid"] for event in kubectl.events(NAME)}
    driver = traffic(talker, NAME, rate=20)
    with driver.around("good canary") as window, kubectl.history("pods", PODS) as moments:
        apply(talker, seed=2)
        kubectl.wait(MODEL, NAME, lambda one: canary_of(one).get("phase") == "Running", "a canary that runs")
        names = {each.id for each in talker.client().models.list()}
        assert NAME in names and not [name for name in names if "@" in name]
        kubectl.wait(MODEL, NAME, lambda one: not canary_of(one) and reason_of(one) == "Ready", "promoted")
        settle(talker, "2")
    window.assert_no_errors()
    counts = [seeds_of(pods) for pods in moments]
    assert Counter({"1": 2, "2": 1}) in counts, "one more engine"
    assert max(each.total() for each in counts) == 3, "at no moment more, the promotion included"
    kubectl.wait_events(NAME, "CanaryPromoted")
    events = [event["reason"] for event in kubectl.events(NAME) if event["metadata"]["uid"] not in before]
    assert events.count("CanaryStep") == 2 and events.count("CanaryPromoted") == 1
    driver.stop()
    totals = driver.totals()
    assert talker.wait_ledger(driver.key_id, totals["requests"])["requests"] == totals["requests"]


def test_a_canary_that_fails_is_aborted_with_the_figures(talker: Release, traffic: Callable[..., Traffic]) -> None:
    kubectl = talker.kubectl
    driver = traffic(talker, NAME, rate=20)
    with driver.around("bad canary"):
        apply(talker, seed=3, failure_injection_rate=60, failure_types=["500"])
        found = kubectl.wait(MODEL, NAME, lambda one: canary_of(one).get("phase") == "Aborted", "aborted", seconds=600)
        settle(talker, "1")
    assert "requests failed" in canary_of(found)["message"]
    ready = condition_of(found, "Ready")
    assert ready is not None and (ready["status"], ready["reason"]) == ("True", "CanaryAborted")
    assert "requests failed" in ready["message"]
    warnings = kubectl.wait_events(NAME, "CanaryAborted")
    assert len(warnings) == 1 and "requests failed" in warnings[0]["message"]
    with driver.around("after the abort") as window:
        talker.client().models.list()
    window.assert_no_errors()
    apply(talker, seed=1)
    kubectl.wait(MODEL, NAME, lambda one: not canary_of(one) and reason_of(one) == "Ready", "the change taken back")


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
        settle(talker, "1")
    window.assert_no_errors()
    assert "ZeroDivisionError: division by zero" in canary_of(found)["message"]
