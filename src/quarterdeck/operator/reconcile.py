"""Makes the cluster agree with one Model. Level-triggered: one function for a creation, an update, a child's event, a
timer and a restart of the operator; called twice, it changes nothing the second time."""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Literal

from quarterdeck.kube.conditions import ConditionType, Reason
from quarterdeck.kube.names import API_VERSION, MODEL_LABEL
from quarterdeck.kube.reasons import EXPLANATIONS
from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.model_status import Backend as BackendStatus
from quarterdeck.kube.resources.model_status import ModelStatus, Plan
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.operator.apply import Applier, ForeignObjectError, RejectedError
from quarterdeck.operator.autoscaler import Autoscaler
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.canary import Decision as CanaryDecision
from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.diagnosis.finding import sentence
from quarterdeck.operator.event_log import EventLog
from quarterdeck.operator.event_recorder import EventRecorder
from quarterdeck.operator.manifests import (
    DEPLOYMENT,
    VOLUME_CLAIM,
    Key,
    Manifest,
    controller_uid,
    is_deleting,
    labels_of,
    name_of,
    version_of,
)
from quarterdeck.operator.observed import Observed
from quarterdeck.operator.plan import make_plan
from quarterdeck.operator.probe import Capabilities
from quarterdeck.operator.publish import Publisher
from quarterdeck.operator.render.backends import BACKENDS, Backend, backend_of
from quarterdeck.operator.render.request import CANARY, STABLE, Change, RenderError, RenderRequest, ReplicaState
from quarterdeck.operator.render.weights import adapter_claims
from quarterdeck.operator.rollout import Canaries, change_of, is_of_track, pods_of
from quarterdeck.operator.settings import OperatorConfig
from quarterdeck.operator.summarize import Finding, Observation, Problem, summarize

log = logging.getLogger(__name__)

RESYNC_SECONDS = 60.0
"""After a reconcile without an event. It reads the cache only, so it costs a millisecond."""
_REASONS = frozenset(Reason)
MAX_CAUSES = 50
"""Warnings about one Model that are remembered; the engine's words are in them, and may change without end."""
CHILDREN = frozenset({"Deployment", "Service", "PodDisruptionBudget", "PersistentVolumeClaim", "RayService"})
"""Kinds of which a Model's objects are; those that are not desired any more are deleted."""

Diagnose = Callable[[Sequence[Manifest], Sequence[Manifest], Sequence[Manifest]], Finding | None]
"""Takes a Model's pods, the events about them, and the objects around them."""


Preparation = Callable[[RenderRequest], Awaitable[None]]
"""What a backend needs before its manifests are applied, by its kind."""
FollowUp = Callable[[RenderRequest, Observed], Awaitable[float]]
"""What a backend needs beyond its manifests, by its kind. Returns the seconds until the next reconcile."""


class ModelReconciler:
    """Reconciles Models of one namespace. `capabilities` are read at each call: KubeRay may come later."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        cache: ObjectCache,
        applier: Applier,
        publisher: Publisher,
        autoscaler: Autoscaler,
        recorder: EventRecorder,
        events: EventLog,
        config: OperatorConfig,
        namespace: str,
        capabilities: Callable[[], Capabilities],
        diagnose: Diagnose,
        canaries: Canaries | None = None,
        preparations: Mapping[str, Preparation] | None = None,
        follow_ups: Mapping[str, FollowUp] | None = None,
        on_scaling: Callable[[int, int], None] = lambda before, after: None,
    ) -> None:
        self._cluster, self._cache, self._applier, self._publisher = cluster, cache, applier, publisher
        self._autoscaler, self._recorder, self._events = autoscaler, recorder, events
        self._config, self._namespace = config, namespace
        self._capabilities, self._diagnose = capabilities, diagnose
        self._preparations, self._follow_ups = preparations or {}, follow_ups or {}
        self._on_scaling = on_scaling
        self._canaries = canaries or Canaries(dict)
        self._parsed: dict[str, tuple[int, Model]] = {}
        self._causes: dict[str, set[str]] = {}
        """Keys of the warnings that were written about each Model since it was last healthy."""

    async def reconcile(self, name: str) -> float | None:
        """Returns the seconds until the next call, or None for a Model that is gone. Raises ClusterError for what may
        succeed later."""
        manifest = self._cache.get(Model.kind, name)
        if manifest is None or is_deleting(manifest):
            self._parsed.pop(name, None)
            self._causes.pop(name, None)
            self._canaries.forget(name)
            self._publisher.forget(name)  # its objects are collected by owner references
            return None
        try:
            model = self.parse(manifest)
        except InvalidObjectError as error:
            await self._refuse(manifest, str(error))
            return RESYNC_SECONDS
        verdict = self._publisher.verdict(Key(Model.kind, name), model.metadata.generation)
        if verdict is None:
            self._publisher.mark()  # it calls again when it has compiled this generation
            return RESYNC_SECONDS
        refusal = None if verdict.is_accepted else Problem(ConditionType.ACCEPTED, verdict.reason, verdict.message)
        return await self._reconcile(manifest, model, refusal)

    def parse(self, manifest: Manifest) -> Model:
        """Read a Model; each version of it once. Raises InvalidObjectError."""
        name, version = name_of(manifest), version_of(manifest)
        known = self._parsed.get(name)
        if known is not None and known[0] == version > 0:
            return known[1]
        model = Model.parse(manifest)
        self._parsed[name] = (version, model)
        return model

    def wants_scaling(self, model: Model) -> bool:
        """Whether the demand asks for another number of replicas. Called often: it looks at the backend object only."""
        if not model.has_engine or model.status.state is None:
            return False
        try:
            backend = backend_of(model, self._config, self._capabilities())
        except RenderError:
            return False
        found = self._cache.get(backend.KIND, backend.object_name(model))
        if found is None and model.status.state != "Zero":  # a backend may have no object for zero replicas
            return False
        seen = self.observe(model)
        state = backend.replicas(RenderRequest(model, self._namespace, self._config, 0), seen.children, seen.pods)
        return self._autoscaler.decide(model, current=state.desired, ready=state.ready).replicas != state.desired

    async def _reconcile(self, manifest: Manifest, model: Model, refusal: Problem | None) -> float:
        seen = self.observe(model)
        if not model.has_engine:
            await self._applier.carry_out(make_plan([], seen.children), model.metadata.uid)
            await self._finish(manifest, model, Observation(problem=refusal, is_published=self._is_published(model)))
            return RESYNC_SECONDS
        try:
            backend = backend_of(model, self._config, self._capabilities())
        except RenderError as error:
            await self._finish(manifest, model, Observation(problem=refusal or _problem(error), finding=None))
            return RESYNC_SECONDS
        observation = await self._carry_out(manifest, model, backend, seen, refusal)
        await self._finish(manifest, model, observation)
        return observation.again_seconds

    async def _carry_out(
        self, manifest: Manifest, model: Model, backend: Backend, seen: Observed, refusal: Problem | None
    ) -> Observation:
        before = backend.replicas(RenderRequest(model, self._namespace, self._config, 0), seen.children, seen.pods)
        exists = any(each["kind"] == backend.KIND for each in seen.children)
        remembered = model.status.replicas.desired if model.status.state is not None else None
        current = before.desired if exists else remembered
        decision = self._autoscaler.decide(model, current=current, ready=before.ready)
        request = self._request(model, decision.replicas)
        problem, plan, again_seconds = refusal, None, RESYNC_SECONDS
        canary, of_candidate = model.status.canary, self._diagnose_track(seen, CANARY)
        if refusal is None or seen.children:
            try:
                desired = backend.staged(request, backend.render(request), seen.children, seen.pods)
                if DEPLOYMENT.name == backend.KIND and refusal is None:
                    of_stable = self._diagnose_track(seen, STABLE) if model.spec.rollout.canary else None
                    staged = self._canaries.stage(request, desired, seen, of_candidate, of_stable)
                    desired, canary = staged.manifests, staged.decision.status
                    again_seconds = staged.decision.again_seconds or again_seconds
                    # Before the candidate starts, and before it ends.
                    self._publisher.set_canary(model.name, staged.split)
                    self._report_canary(manifest, staged.decision)
                steps = make_plan(desired, seen.children, self._applier.settled)
                change = backend.classify(request, desired, seen.children)
                if canary is not None:
                    change = change_of(request, canary) or change
                plan = _plan(request, backend, change, model.status.plan, is_empty=steps.is_empty)
                if refusal is None and (prepare := self._preparations.get(backend.KIND)) is not None:
                    await prepare(request)
                if refusal is None and not steps.is_empty:
                    await self._announce(manifest, model, plan, change)
                    await self._applier.carry_out(steps, model.metadata.uid)
                if refusal is None and (follow_up := self._follow_ups.get(backend.KIND)) is not None:
                    again_seconds = await follow_up(request, seen)
            except RenderError as error:
                problem = problem or _problem(error)
            except RejectedError as error:
                problem = problem or _rejection(model, error)
            except ForeignObjectError as error:
                problem = problem or Problem(ConditionType.ACCEPTED, Reason.NAME_CONFLICT, str(error))
        seen = self.observe(model)
        state = backend.replicas(request, seen.children, seen.pods)
        # What was asked for last stays in force while the spec has a problem.
        return Observation(
            problem=problem,
            plan=plan,
            backend=BackendStatus(kind=backend.KIND, name=backend.object_name(model)),
            decision=decision,
            replicas=state,
            previous=current if problem is None and (exists or current == 0) else None,
            finding=self._diagnose_track(seen, STABLE),
            is_published=self._is_published(model),
            is_rolling_out=not state.is_rolled_out,
            canary=canary,
            again_seconds=again_seconds,
        )

    def _request(self, model: Model, replicas: int) -> RenderRequest:
        """Claims of adapters are mounted where they are bound: another one would keep the engine from starting."""
        uris = []
        if model.spec.adapters.max > 0:
            for each in self._cache.of_kind(ModelAdapter.kind):
                spec = each.get("spec") or {}
                if (spec.get("modelRef") or {}).get("name") == model.name and not is_deleting(each):
                    uris.append(str((spec.get("source") or {}).get("uri", "")))
        bound = []
        for claim in adapter_claims(model, uris):
            found = self._cache.get(VOLUME_CLAIM.name, claim)
            if found is not None and (found.get("status") or {}).get("phase") == "Bound":
                bound.append(claim)
        return RenderRequest(model, self._namespace, self._config, replicas, adapter_claims=tuple(bound))

    def observe(self, model: Model) -> Observed:
        """The Model's objects in the cache."""
        children: list[Manifest] = []
        pods: list[Manifest] = []
        others: list[Manifest] = []
        for each in self._cache.of_model(model.name):
            if each["kind"] == "Pod":
                pods.append(each)
            elif each["kind"] in CHILDREN and controller_uid(each) == model.metadata.uid:
                children.append(each)
            else:
                others.append(each)
        others += self._claims(pods)
        return Observed(tuple(children), tuple(pods), tuple(others))

    def _claims(self, pods: Sequence[Manifest]) -> list[Manifest]:
        """Claims that pods mount and that are not ours."""
        volumes = [each for pod in pods for each in (pod.get("spec") or {}).get("volumes") or ()]
        names = {each["persistentVolumeClaim"]["claimName"] for each in volumes if each.get("persistentVolumeClaim")}
        found = (self._cache.get(VOLUME_CLAIM.name, name) for name in sorted(names))
        return [each for each in found if each is not None and MODEL_LABEL not in labels_of(each)]

    def _diagnose_track(self, seen: Observed, track: str) -> Finding | None:
        """What is wrong with the pods of one track; None without any."""
        pods = pods_of(seen, track)
        if track == CANARY and not any(is_of_track(each, CANARY) for each in (*seen.children, *pods)):
            return None
        around = [each for each in (*seen.children, *seen.others) if is_of_track(each, track)]
        return self._diagnose(pods, self._events.about((*pods, *around)), around)

    def _report_canary(self, manifest: Manifest, decision: CanaryDecision) -> None:
        if decision.event is not None and decision.status is not None:
            reason, message = decision.event
            kind: Literal["Normal", "Warning"] = "Warning" if reason == Reason.CANARY_ABORTED else "Normal"
            key = f"{reason} {decision.status.candidate} {decision.status.since}"
            self._recorder.emit(manifest, kind, reason, message, key=key)

    def _is_published(self, model: Model) -> bool:
        return self._publisher.is_published(Key(Model.kind, model.name))

    async def _announce(self, manifest: Manifest, model: Model, plan: Plan, change: Change) -> None:
        """State what an edit costs before it is carried out."""
        if change.edit == "InPlace" or model.status.plan == plan:
            return
        extra = f", which needs {change.extra_gpus} more GPUs meanwhile" if change.extra_gpus else ""
        self._recorder.emit(manifest, "Normal", change.edit, f"Rolling out a new revision{extra}.")
        await self._write_status(manifest, model, model.status.model_copy(update={"plan": plan}))

    async def _finish(self, manifest: Manifest, model: Model, observation: Observation) -> None:
        current = self._cache.get(Model.kind, model.name)
        if current is not None and current is not manifest:
            model = self.parse(current)  # the status may have been announced meanwhile
        if observation.problem is not None:
            observation = replace(observation, problem=_with_remedy(observation.problem))
        status = summarize(model, observation, _now())
        detail = "" if status.state in ("Serving", "Zero") else status.message
        self._publisher.set_state(model.name, status.state or "Starting", detail)
        await self._write_status(manifest, model, status)
        self._report(manifest, model, observation, status)

    async def _write_status(self, manifest: Manifest, model: Model, status: ModelStatus) -> None:
        if status == model.status:
            return
        body = {
            "apiVersion": API_VERSION,
            "kind": Model.kind,
            "metadata": {"name": model.name, "namespace": self._namespace, "uid": model.metadata.uid},
            "status": status.model_dump(mode="json", exclude_none=True),
        }
        try:
            answer = await self._cluster.apply(body, self._namespace, status=True)
        except ClusterError as error:
            if error.status in (404, 409):  # it was deleted, and perhaps made again, meanwhile
                return
            raise
        self._cache.put(answer, is_own=True)

    def _report(self, manifest: Manifest, model: Model, observation: Observation, status: ModelStatus) -> None:
        """Write Events for what has changed."""
        decision, previous = observation.decision, observation.previous
        if decision is not None and previous is not None and decision.replicas != previous:
            self._on_scaling(previous, decision.replicas)
            text = f"From {previous} to {decision.replicas} replicas: {decision.reason}."
            self._recorder.emit(manifest, "Normal", "Scaled", text, key=f"scaled {_now()}")
        problem = observation.problem or observation.finding
        if problem is not None and not problem.is_progress:
            key = getattr(problem, "key", f"{problem.reason}: {problem.text}")
            self._recorder.emit(manifest, "Warning", problem.reason, problem.text, key=key)
            causes = self._causes.setdefault(model.name, set())
            if len(causes) < MAX_CAUSES:
                causes.add(key)
        was_ready = any(each.type == "Ready" and each.status == "True" for each in model.status.conditions)
        is_ready = any(each.type == "Ready" and each.status == "True" for each in status.conditions)
        if is_ready and problem is None:
            for cause in self._causes.pop(model.name, ()):  # if it comes back, it is an event again
                self._recorder.forget(manifest, cause)
        if is_ready and not was_ready:
            self._recorder.emit(manifest, "Normal", "Ready", status.message or "Ready.", key=f"ready {_now()}")

    async def _refuse(self, manifest: Manifest, message: str) -> None:
        """An object that can't be read, although the API server has validated it: an older CRD, perhaps."""
        stub = Model.parse({**manifest, "spec": {"engine": {"type": "sim"}}, "status": {}})
        try:
            status = ModelStatus.model_validate(manifest.get("status") or {})
        except ValueError:
            status = ModelStatus()
        model = stub.model_copy(update={"status": status})
        problem = Problem(ConditionType.ACCEPTED, Reason.INVALID_SPEC, message)
        seen = self.observe(model)
        state, kind = ReplicaState(), ""
        for backend in BACKENDS.values():
            if self._cache.get(backend.KIND, backend.object_name(model)) is not None:
                request = RenderRequest(model, self._namespace, self._config, 0)
                state, kind = backend.replicas(request, seen.children, seen.pods), backend.KIND
        status_of = BackendStatus(kind=kind, name=f"model-{model.name}") if kind else None
        is_published = self._is_published(model)
        observation = Observation(problem=problem, replicas=state, backend=status_of, is_published=is_published)
        await self._finish(manifest, model, observation)


def _plan(request: RenderRequest, backend: Backend, change: Change, known: Plan | None, *, is_empty: bool) -> Plan:
    spec = request.model.spec
    # The last edit stays in the status until the next one.
    edit, extra = (known.edit, known.extra_gpus) if is_empty and known is not None else (change.edit, change.extra_gpus)
    return Plan(
        image=backend.image(request),
        accelerator=spec.resources.accelerator,
        gpus=spec.resources.gpu_count,
        quantization=spec.quantization.method,
        edit=edit,
        extra_gpus=extra,
        source=spec.source.uri if spec.source is not None else "",
    )


def _problem(error: RenderError) -> Problem:
    return Problem(EXPLANATIONS[Reason(error.reason)].condition, error.reason, error.message)


def _rejection(model: Model, error: RejectedError) -> Problem:
    message = error.error.message
    if "exceeded quota" in message:
        return Problem(ConditionType.SCHEDULED, Reason.QUOTA_EXCEEDED, str(error))
    if error.error.status == 403:
        return Problem(ConditionType.SCHEDULED, Reason.POD_FORBIDDEN, str(error))
    if model.spec.pod_template_patch and error.kind in ("Deployment", "RayService"):
        return Problem(ConditionType.ACCEPTED, Reason.INVALID_POD_TEMPLATE_PATCH, str(error))
    return Problem(ConditionType.ACCEPTED, Reason.INVALID_SPEC, str(error))


def _with_remedy(problem: Problem) -> Problem:
    """A problem of the spec, and what to do about it. A finding has a hint of its own."""
    explanation = EXPLANATIONS.get(Reason(problem.reason)) if problem.reason in _REASONS else None
    if explanation is None or not explanation.remedy or explanation.remedy in problem.text:
        return problem
    return replace(problem, text=f"{sentence(problem.text)} {explanation.remedy}")


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
