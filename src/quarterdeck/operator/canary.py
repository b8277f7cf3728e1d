"""What to do next about a canary. Pure: no clock, no network.

A change of the engine runs as a second backend object beside the stable one. Requests move to it in steps, and the
gateways' counters judge it. The order of things keeps every request answered:

* Preparing   gateways are told of two revisions (weight 0), then the candidate's engine is started
* Running     a step's weight is in force; after its pause the next one, if the candidate was judged and is good
* Promoting   the candidate stands in for the replica that the stable object restarts with the new revision, one after
              the other, so that no more GPUs are needed; then it ends
* Aborting    weight 0; the candidate finishes its requests and ends, then the split is taken away
* Aborted     the stable revision serves alone until the spec changes again
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from quarterdeck.kube.resources.model_status import CanaryStatus
from quarterdeck.kube.resources.scaling import Canary, CanaryAbort

FAILING_SECONDS = 30.0
"""How long a candidate that was never ready may have an error before it is aborted: an image may be pulled at the
second attempt."""
SETTLE_SECONDS = 2.0
"""Before the split is published: the labels of the stable Service's EndpointSlices follow the Service within a "
"second."""
SPLIT_SECONDS = 2.0
"""From the split's publication to the candidate's start: gateways must not take its pods for stable ones."""
MIN_DIFFERENCE_MS = 50.0
"""A difference of times to the first token below it is the network's."""
TICK_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Figures:
    """What gateways counted of one revision since the step began."""

    requests: int = 0
    """Calls of its endpoints that have ended."""
    failures: int = 0
    ttft_ms: tuple[tuple[float, int], ...] = ()
    """Upper bounds in milliseconds with cumulative counts, as a histogram; slower ones count in `ttft_count` only."""
    ttft_count: int = 0

    @property
    def error_rate(self) -> float:
        return self.failures / self.requests if self.requests else 0.0

    @property
    def ttft_p90_ms(self) -> float | None:
        """The 90th percentile of the time to the first token, interpolated. None without a stream."""
        if self.ttft_count <= 0:
            return None
        rank, below, low = 0.9 * self.ttft_count, 0, 0.0
        for bound, count in self.ttft_ms:
            if count >= rank:
                share = (rank - below) / (count - below) if count > below else 1.0
                return low + (bound - low) * share
            below, low = count, bound
        return low  # slower than the last bound


@dataclass(frozen=True, slots=True)
class Judgement:
    """`is_bad`: abort. `is_judged`: there were enough requests, and they are good."""

    is_bad: bool = False
    is_judged: bool = False
    text: str = ""


def judge(rules: CanaryAbort, candidate: Figures, stable: Figures) -> Judgement:
    """Compare the candidate with the rules and with the stable revision. It is aborted before `min_requests` if it has
    so many failures that the rest can't save it."""
    enough = candidate.requests >= rules.min_requests
    allowed = rules.error_rate * max(candidate.requests, rules.min_requests)
    is_worse = candidate.error_rate > stable.error_rate
    figures = f"{candidate.failures} of {candidate.requests} requests failed"
    if candidate.failures > allowed and is_worse:
        against = f", with the stable revision {stable.failures} of {stable.requests}"
        return Judgement(True, False, f"{figures}{against}; allowed are {rules.error_rate:.0%}.")
    fast, slow = stable.ttft_p90_ms, candidate.ttft_p90_ms
    if fast is None or slow is None:
        return Judgement(False, enough, f"{figures}.")
    times = f"time to first token p90 {slow:.0f} ms, with the stable revision {fast:.0f} ms"
    comparable = min(candidate.ttft_count, stable.ttft_count) >= rules.min_requests
    if comparable and slow > rules.ttft_ratio * fast and slow - fast > MIN_DIFFERENCE_MS:
        return Judgement(True, False, f"{times}; allowed is {rules.ttft_ratio:g} times as much.")
    return Judgement(False, enough, f"{figures}, {times}.")


@dataclass(frozen=True, slots=True)
class Situation:
    """What a decision looks at."""

    canary: Canary | None
    """`spec.rollout.canary`."""
    wanted: str
    """The revision that the spec asks for."""
    stable: str | None
    """The revision of the stable object; None: there is none."""
    stable_ready: int
    replicas: int
    """That the Model has."""
    is_rolled_out: bool
    """Whether all replicas of the stable object have its revision."""
    candidate_ready: int
    candidate_pods: int
    """Those that are ending too."""
    status: CanaryStatus | None
    now: datetime
    finding: str = ""
    """Why the candidate is not ready, if that is an error."""
    failing_seconds: float = 0.0
    """How long it has been."""
    candidate: Figures = field(default=Figures())
    stable_figures: Figures = field(default=Figures())
    is_split_published: bool = True
    """Whether gateways can know of the candidate."""
    runs_wanted: bool = False
    """Whether a ready replica of the stable object has the revision that is wanted."""
    stable_finding: str = ""
    """Why the stable object is not rolled out, if that is an error."""
    is_stopped: bool = False
    """The Model is suspended or at zero: nothing serves, so there is nothing to compare."""


@dataclass(frozen=True, slots=True)
class Decision:
    """`status` is the canary's new state; None: no canary."""

    status: CanaryStatus | None = None
    holds_stable: bool = False
    """The stable object keeps the revision that it has."""
    runs_candidate: bool = False
    """The candidate's object is there."""
    holds_candidate: bool = False
    """It keeps the revision that it has."""
    is_split: bool = False
    """Gateways tell the two revisions apart; `status.weight` percent of requests are the candidate's."""
    event: tuple[str, str] | None = None
    """Reason and message."""
    again_seconds: float | None = None


def decide(situation: Situation) -> Decision:
    """The next state of a Model's canary."""
    status = situation.status
    if situation.stable is None:
        return Decision()
    if situation.is_stopped:
        return _stopped(situation, status)
    if status is None or status.phase == "Aborted":
        return _at_rest(situation, status)
    if status.phase == "Aborting":
        return _aborting(situation, status)
    if status.phase == "Promoting":
        return _promoting(situation, status)
    if situation.canary is None or situation.wanted != status.candidate:
        return _drop(situation, status)
    if status.phase == "Preparing":
        return _preparing(situation, status, situation.canary)
    return _running(situation, status, situation.canary)


def _stopped(situation: Situation, status: CanaryStatus | None) -> Decision:
    """A canary ends with its Model. A revision that was aborted does not come back when the Model starts again."""
    was_aborted = status is not None and bool(status.message) and status.candidate == situation.wanted
    if status is None or not was_aborted or situation.canary is None:
        return Decision()
    return Decision(status.model_copy(update={"phase": "Aborted", "weight": 0}), holds_stable=True)


def _at_rest(situation: Situation, status: CanaryStatus | None) -> Decision:
    if situation.wanted == situation.stable or situation.canary is None:
        return Decision()
    if status is not None and status.candidate == situation.wanted:
        return Decision(status, holds_stable=True)
    if situation.stable_ready == 0:
        return Decision()  # nothing serves that could be harmed
    if not situation.is_rolled_out and situation.runs_wanted:
        return Decision()  # a rollout that is taken back before it has ended
    if not situation.is_rolled_out and not situation.stable_finding:
        # Else three revisions run at once, and take a replica's GPUs more than is announced.
        return Decision(status, holds_stable=True, again_seconds=TICK_SECONDS)
    begun = CanaryStatus(
        phase="Preparing", stable=situation.stable or "", candidate=situation.wanted, since=_text(situation.now)
    )
    event = ("CanaryStarted", f"Revision {begun.candidate} is tried beside {begun.stable}.")
    return Decision(begun, holds_stable=True, event=event, again_seconds=TICK_SECONDS)


def _preparing(situation: Situation, status: CanaryStatus, canary: Canary) -> Decision:
    age = _age(situation, status)
    if age < SETTLE_SECONDS:
        return Decision(status, holds_stable=True, again_seconds=TICK_SECONDS)
    if age < SETTLE_SECONDS + SPLIT_SECONDS or not situation.is_split_published:
        return Decision(status, holds_stable=True, is_split=True, again_seconds=TICK_SECONDS)
    if situation.candidate_ready > 0:
        return _begin_step(situation, status, canary, 0)
    if situation.finding and situation.failing_seconds >= FAILING_SECONDS:
        return _abort(situation, status, f"its engine did not get ready: {situation.finding}")
    return _go_on(status)


def _running(situation: Situation, status: CanaryStatus, canary: Canary) -> Decision:
    if situation.candidate_ready == 0 and situation.finding:
        return _abort(situation, status, f"its engine is not ready any more: {situation.finding}")
    judgement = judge(canary.abort, situation.candidate, situation.stable_figures)
    if judgement.is_bad:
        return _abort(situation, status, judgement.text)
    at = min(status.step, len(canary.steps) - 1)
    # A Model without requests can't be judged, and is not harmed.
    is_judged = judgement.is_judged or situation.candidate.requests + situation.stable_figures.requests == 0
    is_over = _age(situation, status) >= canary.steps[at].pause_seconds
    if is_judged and is_over and situation.candidate_ready > 0:
        if at + 1 < len(canary.steps):
            return _begin_step(situation, status, canary, at + 1)
        changed = {
            "phase": "Promoting",
            "weight": _weight_of_promotion(situation, status),
            "since": _text(situation.now),
        }
        promoted = status.model_copy(update=changed)
        event = ("CanaryPromoted", f"Revision {status.candidate} replaces {status.stable}: {judgement.text}")
        return _go_on(promoted, event)
    weight = canary.steps[at].weight if situation.candidate_ready else 0
    return _go_on(status.model_copy(update={"weight": weight}))


def _begin_step(situation: Situation, status: CanaryStatus, canary: Canary, step: int) -> Decision:
    weight = canary.steps[step].weight
    changed = {"phase": "Running", "step": step, "weight": weight, "since": _text(situation.now)}
    text = f"Revision {status.candidate} gets {weight} % of requests (step {step + 1} of {len(canary.steps)})."
    return _go_on(status.model_copy(update=changed), ("CanaryStep", text))


def _go_on(status: CanaryStatus, event: tuple[str, str] | None = None, *, holds_stable: bool = True) -> Decision:
    return Decision(
        status,
        holds_stable=holds_stable,
        runs_candidate=True,
        is_split=True,
        event=event,
        again_seconds=TICK_SECONDS,
    )


def _weight_of_promotion(situation: Situation, status: CanaryStatus) -> int:
    """That of the last step. A Model without a second replica has only the candidate while the stable one restarts."""
    if situation.candidate_ready == 0:
        return 0
    if situation.replicas <= 1:
        return 100
    return situation.canary.steps[-1].weight if situation.canary is not None else status.weight


def _promoting(situation: Situation, status: CanaryStatus) -> Decision:
    status = status.model_copy(update={"weight": _weight_of_promotion(situation, status)})
    if situation.stable != status.candidate:
        if situation.wanted != status.candidate:
            return _drop(situation, status)
        if situation.candidate_ready == 0 and situation.finding:
            return _abort(situation, status, f"its engine is not ready any more: {situation.finding}")
        # Gateways know the weight before the first stable replica ends, and a candidate is there that can stand in.
        is_begun = _age(situation, status) >= SPLIT_SECONDS and situation.candidate_ready > 0
        return _go_on(status, holds_stable=not is_begun)
    # The stable object has the new revision. A later change of the spec waits until this one is done.
    is_changed = situation.wanted != status.candidate
    if not situation.is_rolled_out:
        decision = _go_on(status, holds_stable=is_changed)
        return replace(decision, holds_candidate=is_changed)
    if situation.candidate_pods > 0:
        # It finishes its requests; the split stays until its pods are gone, so that they get no new ones.
        ending = status.model_copy(update={"weight": 0})
        return Decision(ending, holds_stable=is_changed, is_split=True, again_seconds=TICK_SECONDS)
    return Decision(None, holds_stable=is_changed, again_seconds=TICK_SECONDS)


def _drop(situation: Situation, status: CanaryStatus) -> Decision:
    """The spec has changed: this candidate is not wanted any more."""
    dropped = status.model_copy(update={"phase": "Aborting", "weight": 0, "since": _text(situation.now)})
    return Decision(dropped, holds_stable=True, is_split=True, again_seconds=TICK_SECONDS)


def _abort(situation: Situation, status: CanaryStatus, why: str) -> Decision:
    message = f"Revision {status.candidate} was aborted at {status.weight} % of requests: {why}"[:1000]
    aborted = status.model_copy(update={"message": message})
    return replace(_drop(situation, aborted), event=("CanaryAborted", message))


def _aborting(situation: Situation, status: CanaryStatus) -> Decision:
    if situation.candidate_pods > 0:
        return Decision(status, holds_stable=True, is_split=True, again_seconds=TICK_SECONDS)
    if status.message and status.candidate == situation.wanted:
        return Decision(status.model_copy(update={"phase": "Aborted"}), holds_stable=True)
    return Decision(None, holds_stable=situation.wanted != situation.stable, again_seconds=TICK_SECONDS)


def _age(situation: Situation, status: CanaryStatus) -> float:
    try:
        since = datetime.fromisoformat(status.since.replace("Z", "+00:00"))
    except ValueError:
        return 0.0
    return max((situation.now - since) / timedelta(seconds=1), 0.0)


def _text(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def difference(now: Figures, before: Figures) -> Figures:
    """What was counted between two readings of one gateway. A gateway that was restarted counts from zero."""
    if now.requests < before.requests or now.ttft_count < before.ttft_count:
        return now
    known = dict(before.ttft_ms)
    return Figures(
        now.requests - before.requests,
        max(now.failures - before.failures, 0),
        tuple((bound, max(count - known.get(bound, 0), 0)) for bound, count in now.ttft_ms),
        now.ttft_count - before.ttft_count,
    )


def total(figures: Sequence[Figures]) -> Figures:
    """The sum over gateways."""
    buckets: dict[float, int] = {}
    for each in figures:
        for bound, count in each.ttft_ms:
            buckets[bound] = buckets.get(bound, 0) + count
    return Figures(
        sum(each.requests for each in figures),
        sum(each.failures for each in figures),
        tuple(sorted(buckets.items())),
        sum(each.ttft_count for each in figures),
    )
