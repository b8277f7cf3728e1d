"""A Model's status, from what is wanted and what was seen. Pure."""

from dataclasses import dataclass, field
from typing import Protocol

from quarterdeck.kube.conditions import Condition, ConditionType, Reason, Status, replaced
from quarterdeck.kube.names import MODEL_LABEL
from quarterdeck.kube.reasons import EXPLANATIONS
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.model_status import (
    Backend,
    CanaryStatus,
    ModelStatus,
    Plan,
    ScalingEvent,
    State,
)
from quarterdeck.kube.resources.object import Replicas
from quarterdeck.operator.render.request import ReplicaState
from quarterdeck.operator.scaling import Decision

MAX_SCALINGS = 5
_STEPS = (
    ConditionType.ACCEPTED,
    ConditionType.PLANNED,
    ConditionType.WEIGHTS_READY,
    ConditionType.SCHEDULED,
    ConditionType.ENGINE_READY,
    ConditionType.ROUTABLE,
)
_DONE = {
    ConditionType.ACCEPTED: Reason.ACCEPTED,
    ConditionType.PLANNED: Reason.PLANNED,
    ConditionType.WEIGHTS_READY: Reason.WEIGHTS_READY,
    ConditionType.SCHEDULED: Reason.SCHEDULED,
    ConditionType.ENGINE_READY: Reason.ENGINE_READY,
    ConditionType.ROUTABLE: Reason.ROUTABLE,
}


class Finding(Protocol):
    """What keeps an engine from being ready (`diagnosis`)."""

    @property
    def condition(self) -> ConditionType: ...
    @property
    def reason(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def is_progress(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a step is not done."""

    condition: ConditionType
    reason: str
    text: str
    is_progress: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """What a reconcile has decided and seen."""

    problem: Problem | None = None
    """The spec was refused, can't be rendered, or the API server refused what was rendered."""
    plan: Plan | None = None
    """None: the plan of the status stays."""
    backend: Backend | None = None
    decision: Decision | None = None
    replicas: ReplicaState = field(default=ReplicaState())
    previous: int | None = None
    """Replicas that the backend was asked for before `decision`; None: it did not exist."""
    finding: Finding | None = None
    is_published: bool = False
    """Whether gateways have the Model in their configuration."""
    is_rolling_out: bool = False
    canary: CanaryStatus | None = None
    again_seconds: float = 60.0
    """Until the next reconcile, without an event."""


def summarize(model: Model, seen: Observation, now: str) -> ModelStatus:
    """The new status; `now` is RFC 3339. Equal observations make equal statuses, whatever `now` is."""
    steps, state, message = _steps(model, seen)
    conditions: list[Condition] = list(model.status.conditions)
    ready = _ready(steps, seen)
    for kind, (status, reason, text) in [*steps.items(), (ConditionType.READY, ready)]:
        made = Condition(
            type=str(kind),
            status=status,
            reason=str(reason),
            message=text[:2000],
            observed_generation=model.metadata.generation,
        )
        conditions = replaced(conditions, made, now)
    known = {str(kind) for kind in (*_STEPS, ConditionType.READY)}
    return ModelStatus(
        observed_generation=model.metadata.generation,
        conditions=tuple(each for each in conditions if each.type in known),
        plan=seen.plan if seen.plan is not None else model.status.plan,
        replicas=Replicas(
            desired=seen.decision.replicas if seen.decision is not None else seen.replicas.desired,
            ready=seen.replicas.ready,
            draining=seen.replicas.draining,
        ),
        selector=f"{MODEL_LABEL}={model.name}",
        state=state,
        canary=seen.canary,
        last_scalings=_scalings(model, seen, now),
        backend=seen.backend,
        message=(message or ready[2])[:2000],
    )


_Step = tuple[Status, str, str]


def _steps(model: Model, seen: Observation) -> tuple[dict[ConditionType, _Step], State, str]:
    """Conditions in order, the state, and a sentence that says more than the Ready condition (or nothing)."""
    if seen.problem is not None and seen.replicas.ready == 0:
        return _stopped_at(seen.problem), _failed_or_starting(seen.problem), ""
    if not model.has_engine:
        done = _all(Reason.EXTERNAL, "Served by external endpoints.")
        return _with_route(done, seen), "Serving", _blocked(done, seen)
    if model.spec.suspend:
        return _suspended(seen), "Suspended", _blocked({}, seen)
    if seen.decision is not None and seen.decision.replicas == 0:
        idle = _all(Reason.SCALED_TO_ZERO, "No replica runs; the next request starts one.")
        return _with_route(idle, seen), "Zero", _blocked(idle, seen)
    if seen.replicas.ready > 0:
        return _serving(seen), "Serving", _serving_message(seen)
    finding = seen.finding or Problem(ConditionType.ENGINE_READY, Reason.STARTING, "The engine is starting.", True)
    return _stopped_at(finding), _failed_or_starting(finding), ""


def _all(reason: Reason, text: str) -> dict[ConditionType, _Step]:
    steps: dict[ConditionType, _Step] = dict.fromkeys(_STEPS, ("True", reason, text))
    steps[ConditionType.ACCEPTED] = ("True", Reason.ACCEPTED, "")
    return steps


def _with_route(steps: dict[ConditionType, _Step], seen: Observation) -> dict[ConditionType, _Step]:
    if seen.problem is not None:
        steps[seen.problem.condition] = ("False", seen.problem.reason, seen.problem.text)
    if not seen.is_published:
        steps[ConditionType.ROUTABLE] = ("False", Reason.CONFIGURATION_NOT_WRITTEN, "Gateways do not have it yet.")
    return steps


def _suspended(seen: Observation) -> dict[ConditionType, _Step]:
    steps: dict[ConditionType, _Step] = dict.fromkeys(_STEPS, ("Unknown", Reason.SUSPENDED, "spec.suspend is true."))
    steps[ConditionType.ACCEPTED] = ("True", Reason.ACCEPTED, "")
    steps[ConditionType.PLANNED] = ("True", Reason.PLANNED, "")
    if seen.problem is not None:
        steps[seen.problem.condition] = ("False", seen.problem.reason, seen.problem.text)
    text = "spec.suspend is true: the engine is stopped, and requests get 503."
    if seen.replicas.draining:
        text += f" {seen.replicas.draining} replicas finish their requests."
    for kind in (ConditionType.ENGINE_READY, ConditionType.ROUTABLE):
        steps[kind] = ("False", Reason.SUSPENDED, text)
    return steps


def _serving(seen: Observation) -> dict[ConditionType, _Step]:
    steps: dict[ConditionType, _Step] = {kind: ("True", reason, "") for kind, reason in _DONE.items()}
    desired = seen.decision.replicas if seen.decision is not None else seen.replicas.desired
    steps[ConditionType.ENGINE_READY] = (
        "True",
        Reason.ENGINE_READY,
        f"{seen.replicas.ready} of {desired} replicas are ready.",
    )
    return _with_route(steps, seen)


def _stopped_at(problem: Finding | Problem) -> dict[ConditionType, _Step]:
    """Steps before the problem's are done, later ones wait."""
    at = _STEPS.index(problem.condition) if problem.condition in _STEPS else _STEPS.index(ConditionType.ENGINE_READY)
    steps: dict[ConditionType, _Step] = {}
    for number, kind in enumerate(_STEPS):
        if number < at:
            steps[kind] = ("True", _DONE[kind], "")
        elif number == at:
            steps[kind] = ("False", problem.reason, problem.text)
        else:
            steps[kind] = ("Unknown", Reason.PENDING, "")
    return steps


def _ready(steps: dict[ConditionType, _Step], seen: Observation) -> _Step:
    for kind in _STEPS:
        status, reason, text = steps[kind]
        if status != "True":
            return ("False", reason, text)
    reason = steps[ConditionType.ENGINE_READY][1]
    if reason in (Reason.SCALED_TO_ZERO, Reason.EXTERNAL):
        return ("True", reason, steps[ConditionType.ENGINE_READY][2])
    if seen.finding is not None and not seen.finding.is_progress:
        return ("True", seen.finding.reason, f"Served, but not by all replicas: {seen.finding.text}")
    if seen.canary is not None and seen.canary.phase == "Aborted":
        explanation = EXPLANATIONS[Reason.CANARY_ABORTED]
        return ("True", Reason.CANARY_ABORTED, f"{seen.canary.message} {explanation.remedy}")
    if seen.canary is not None:
        return ("True", Reason.CANARY_RUNNING, _canary_text(seen.canary))
    if seen.is_rolling_out:
        return ("True", Reason.ROLLING_OUT, "A new revision is rolled out.")
    return ("True", Reason.READY, steps[ConditionType.ENGINE_READY][2])


def _canary_text(canary: CanaryStatus) -> str:
    if canary.phase == "Aborting":
        return canary.message or f"The canary of revision {canary.candidate} ends."
    if canary.phase == "Promoting":
        return f"Revision {canary.candidate} replaces {canary.stable}."
    share = f"gets {canary.weight} % of requests" if canary.phase == "Running" else "starts"
    return f"Revision {canary.candidate} {share}, beside {canary.stable}."


def _serving_message(seen: Observation) -> str:
    return _blocked({}, seen)


def _blocked(steps: dict[ConditionType, _Step], seen: Observation) -> str:
    if seen.problem is None:
        return ""
    return f"The latest spec is not in force: {seen.problem.text}"


def _failed_or_starting(problem: Finding | Problem) -> State:
    return "Starting" if problem.is_progress else "Failed"


def _scalings(model: Model, seen: Observation, now: str) -> tuple[ScalingEvent, ...]:
    known = model.status.last_scalings
    if seen.decision is None or seen.previous is None or seen.previous == seen.decision.replicas:
        return known
    event = ScalingEvent.model_validate(
        {"from": seen.previous, "to": seen.decision.replicas, "reason": seen.decision.reason, "at": now}
    )
    return (event, *known)[:MAX_SCALINGS]
