"""The Deployment backend: an engine per pod, reached through the EndpointSlices of a headless Service."""

from collections.abc import Sequence
from typing import Any

from quarterdeck.kube import names
from quarterdeck.kube.names import MODEL_LABEL, REVISION_LABEL, ROLE_ENGINE, ROLE_LABEL
from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.manifests import (
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    SERVICE,
    VOLUME_CLAIM,
    Manifest,
    is_deleting,
    name_of,
)
from quarterdeck.operator.render import pod, simulator, vllm, weights
from quarterdeck.operator.render.request import STABLE, Change, RenderError, RenderRequest, ReplicaState, draining_pods
from quarterdeck.operator.render.vllm import image as image

KIND = "Deployment"


def object_name(model: Model, track: str = STABLE) -> str:
    """Name of the Deployment and its Service."""
    return names.engine_name(model.name, track)


def render(request: RenderRequest) -> list[Manifest]:
    """Return the objects of one engine. Raises RenderError."""
    model = request.model
    engine = _deployment(request)
    manifests = [engine, _service(request)]
    if request.track != STABLE:
        # Gateways tell the endpoints of two revisions apart by their slices' labels, which are the Service's.
        manifests[1]["metadata"]["labels"][REVISION_LABEL] = revision_of(engine)
    else:
        manifests.append(_disruption_budget(request))
        if weights.owns_claim(model):
            manifests.append(claim(request))
    return manifests


def staged(
    request: RenderRequest, desired: Sequence[Manifest], observed: Sequence[Manifest], pods: Sequence[Manifest]
) -> list[Manifest]:
    """`desired`: a Deployment keeps the order of a rollout itself."""
    return list(desired)


def revision_of(manifest: Manifest) -> str:
    """The revision of a Deployment's pods."""
    labels = ((manifest.get("spec") or {}).get("template") or {}).get("metadata", {}).get("labels") or {}
    return str(labels.get(REVISION_LABEL, ""))


def classify(request: RenderRequest, desired: Sequence[Manifest], observed: Sequence[Manifest]) -> Change:
    """What applying `desired` does to the engines that run. `observed`: the Model's objects as they are."""
    name = object_name(request.model, request.track)
    now, then = _find(observed, name), _find(desired, name)
    if now is None or then is None:
        others = [each for each in observed if each["kind"] == "RayService"]
        return Change("NewCluster", _gpus(request)) if others else Change()
    running = int((now.get("spec") or {}).get("replicas") or 0)
    if revision_of(now) == revision_of(then) or running == 0:
        return Change()
    is_surge = request.model.spec.rollout.strategy == "Surge"
    return Change("EngineRestart", _gpus(request) if is_surge else 0)


def replicas(request: RenderRequest, observed: Sequence[Manifest], pods: Sequence[Manifest]) -> ReplicaState:
    """Replicas as the Deployment and its pods report them."""
    found = _find(observed, object_name(request.model, request.track))
    draining = draining_pods(pods)
    if found is None:
        return ReplicaState(draining=draining)
    spec, status = found.get("spec") or {}, found.get("status") or {}
    desired = int(spec.get("replicas") or 0)
    ready = int(status.get("readyReplicas") or 0)
    updated = int(status.get("updatedReplicas") or 0)
    is_current = int(status.get("observedGeneration") or 0) >= int(found["metadata"].get("generation") or 0)
    return ReplicaState(
        desired=desired,
        ready=min(ready, sum(map(is_ready, pods))) if pods else ready,
        updated=updated,
        draining=draining,
        is_rolled_out=is_current and updated >= desired and int(status.get("replicas") or 0) <= updated,
    )


def is_ready(manifest: Manifest) -> bool:
    """Whether a pod is ready, and not about to end."""
    conditions = (manifest.get("status") or {}).get("conditions") or ()
    ready = any(each.get("type") == "Ready" and each.get("status") == "True" for each in conditions)
    return ready and not is_deleting(manifest)


def _deployment(request: RenderRequest) -> Manifest:
    model = request.model
    profile = pod.accelerator_of(request)
    engine = simulator if model.spec.engine.type == "sim" else vllm
    container, volumes, annotations = engine.container(request, profile)
    annotations = {**request.config.pod.annotations, **annotations}
    labels = pod.labels(model, request.track)
    template: dict[str, Any] = {
        "metadata": {"labels": labels, **({"annotations": annotations} if annotations else {})},
        "spec": {**pod.placement(request, profile), "containers": [container], "volumes": volumes},
    }
    is_surge = model.spec.rollout.strategy == "Surge"
    manifest = _object(request, DEPLOYMENT.api, KIND)
    manifest["spec"] = {
        "replicas": request.replicas,
        "selector": {"matchLabels": pod.selector(model, request.track)},
        # One replica at a time: a rollout needs the GPUs of one replica, or (Recreate) none.
        "strategy": {
            "type": "RollingUpdate",
            "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0} if is_surge else {"maxSurge": 0, "maxUnavailable": 1},
        },
        "revisionHistoryLimit": 2,
        "progressDeadlineSeconds": max(request.config.pod.start_seconds, 60) + 600,
        "template": pod.patched_template(request, template),
    }
    return manifest


def _service(request: RenderRequest) -> Manifest:
    manifest = _object(request, SERVICE.api, SERVICE.name)
    manifest["metadata"]["labels"][ROLE_LABEL] = ROLE_ENGINE
    manifest["spec"] = {
        "clusterIP": "None",
        "selector": pod.selector(request.model, request.track),
        "ports": [{"name": "http", "port": pod.PORT, "targetPort": "http", "protocol": "TCP"}],
    }
    return manifest


def _disruption_budget(request: RenderRequest) -> Manifest:
    manifest = _object(request, DISRUPTION_BUDGET.api, DISRUPTION_BUDGET.name)
    # Not minAvailable: with one replica it would block every node drain. An evicted engine finishes its requests.
    manifest["spec"] = {
        "maxUnavailable": 1,
        "selector": {"matchLabels": {MODEL_LABEL: request.model.name}},
    }
    return manifest


def claim(request: RenderRequest) -> Manifest:
    """The volume claim of the cache. Raises RenderError."""
    source = request.model.spec.source
    if source is None or not source.cache.size:
        raise RenderError("InvalidSpec", "spec.source.cache: mode pvc needs a `claim` or a `size`")
    manifest = _object(request, VOLUME_CLAIM.api, VOLUME_CLAIM.name)
    manifest["metadata"]["name"] = weights.claim_name(request.model)
    manifest["spec"] = {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": source.cache.size}},
        **({"storageClassName": source.cache.storage_class} if source.cache.storage_class else {}),
    }
    return manifest


def _object(request: RenderRequest, api: str, kind: str) -> Manifest:
    model = request.model
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {
            "name": object_name(model, request.track),
            "namespace": request.namespace,
            "labels": pod.labels(model, request.track),
            "ownerReferences": [model.owner_reference()],
        },
    }


def _find(manifests: Sequence[Manifest], name: str) -> Manifest | None:
    return next((each for each in manifests if each["kind"] == KIND and name_of(each) == name), None)


def _gpus(request: RenderRequest) -> int:
    return request.model.spec.resources.gpu_count
