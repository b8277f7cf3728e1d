"""The status of each model, from its instances, its failure and what the runtime observes. Pure."""

from collections.abc import Mapping, Sequence

import msgspec

from quarterdeck.model_lifecycle.desired import Desired
from quarterdeck.model_lifecycle.instance import Failure, Instance
from quarterdeck.model_lifecycle.runtime import Observed, Progress
from quarterdeck.model_lifecycle.start_times import StartTimes, left
from quarterdeck.model_lifecycle.status import WORDS, ModelStatus, Phase


def of_models(
    desired: Mapping[str, Desired],
    instances: Sequence[Instance],
    failures: Mapping[str, Failure],
    observed: Mapping[str, Observed],
    times: StartTimes,
    now: float,
    *,
    waiting_for: str = "",
) -> list[ModelStatus]:
    """One for each model, in the order of `desired`; those that are only being removed come last."""
    by_model: dict[str, list[Instance]] = {name: [] for name in desired}
    for instance in instances:
        by_model.setdefault(instance.model.name, []).append(instance)
    found = []
    queue_seconds = 0.0
    starting = ""
    for name, own in by_model.items():
        status = _of_model(name, desired.get(name), own, failures.get(name), observed, times, now)
        if status.state == "waiting":
            detail = f"waiting for {waiting_for}" if waiting_for else f"waiting until {starting} has started"
            if not waiting_for and not starting:
                detail = "about to be started"
            ahead = (status.seconds_left or 0.0) + queue_seconds
            status = _with(status, detail=detail, seconds_left=round(ahead, 1))
        if status.is_starting or status.state == "updating":
            queue_seconds = status.seconds_left or queue_seconds
            starting = starting or (name if status.state != "waiting" else "")
        found.append(status)
    return found


def _of_model(
    name: str,
    model: Desired | None,
    own: Sequence[Instance],
    failure: Failure | None,
    observed: Mapping[str, Observed],
    times: StartTimes,
    now: float,
) -> ModelStatus:
    seen = [observed[each.app] for each in own if each.app in observed]
    logs = [each.log for each in seen if each.log]
    base = ModelStatus(
        name=name,
        state="waiting",
        memory_bytes=sum(each.memory_bytes or 0 for each in seen) or None,
        gpu_memory_bytes=sum(each.gpu_memory_bytes or 0 for each in seen) or None,
        log=logs[-1] if logs else None,
    )
    if model is None or model.is_stopped:
        if own:
            return _with(base, state="removing", detail=WORDS["removing"] if _drains(own) else "ending its processes")
        return _with(base, state="stopped", detail=WORDS["stopped"])
    current = next((each for each in own if each.model.digest == model.digest and each.stopping is None), None)
    serving = [each for each in own if each is not current and each.is_ready and each.stopping is None]
    if current is not None:
        base = _of_files(base, current)
        return _of_current(base, current, observed.get(current.app), times, now, is_update=bool(serving))
    if failure is not None:
        return _with(
            base,
            state="ready" if serving else "failed",
            detail=f"its change is not in force: {failure.message}" if serving else failure.message,
            reason=failure.reason,
            retry_seconds=round(max(0.0, failure.due - now), 1),
            needed_bytes=failure.needed_bytes,
        )
    estimate = times.estimate(model.digest, 0)
    if serving:
        return _with(base, state="updating", detail=WORDS["updating"], seconds_left=estimate)
    return _with(base, seconds_left=estimate)


def _of_files(base: ModelStatus, current: Instance) -> ModelStatus:
    prepared = current.prepared
    if prepared is None:
        return base
    need = prepared.need
    folder = prepared.source if prepared.source.startswith("/") else None
    return _with(base, folder=folder, revision=prepared.revision, needed_bytes=need.total if need else None)


def _of_current(
    base: ModelStatus, current: Instance, seen: Observed | None, times: StartTimes, now: float, *, is_update: bool
) -> ModelStatus:
    if current.is_ready:
        if seen is None or seen.state == "ready":
            return _with(base, state="ready")
        progress = seen.progress or Progress("loading", "restarting")
        return _with(base, state=progress.phase, detail=progress.detail or WORDS[progress.phase])
    progress = current.progress
    stored = current.prepared.stored_bytes if current.prepared else 0
    estimate = times.estimate(current.model.digest, stored)
    if current.has_processes:
        seconds = left(estimate, now - current.loading_since)
    else:
        seconds = estimate + (progress.seconds_left or 0.0)
    detail = progress.detail or WORDS[progress.phase]
    state: Phase = "updating" if is_update else progress.phase
    return _with(
        base,
        state=state,
        detail=f"its new configuration: {detail}" if is_update else detail,
        progress=progress.fraction,
        seconds_left=round(seconds, 1),
    )


def _drains(own: Sequence[Instance]) -> bool:
    return any(each.draining is not None for each in own)


def _with(status: ModelStatus, **fields: object) -> ModelStatus:
    return msgspec.structs.replace(status, **fields)
