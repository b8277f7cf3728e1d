"""A ModelAdapter's status, from what is wanted and what replicas have. Pure."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from quarterdeck.kube.conditions import Condition, ConditionType, Reason, Status, replaced
from quarterdeck.kube.resources.adapter import AdapterCount, AdapterReplica, ModelAdapter, ModelAdapterStatus
from quarterdeck.operator.adapters.plan import Replica, failures_of, pods_of
from quarterdeck.operator.adapters.wanted import Refused, Wanted
from quarterdeck.operator.diagnosis.finding import sentence

MAX_REPLICAS = 100
"""Replicas that a status lists; `replicas` counts all of them."""

_Step = tuple[Status, Reason, str]


@dataclass(frozen=True, slots=True)
class AdapterView:
    """What is known of one ModelAdapter."""

    wanted: Wanted | None
    """None: it is not loaded, because of `refused` or of its verdict."""
    refused: Refused | None = None
    replicas: Sequence[Replica] = ()
    verdict: Sequence[Condition] = ()
    """Accepted and ResolvedRefs."""
    model_state: str = "Starting"
    is_published: bool = False
    """Whether gateways have its name."""


def summarize(adapter: ModelAdapter, view: AdapterView, now: str) -> ModelAdapterStatus:
    """The new status; equal views make equal statuses, whatever `now` is."""
    generation = adapter.metadata.generation
    loaded = pods_of(view.wanted.engine_name, view.replicas) if view.wanted is not None else ()
    steps: dict[ConditionType, _Step] = {
        ConditionType(each.type): (each.status, Reason(each.reason), each.message) for each in view.verdict
    }
    is_refused = any(status == "False" for status, _, _ in steps.values())
    if is_refused:
        steps[ConditionType.LOADED] = ("Unknown", Reason.PENDING, "")
        steps[ConditionType.ROUTABLE] = ("Unknown", Reason.PENDING, "")
    else:
        steps[ConditionType.LOADED] = _loaded(view, loaded)
        steps[ConditionType.ROUTABLE] = _routable(view, loaded, steps[ConditionType.LOADED])
    first = next((step for step in steps.values() if step[0] == "False"), None)
    waiting = next((step for step in steps.values() if step[0] != "True"), None)
    loaded_step = steps[ConditionType.LOADED]
    if first is not None or waiting is not None:
        _, reason, text = first or waiting or loaded_step
        steps[ConditionType.READY] = ("False", reason, text)
    else:
        reason = Reason.SCALED_TO_ZERO if loaded_step[1] == Reason.SCALED_TO_ZERO else Reason.READY
        steps[ConditionType.READY] = ("True", reason, loaded_step[2])
    conditions = [each for each in adapter.status.conditions if each.type in steps]
    for kind, (status, reason, text) in steps.items():
        made = Condition(
            type=str(kind), status=status, reason=str(reason), message=text[:2000], observed_generation=generation
        )
        conditions = replaced(conditions, made, now)
    return ModelAdapterStatus(
        observed_generation=generation,
        conditions=tuple(conditions),
        replicas=AdapterCount(loaded=len(loaded), total=len(view.replicas)),
        per_replica=tuple(_per_replica(view))[:MAX_REPLICAS],
        message=steps[ConditionType.READY][2][:2000],
    )


def _loaded(view: AdapterView, loaded: Sequence[str]) -> _Step:
    if view.refused is not None:
        return ("False", view.refused.reason, view.refused.message)
    total = len(view.replicas)
    if total == 0:
        if view.model_state == "Zero":
            return ("True", Reason.SCALED_TO_ZERO, "No replica runs; it is loaded when one starts.")
        if view.model_state == "Suspended":
            return ("False", Reason.SUSPENDED, "Its Model is suspended.")
        return ("False", Reason.NO_READY_REPLICA, "Its Model has no ready replica.")
    if len(loaded) == total:
        return ("True", Reason.LOADED, f"Loaded on {total} of {total} replicas.")
    failures = failures_of(view.wanted, view.replicas) if view.wanted is not None else {}
    if failures:
        pod = sorted(failures)[0]
        text = f"Loaded on {len(loaded)} of {total} replicas. {sentence(failures[pod].message)}"
        return ("False", failures[pod].reason, text)
    return ("False", Reason.LOADING, f"Loaded on {len(loaded)} of {total} replicas.")


def _routable(view: AdapterView, loaded: Sequence[str], loading: _Step) -> _Step:
    if not view.is_published:
        return ("False", Reason.CONFIGURATION_NOT_WRITTEN, "Gateways do not have it yet.")
    if loaded or loading[1] == Reason.SCALED_TO_ZERO:
        return ("True", Reason.ROUTABLE, "")
    if loading[0] == "False" and loading[1] != Reason.LOADING:
        return ("False", Reason.NO_READY_REPLICA, "No replica has it.")
    return ("Unknown", Reason.PENDING, "")


def _per_replica(view: AdapterView) -> Iterable[AdapterReplica]:
    failures = failures_of(view.wanted, view.replicas) if view.wanted is not None else {}
    for replica in sorted(view.replicas, key=lambda each: each.pod):
        if view.wanted is None:
            continue
        if replica.serves(view.wanted.engine_name):
            yield AdapterReplica(pod=replica.pod, state="Loaded")
        elif replica.pod in failures:
            yield AdapterReplica(pod=replica.pod, state="Failed", error=failures[replica.pod].message)
        else:
            yield AdapterReplica(pod=replica.pod, state="Loading")
