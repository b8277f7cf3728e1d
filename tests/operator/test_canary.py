"""The canary's decisions: a simulated life, and laws that hold whatever happens in it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quarterdeck.kube.resources.model_status import CanaryStatus
from quarterdeck.kube.resources.scaling import Canary, CanaryAbort
from quarterdeck.operator.canary import FAILING_SECONDS, Decision, Figures, Situation, decide, difference, judge, total

START = datetime(2026, 1, 1, tzinfo=UTC)
STEPS = [{"weight": 10, "pauseSeconds": 30}, {"weight": 50, "pauseSeconds": 30}]
CANARY = Canary.model_validate({"steps": STEPS, "abort": {"errorRate": 0.05, "ttftRatio": 2, "minRequests": 20}})
OLD, NEW, NEWER = "old", "new", "newer"


def figures(requests: int, failures: int = 0, ttft_ms: float = 100) -> Figures:
    bounds = (10.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
    buckets = tuple((bound, requests if bound >= ttft_ms else 0) for bound in bounds)
    return Figures(requests, failures, buckets, requests)


class Life:
    """A Model in a cluster that does what it is asked: applies revisions, starts and ends pods a second later."""

    def __init__(self, **changes: Any) -> None:
        self.seconds = 0.0
        self.situation = Situation(
            canary=CANARY,
            wanted=OLD,
            stable=OLD,
            stable_ready=2,
            replicas=2,
            is_rolled_out=True,
            candidate_ready=0,
            candidate_pods=0,
            status=None,
            now=START,
        )
        self.situation = replace(self.situation, **changes)
        self.engine_starts = True
        self.events: list[str] = []
        self.weights: list[int | None] = []
        self.stables: list[str] = [OLD]

    def step(self, seconds: float = 1.0) -> Decision:
        self.seconds += seconds
        self.situation = replace(self.situation, now=START + timedelta(seconds=self.seconds))
        before = self.situation
        decision = decide(before)
        pods = 1 if decision.runs_candidate else 0
        stable = before.stable if decision.holds_stable else before.wanted
        self.situation = replace(
            before,
            status=decision.status,
            stable=stable,
            is_rolled_out=stable == before.stable,
            candidate_pods=pods or (1 if before.candidate_pods and before.candidate_ready else 0),
            candidate_ready=1 if pods and self.engine_starts and before.candidate_pods else 0,
        )
        if decision.event is not None:
            self.events.append(decision.event[0])
        self.weights.append(decision.status.weight if decision.status and decision.is_split else None)
        if stable is not None and stable != self.stables[-1]:
            self.stables.append(stable)
        return decision

    def until(self, phase: str | None, limit: int = 300) -> None:
        for _ in range(limit):
            self.step()
            status = self.situation.status
            if (status.phase if status else None) == phase:
                return
        raise AssertionError(f"never {phase}: {self.situation.status}")

    def edit(self, wanted: str) -> None:
        self.situation = replace(self.situation, wanted=wanted)

    def serve(self, candidate: Figures, stable: Figures | None = None) -> None:
        self.situation = replace(self.situation, candidate=candidate, stable_figures=stable or figures(200))


def test_a_good_canary_is_promoted_step_by_step() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    assert life.weights[-1] == 10
    assert None in life.weights and 0 in life.weights, "the split is there before the candidate is"
    life.serve(figures(30))
    life.until("Promoting")
    assert set(filter(None, life.weights)) == {10, 50}
    life.until(None)
    assert life.stables == [OLD, NEW]
    assert life.events == ["CanaryStarted", "CanaryStep", "CanaryStep", "CanaryPromoted"]
    assert life.situation.candidate_pods == 0


def test_the_candidate_does_not_start_before_gateways_can_know_of_it() -> None:
    """The API server is slow, or refuses the ConfigMap."""
    life = Life(wanted=NEW, is_split_published=False)
    for _ in range(30):
        decision = life.step()
        assert not decision.runs_candidate and decision.holds_stable
    assert decision.is_split
    life.situation = replace(life.situation, is_split_published=True)
    assert life.step().runs_candidate


def test_a_step_lasts_until_there_were_enough_requests() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.serve(figures(19))
    for _ in range(200):
        life.step()
    assert life.situation.status is not None and life.situation.status.step == 0
    life.serve(figures(20))
    life.step()
    assert life.situation.status.step == 1


def test_a_model_without_requests_is_not_held_up() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.serve(Figures(), Figures())
    life.until("Promoting")


@pytest.mark.parametrize(
    ("candidate", "words"),
    [
        (figures(40, failures=20), "20 of 40 requests failed"),
        (figures(40, ttft_ms=500), "time to first token p90"),
    ],
)
def test_a_bad_canary_is_aborted_with_the_figures_and_stays_aborted(candidate: Figures, words: str) -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.serve(candidate)
    life.step()
    assert life.situation.status is not None
    assert (life.situation.status.phase, life.weights[-1]) == ("Aborting", 0)
    assert words in life.situation.status.message
    life.until("Aborted")
    assert life.situation.candidate_pods == 0
    for _ in range(50):
        assert not life.step().runs_candidate
    assert life.stables == [OLD]
    assert life.events.count("CanaryAborted") == 1


def test_an_aborted_revision_does_not_come_back_by_a_suspension() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.serve(figures(40, failures=20))
    life.until("Aborted")
    life.situation = replace(life.situation, is_stopped=True)
    life.step()
    life.situation = replace(life.situation, is_stopped=False)
    life.step()
    assert life.stables == [OLD]


def test_after_an_abort_another_change_is_tried_and_taking_it_back_ends_the_state() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.serve(figures(40, failures=20))
    life.until("Aborted")
    life.edit(OLD)
    assert life.step().status is None
    life.edit(NEWER)
    life.until("Running")
    assert life.situation.status is not None and life.situation.status.candidate == NEWER


def test_a_candidate_that_never_gets_ready_is_aborted_with_the_diagnosis() -> None:
    life = Life(wanted=NEW)
    life.engine_starts = False
    for _ in range(10):
        life.step()
    life.situation = replace(life.situation, finding="The image does not exist.", failing_seconds=FAILING_SECONDS - 1)
    assert life.step().runs_candidate, "it may be pulled at the second attempt"
    life.situation = replace(life.situation, failing_seconds=FAILING_SECONDS)
    life.step()
    assert life.situation.status is not None
    assert "did not get ready: The image does not exist." in life.situation.status.message
    life.until("Aborted")
    assert life.stables == [OLD]


def test_a_candidate_that_ends_under_load_is_aborted_at_once() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.situation = replace(life.situation, candidate_ready=0, finding="Out of memory.")
    life.step()
    assert life.situation.status is not None and life.situation.status.phase == "Aborting"


def test_an_edit_in_the_middle_ends_this_canary_and_begins_the_next() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.edit(NEWER)
    life.until("Aborting")
    life.until("Running")
    assert life.situation.status is not None and life.situation.status.candidate == NEWER
    assert life.stables == [OLD]
    assert "CanaryAborted" not in life.events


def test_an_edit_that_is_taken_back_in_the_middle_ends_the_canary() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.edit(OLD)
    life.until(None)
    assert life.stables == [OLD] and life.situation.candidate_pods == 0


def test_an_edit_during_the_promotion_waits_for_its_end() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.serve(figures(30))
    life.until("Promoting")
    while life.situation.stable == OLD:
        life.step()
    life.edit(NEWER)
    life.until("Preparing")
    assert life.stables == [OLD, NEW]


def test_a_first_rollout_and_one_of_a_broken_model_are_no_canaries() -> None:
    assert decide(Life(wanted=NEW, stable=None).situation) == Decision()
    assert decide(Life(wanted=NEW, stable_ready=0).situation) == Decision()
    assert decide(Life(wanted=NEW, canary=None).situation) == Decision()
    assert decide(Life(wanted=NEW, is_stopped=True).situation) == Decision()


def test_a_canary_waits_for_the_rollout_before_it() -> None:
    """Else three revisions ran at once, with a replica more than was announced."""
    life = Life(wanted=NEW, is_rolled_out=False)
    decision = decide(life.situation)
    assert decision.holds_stable and decision.status is None and decision.again_seconds
    assert decide(replace(life.situation, is_rolled_out=True)).status is not None


def test_a_rollout_that_fails_does_not_hold_up_the_change_that_mends_it() -> None:
    failed = Life(wanted=NEW, is_rolled_out=False, stable_finding="The image does not exist.")
    assert decide(failed.situation).status is not None


def test_a_rollout_that_is_taken_back_is_no_canary() -> None:
    assert decide(Life(wanted=NEW, is_rolled_out=False, runs_wanted=True).situation) == Decision()


def test_the_candidate_takes_all_requests_while_the_only_replica_restarts() -> None:
    life = Life(wanted=NEW, replicas=1, stable_ready=1)
    life.until("Running")
    life.serve(figures(30))
    life.until("Promoting")
    assert (life.weights[-1], life.situation.stable) == (100, OLD), "gateways know it before the replica ends"
    life.until(None)
    assert life.stables == [OLD, NEW] and 100 in life.weights[-8:]


def test_a_promotion_whose_steps_are_taken_from_the_spec_keeps_their_last_weight() -> None:
    """The candidate's engines follow its weight: all requests would need all GPUs once more."""
    life = Life(wanted=NEW)
    life.until("Running")
    life.serve(figures(30))
    life.until("Promoting")
    life.situation = replace(life.situation, canary=None)
    life.step()
    assert life.weights[-1] == 50


def test_a_candidate_that_ends_before_its_promotion_has_begun_is_aborted() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.serve(figures(30))
    life.until("Promoting")
    life.situation = replace(life.situation, candidate_ready=0, finding="Out of memory.")
    life.step()
    life.until("Aborted")
    assert life.stables == [OLD]


def test_a_suspension_in_the_middle_ends_the_canary() -> None:
    life = Life(wanted=NEW)
    life.until("Running")
    life.situation = replace(life.situation, is_stopped=True)
    assert decide(life.situation) == Decision()


ACTIONS = st.lists(
    st.one_of(
        st.sampled_from([OLD, NEW, NEWER]).map(lambda revision: ("edit", revision)),
        st.tuples(st.just("serve"), st.integers(0, 100), st.integers(0, 100), st.sampled_from([10.0, 100.0, 900.0])),
        st.sampled_from([("stop",), ("go",), ("break",), ("mend",), ("crash",), ("restart",)]),
        st.integers(1, 90).map(lambda seconds: ("wait", seconds)),
    ),
    max_size=25,
)


@settings(max_examples=400, deadline=None)
@given(ACTIONS)
def test_whatever_happens_requests_go_where_an_engine_is(actions: list[tuple[Any, ...]]) -> None:
    life = Life()
    aborted: set[str] = set()
    for action in actions:
        if action[0] == "edit":
            life.edit(action[1])
            aborted.discard(action[1]) if life.situation.status is None else None
        elif action[0] == "serve":
            life.serve(figures(action[1], min(action[1], action[2]), action[3]))
        elif action[0] in ("stop", "go"):
            life.situation = replace(life.situation, is_stopped=action[0] == "stop")
        elif action[0] in ("break", "mend"):
            life.engine_starts = action[0] == "mend"
            finding = "" if life.engine_starts else "It fails."
            life.situation = replace(life.situation, finding=finding, failing_seconds=60)
        elif action[0] == "restart":  # the operator: only the status is left
            life.situation = replace(life.situation, candidate=Figures(), stable_figures=Figures(), failing_seconds=0)
        for _ in range(action[1] if action[0] == "wait" else 1):
            was = life.situation
            decision = life.step()
            status = decision.status
            if status is not None:
                weight = status.weight if decision.is_split else 0
                assert weight == 0 or was.candidate_ready > 0
                assert not decision.runs_candidate or decision.is_split, "or its pods would be taken for stable ones"
                assert status.phase != "Aborted" or not decision.is_split
            elif was.candidate_pods and not was.is_stopped:
                raise AssertionError("the split was taken away while the candidate has pods")
            if status is not None and status.phase in ("Preparing", "Running", "Aborting", "Aborted"):
                assert life.situation.stable == was.stable, "a candidate that is judged replaces nothing"


@given(st.integers(0, 500), st.integers(0, 500), st.integers(0, 500), st.integers(0, 500))
def test_laws_of_the_judgement(requests: int, failures: int, stable_requests: int, stable_failures: int) -> None:
    candidate = figures(requests, min(failures, requests))
    stable = figures(stable_requests, min(stable_failures, stable_requests))
    rules = CanaryAbort()
    judgement = judge(rules, candidate, stable)
    assert not (judgement.is_bad and judgement.is_judged)
    if judgement.is_judged:
        assert requests >= rules.min_requests
    if candidate.failures == 0 or candidate.error_rate <= stable.error_rate:
        assert not judgement.is_bad, "equal times; it fails no more often than the revision in use"
    if requests >= rules.min_requests and candidate.error_rate > max(rules.error_rate, stable.error_rate):
        assert judgement.is_bad
    if judgement.is_bad:
        more = figures(requests + 1, candidate.failures + 1)
        assert judge(rules, more, stable).is_bad, "one more failure does not make it good"


def test_a_difference_that_is_the_networks_is_none() -> None:
    fast = Figures(50, 0, ((1.0, 50), (10.0, 50)), 50)
    slow = Figures(50, 0, ((1.0, 0), (10.0, 50)), 50)
    assert not judge(CanaryAbort(), slow, fast).is_bad


@given(st.lists(st.integers(0, 50), min_size=3, max_size=3), st.lists(st.integers(0, 50), min_size=3, max_size=3))
def test_what_was_counted_between_two_readings(before: list[int], more: list[int]) -> None:
    def reading(counts: list[int]) -> Figures:
        cumulative = (counts[0], counts[0] + counts[1], sum(counts))
        return Figures(sum(counts), counts[0], tuple(zip((10.0, 20.0, 30.0), cumulative, strict=True)), sum(counts))

    after = [one + other for one, other in zip(before, more, strict=True)]
    assert difference(reading(after), reading(before)) == reading(more)
    assert total([reading(before), reading(more)]) == reading(after)
    assert difference(reading(more), Figures()) == reading(more)


def test_a_gateway_that_was_restarted_counts_from_zero() -> None:
    assert difference(figures(5), figures(50)) == figures(5)


def test_the_90th_percentile() -> None:
    assert Figures().ttft_p90_ms is None
    assert Figures(10, 0, ((100.0, 5), (200.0, 10)), 10).ttft_p90_ms == pytest.approx(180)
    assert Figures(10, 0, ((100.0, 5),), 10).ttft_p90_ms == 100, "slower than the last bound: at least so much"


def test_a_status_survives_the_api() -> None:
    status = CanaryStatus(phase="Running", stable=OLD, candidate=NEW, step=1, weight=50, since="2026-01-01T00:00:00Z")
    assert CanaryStatus.model_validate(status.model_dump(mode="json")) == status
