"""The manifests of a Model while a canary runs, and what the decision about it looks at.

Only the Deployment backend: KubeRay replaces a Ray cluster by its own steps.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from quarterdeck.kube.compile.runtime import Canary
from quarterdeck.kube.names import REVISION_LABEL
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.model_status import CanaryStatus
from quarterdeck.operator.canary import Decision, Figures, Situation, decide, difference, total
from quarterdeck.operator.manifests import DEPLOYMENT, SERVICE, Manifest, labels_of, name_of
from quarterdeck.operator.observed import Observed
from quarterdeck.operator.render import deployment
from quarterdeck.operator.render.pod import TRACK_LABEL
from quarterdeck.operator.render.request import CANARY, STABLE, Change, RenderRequest
from quarterdeck.operator.summarize import Finding

Counters = Mapping[str, Mapping[str, Any]]
"""`models` of each gateway's `/demand`, by gateway."""


@dataclass(frozen=True, slots=True)
class Staged:
    """What to apply, and why."""

    manifests: list[Manifest]
    decision: Decision

    @property
    def split(self) -> Canary | None:
        """How gateways split requests."""
        status = self.decision.status
        if status is None or not self.decision.is_split:
            return None
        return Canary(status.stable, status.candidate, status.weight)


class Canaries:
    """Remembers, of each Model's canary, what gateways had counted when its step began and since when it fails. A new
    operator begins to count anew; the step, and when it began, are in the status."""

    def __init__(
        self,
        counters: Callable[[], Counters],
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        has_name: Callable[[str], bool] = lambda name: True,
    ) -> None:
        """`has_name`: whether gateways' configuration has an engine of this public name."""
        self._counters, self._clock, self._now, self._has_name = counters, clock, now, has_name
        self._baselines: dict[str, tuple[tuple[object, ...], dict[str, dict[str, Figures]]]] = {}
        self._failing: dict[str, tuple[str, float]] = {}

    def forget(self, model: str) -> None:
        """A Model is gone."""
        self._baselines.pop(model, None)
        self._failing.pop(model, None)

    def stage(
        self,
        request: RenderRequest,
        desired: Sequence[Manifest],
        seen: Observed,
        finding: Finding | None,
        of_stable: Finding | None = None,
    ) -> Staged:
        """The Model's manifests, with the candidate's where there is one. `finding`: about the candidate's pods;
        `of_stable`: about the others."""
        model = request.model
        live = find(seen.children, deployment.object_name(model))
        engine = find(desired, deployment.object_name(model))
        if engine is None:
            return Staged(list(desired), Decision())
        decision = decide(self._situation(request, engine, live, seen, _error(finding), _error(of_stable)))
        if decision.status is None:
            self.forget(model.name)
        manifests = list(desired)
        if decision.holds_stable and live is not None:
            manifests = [_with_template(each, live) if each is engine else each for each in manifests]
            engine = _with_template(engine, live)
        if decision.status is not None and decision.status.phase == "Promoting":
            manifests = [_one_by_one(each, model) for each in manifests]
        in_use = decision.status.stable if decision.is_split and decision.status else deployment.revision_of(engine)
        manifests = [_labelled(each, model, in_use) for each in manifests]
        if decision.runs_candidate and decision.status is not None:
            share = share_of(request.replicas, decision.status.weight)
            candidate = deployment.render(replace(request, track=CANARY, replicas=share))
            known = find(seen.children, deployment.object_name(model, CANARY))
            if decision.holds_candidate and known is not None:
                candidate = [_with_template(each, known) for each in candidate]
            manifests += candidate
        return Staged(manifests, decision)

    def _situation(
        self,
        request: RenderRequest,
        engine: Manifest,
        live: Manifest | None,
        seen: Observed,
        problem: str,
        of_stable: str,
    ) -> Situation:
        model = request.model
        status = model.status.canary
        stable_pods, candidate_pods = pods_of(seen, STABLE), pods_of(seen, CANARY)
        state = deployment.replicas(request, seen.children, stable_pods)
        candidate, stable = Figures(), Figures()
        if status is not None and status.phase == "Running":
            candidate = self._counted(model, status.candidate, (status.candidate, status.step))
            stable = self._counted(model, status.stable, (status.candidate, status.step))
        wanted = deployment.revision_of(engine)
        return Situation(
            canary=model.spec.rollout.canary,
            wanted=wanted,
            stable=deployment.revision_of(live) or None if live is not None else None,
            stable_ready=state.ready,
            replicas=request.replicas,
            is_rolled_out=state.is_rolled_out and state.ready >= min(state.desired, 1),
            candidate_ready=sum(map(deployment.is_ready, candidate_pods)),
            candidate_pods=len(candidate_pods),
            status=status,
            now=self._now(),
            finding=problem,
            stable_finding=of_stable,
            runs_wanted=any(
                deployment.is_ready(each) and labels_of(each).get(REVISION_LABEL) == wanted for each in stable_pods
            ),
            failing_seconds=self._failing_for(model.name, problem),
            candidate=candidate,
            stable_figures=stable,
            is_split_published=status is not None and self._has_name(f"{model.served_name}@{status.candidate}"),
            is_stopped=request.replicas == 0 or (state.desired == 0 and live is not None),
        )

    def _failing_for(self, model: str, problem: str) -> float:
        if not problem:
            self._failing.pop(model, None)
            return 0.0
        _, since = self._failing.setdefault(model, (problem, self._clock()))
        return self._clock() - since

    def _counted(self, model: Model, revision: str, step: tuple[object, ...]) -> Figures:
        """What all gateways counted of a revision since the step began."""
        name = f"{model.served_name}@{revision}"
        readings = {gateway: read_figures(models.get(name)) for gateway, models in self._counters().items()}
        known = self._baselines.get(model.name)
        if known is None or known[0] != step:
            known = self._baselines[model.name] = (step, {})
        before = known[1].setdefault(name, readings)
        return total([difference(each, before.get(gateway, Figures())) for gateway, each in readings.items()])


def share_of(replicas: int, weight: int) -> int:
    """The candidate's engines, of a Model's replicas, for a percentage of its requests."""
    return max(math.ceil(replicas * weight / 100), 1)


def change_of(request: RenderRequest, status: CanaryStatus) -> Change | None:
    """What a canary needs beyond the engines in use, until it has ended: the engines of its largest step. None: it ends
    already."""
    if status.phase not in ("Preparing", "Running", "Promoting"):
        return None
    canary = request.model.spec.rollout.canary
    weights = [status.weight, *(each.weight for each in canary.steps)] if canary is not None else [status.weight]
    gpus = share_of(request.replicas, max(weights)) * request.model.spec.resources.gpu_count
    return Change("NewCluster", gpus)


def read_figures(counts: Any) -> Figures:
    """One model's part of a gateway's `/demand`; what is missing or malformed counts as nothing."""
    if not isinstance(counts, Mapping):
        return Figures()
    times = counts.get("ttft_ms")
    times = times if isinstance(times, Mapping) else {}
    buckets = []
    for pair in times.get("buckets") or ():
        if isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(each, int | float) for each in pair):
            buckets.append((float(pair[0]), int(pair[1])))
    return Figures(
        _whole(counts.get("attempts")), _whole(counts.get("failures")), tuple(buckets), _whole(times.get("count"))
    )


def find(manifests: Sequence[Manifest], name: str) -> Manifest | None:
    """The Deployment with this name."""
    return next((each for each in manifests if each["kind"] == DEPLOYMENT.name and name_of(each) == name), None)


def pods_of(seen: Observed, track: str) -> list[Manifest]:
    return [each for each in seen.pods if is_of_track(each, track)]


def is_of_track(manifest: Manifest, track: str) -> bool:
    """What has no track belongs to the stable one."""
    return labels_of(manifest).get(TRACK_LABEL, STABLE) == track


def _with_template(manifest: Manifest, live: Manifest) -> Manifest:
    """The Deployment with the pod template that it has in the cluster."""
    if manifest["kind"] != DEPLOYMENT.name:
        return manifest
    return {**manifest, "spec": {**manifest["spec"], "template": _without_none(live["spec"]["template"])}}


def _error(finding: Finding | None) -> str:
    return finding.text if finding is not None and not finding.is_progress else ""


def _one_by_one(manifest: Manifest, model: Model) -> Manifest:
    """The stable Deployment, which restarts one replica at a time and starts none besides: the candidate is there."""
    if manifest["kind"] != DEPLOYMENT.name or name_of(manifest) != deployment.object_name(model):
        return manifest
    strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 0, "maxUnavailable": 1}}
    return {**manifest, "spec": {**manifest["spec"], "strategy": strategy}}


def _labelled(manifest: Manifest, model: Model, revision: str) -> Manifest:
    """The stable Service, with the revision by which gateways know its endpoints."""
    if manifest["kind"] != SERVICE.name or name_of(manifest) != deployment.object_name(model):
        return manifest
    metadata = manifest["metadata"]
    labels = {**(metadata.get("labels") or {}), REVISION_LABEL: revision}
    return {**manifest, "metadata": {**metadata, "labels": labels}}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_none(each) for name, each in value.items() if each is not None}
    if isinstance(value, list):
        return [_without_none(each) for each in value]
    return value


def _whole(value: Any) -> int:
    return max(int(value), 0) if isinstance(value, int | float) and not isinstance(value, bool) else 0
