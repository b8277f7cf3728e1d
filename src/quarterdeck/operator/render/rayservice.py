"""The RayService backend: a Ray cluster per Model, whose replicas listen on ports of their own.

KubeRay has two ways to bring a change to a running RayService: it submits a changed `serveConfigV2` to the cluster, or,
if anything else has changed, it starts a second cluster, switches when that serves, and deletes the first. `Surge` uses
the second way for every change of the engine, because Serve stops a replica before it starts its successor in the same
pods. `Recreate` has Serve restart replicas in place for a change of arguments, and deletes the RayService first for a
change of the pods.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from quarterdeck.kube import names
from quarterdeck.kube.names import REVISION_LABEL, ROLE_DOOR, ROLE_LABEL, ROLE_REPLICA
from quarterdeck.kube.replica_addresses import REPLICA_PORTS
from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.manifests import (
    DISRUPTION_BUDGET,
    RAY_CLUSTER,
    RAY_SERVICE,
    SERVICE,
    Kind,
    Manifest,
    is_deleting,
    labels_of,
    name_of,
)
from quarterdeck.operator.plan import hash_of
from quarterdeck.operator.render import deployment, pod, ray_pods, weights
from quarterdeck.operator.render.ray_pods import image as image
from quarterdeck.operator.render.request import STABLE, Change, RenderRequest, ReplicaState, draining_pods
from quarterdeck.operator.render.serve_config import arguments, serve_config

KIND = RAY_SERVICE.name
RAY_VERSION = "2.60.0"
GROUP = "replicas"
"""Name of the worker group."""
DELETION_DELAY_SECONDS = 10
"""From KubeRay's switch to a new cluster to the deletion of the old one: gateways have found the new replicas by then,
as they look each second."""
NODE_TYPE = "ray.io/node-type"
CLUSTER_LABEL = "ray.io/cluster"
_SERVE_ANNOTATION = "quarterdeck.dev/serve-arguments"


@dataclass(frozen=True, slots=True)
class Patch:
    """A merge patch of an object that KubeRay owns."""

    kind: Kind
    name: str
    change: Manifest


def object_name(model: Model, track: str = STABLE) -> str:
    """Name of the RayService and its Service."""
    return names.ray_name(model.name, track)


def render(request: RenderRequest) -> list[Manifest]:
    """Return the objects of one engine; without replicas there is no RayService. Raises RenderError."""
    manifests = [_service(request), _replicas(request)]
    if request.replicas > 0:
        manifests += [_ray_service(request), *_disruption_budgets(request)]
    if request.track == STABLE and weights.owns_claim(request.model):
        manifests.append(deployment.claim(request))
    return manifests


def revision_of(manifest: Manifest) -> str:
    """The revision of a RayService's pods."""
    cluster = (manifest.get("spec") or {}).get("rayClusterConfig") or {}
    template = (cluster.get("headGroupSpec") or {}).get("template") or {}
    labels = (template.get("metadata") or {}).get("labels") or {}
    return str(labels.get(REVISION_LABEL, ""))


def staged(
    request: RenderRequest, desired: Sequence[Manifest], observed: Sequence[Manifest], pods: Sequence[Manifest]
) -> list[Manifest]:
    """`desired`, without the RayService as long as pods of another revision must end first (`Recreate`)."""
    then = _find(desired, object_name(request.model, request.track))
    if then is None or request.model.spec.rollout.strategy != "Recreate":
        return list(desired)
    revision = revision_of(then)
    older = [each for each in _of_track(request, pods) if labels_of(each).get(REVISION_LABEL) not in (revision, None)]
    now = _find(observed, name_of(then))
    if (now is None or revision_of(now) == revision) and not older:
        return list(desired)
    return [each for each in desired if each is not then]


def classify(request: RenderRequest, desired: Sequence[Manifest], observed: Sequence[Manifest]) -> Change:
    """What applying `desired` does to the engines that run."""
    name = object_name(request.model, request.track)
    now, then = _find(observed, name), _find(desired, name)
    is_surge = request.model.spec.rollout.strategy == "Surge"
    gpus = request.model.spec.resources.gpu_count * request.replicas
    if now is None:
        moves = any(each["kind"] == deployment.KIND for each in observed)
        return Change("NewCluster", gpus) if moves and then is not None else Change()
    if then is None and request.replicas == 0:
        return Change()
    if then is None or revision_of(now) != revision_of(then):
        return Change("NewCluster", gpus if is_surge else 0)
    if _serve_hash(now) != _serve_hash(then):
        return Change("EngineRestart", 0)
    return Change()


def replicas(request: RenderRequest, observed: Sequence[Manifest], pods: Sequence[Manifest]) -> ReplicaState:
    """Replicas as KubeRay and the worker pods report them: a worker is ready when its replica answers."""
    workers = [each for each in _of_track(request, pods) if labels_of(each).get(NODE_TYPE) == "worker"]
    found = _find(observed, object_name(request.model, request.track))
    draining = draining_pods(workers)
    if found is None:
        return ReplicaState(draining=draining)
    desired = _group_replicas((found.get("spec") or {}).get("rayClusterConfig") or {})
    revision = revision_of(found)
    ready = [each for each in workers if deployment.is_ready(each)]
    updated = sum(labels_of(each).get(REVISION_LABEL) == revision for each in ready)
    status = found.get("status") or {}
    is_current = int(status.get("observedGeneration") or 0) >= int(found["metadata"].get("generation") or 0)
    pending = (status.get("pendingServiceStatus") or {}).get("rayClusterName")
    return ReplicaState(
        desired=desired,
        ready=len(ready),
        updated=updated,
        draining=draining,
        is_rolled_out=is_current and not pending and updated >= min(desired, len(ready)) and len(ready) <= updated,
    )


def surplus(request: RenderRequest, others: Sequence[Manifest]) -> int:
    """Workers of the running cluster beyond what is asked for. KubeRay does not scale a running cluster of a
    RayService: it leaves that to autoscalers, and the operator is one."""
    return sum(
        max(_group_replicas(each.get("spec") or {}) - request.replicas, 0) for each in _clusters(request, others)
    )


def scaling_patches(
    request: RenderRequest,
    others: Sequence[Manifest],
    pods: Sequence[Manifest],
    in_use: frozenset[str] | None,
) -> list[Patch]:
    """Patches that give the running cluster its workers.

    More at once. Fewer only where Serve has no replica any more: `in_use` has the addresses of pods with one; None: not
    known, so none ends.
    """
    patches = []
    for cluster in _clusters(request, others):
        current = _group_replicas(cluster.get("spec") or {})
        idle: list[str] = []
        if current > request.replicas:
            idle = [] if in_use is None else _idle(name_of(cluster), pods, in_use)[: current - request.replicas]
            wanted = current - len(idle)
        else:
            wanted = request.replicas
        if wanted != current:
            patches.append(_patch(cluster, wanted, idle))
    return patches


def _of_track(request: RenderRequest, pods: Sequence[Manifest]) -> list[Manifest]:
    """Without those of a canary, or of the stable engine beside it."""
    return [each for each in pods if labels_of(each).get(pod.TRACK_LABEL, request.track) == request.track]


def _clusters(request: RenderRequest, others: Sequence[Manifest]) -> list[Manifest]:
    name = object_name(request.model, request.track)
    return [
        each
        for each in others
        if each["kind"] == RAY_CLUSTER.name
        and not is_deleting(each)
        and any(owner.get("name") == name for owner in each["metadata"].get("ownerReferences") or ())
    ]


def _idle(cluster: str, pods: Sequence[Manifest], in_use: frozenset[str]) -> list[str]:
    workers = [
        each
        for each in pods
        if labels_of(each).get(NODE_TYPE) == "worker"
        and labels_of(each).get(CLUSTER_LABEL) == cluster
        and not is_deleting(each)
        and (each.get("status") or {}).get("podIP") not in in_use
    ]
    return sorted(name_of(each) for each in workers)


def _patch(cluster: Manifest, wanted: int, idle: Sequence[str]) -> Patch:
    groups = [dict(each) for each in cluster["spec"]["workerGroupSpecs"]]
    groups[0]["replicas"] = wanted
    groups[0]["scaleStrategy"] = {"workersToDelete": list(idle)}
    change = {
        # A merge patch replaces the list, so it must start from the current one.
        "metadata": {"resourceVersion": cluster["metadata"].get("resourceVersion")},
        "spec": {"workerGroupSpecs": groups},
    }
    return Patch(RAY_CLUSTER, name_of(cluster), change)


def _group_replicas(cluster: Manifest) -> int:
    groups = cluster.get("workerGroupSpecs") or [{}]
    return int(groups[0].get("replicas") or 0)


def _serve_hash(manifest: Manifest) -> str:
    return str((manifest["metadata"].get("annotations") or {}).get(_SERVE_ANNOTATION, ""))


def _ray_service(request: RenderRequest) -> Manifest:
    model = request.model
    given = arguments(request)
    serve_hash = hash_of(given.model_dump(mode="json"))[:10]
    head, worker = ray_pods.head(request), ray_pods.worker(request)
    # The same for any number of replicas, so that scaling is no new revision.
    parts: list[Any] = [head, worker, ray_pods.head_parameters(), ray_pods.worker_parameters(request)]
    if model.spec.rollout.strategy == "Surge":
        parts.append(serve_hash)
    revision = hash_of(parts)[:10]
    for template in (head, worker):
        template["metadata"]["labels"] = {**template["metadata"]["labels"], REVISION_LABEL: revision}
    cluster: dict[str, Any] = {
        "rayVersion": RAY_VERSION,
        "headGroupSpec": {"rayStartParams": ray_pods.head_parameters(), "template": head},
        "workerGroupSpecs": [
            {
                "groupName": GROUP,
                "replicas": request.replicas,
                "minReplicas": 0,
                "maxReplicas": 1000,
                "rayStartParams": ray_pods.worker_parameters(request),
                "template": worker,
            }
        ],
        "authOptions": {"mode": "token", "secretName": ray_pods.token_secret(request)},
    }
    manifest = _object(request, RAY_SERVICE)
    manifest["metadata"]["annotations"] = {_SERVE_ANNOTATION: serve_hash}
    manifest["spec"] = {
        "serveConfigV2": serve_config(request, given),
        "upgradeStrategy": {"type": "NewCluster"},
        # No request takes KubeRay's Service: gateways go to the replicas. Without this, KubeRay looks at the head's
        # Serve proxy in each reconcile, which the chart's NetworkPolicy drops: it waits out its time limit, and so do
        # all other RayServices.
        "excludeHeadPodFromServeSvc": True,
        "rayClusterDeletionDelaySeconds": DELETION_DELAY_SECONDS,
        "rayClusterConfig": cluster,
    }
    return manifest


def _service(request: RenderRequest) -> Manifest:
    """The doors: of two clusters during an upgrade."""
    manifest = _object(request, SERVICE)
    manifest["metadata"]["labels"][ROLE_LABEL] = ROLE_DOOR
    manifest["spec"] = {
        "clusterIP": "None",
        "selector": {**pod.selector(request.model, request.track), NODE_TYPE: "head"},
        "ports": [{"name": "http", "port": ray_pods.DOOR_PORT, "targetPort": "http", "protocol": "TCP"}],
    }
    return manifest


def _replicas(request: RenderRequest) -> Manifest:
    """The workers: gateways take no other pod for a replica, whatever a door lists."""
    manifest = _object(request, SERVICE)
    manifest["metadata"]["name"] = names.replicas_name(request.model.name, request.track)
    manifest["metadata"]["labels"][ROLE_LABEL] = ROLE_REPLICA
    port = REPLICA_PORTS.start
    manifest["spec"] = {
        "clusterIP": "None",
        "publishNotReadyAddresses": True,
        "selector": {**pod.selector(request.model, request.track), NODE_TYPE: "worker"},
        "ports": [{"name": "http", "port": port, "targetPort": port, "protocol": "TCP"}],
    }
    return manifest


def _disruption_budgets(request: RenderRequest) -> list[Manifest]:
    """Evictions end one worker at a time, and with several replicas never the head, which would end them all.

    `maxUnavailable` needs an owner with a scale subresource, which a RayCluster is not.
    """
    budgets = [("", "worker", request.replicas - 1)]
    if request.replicas > 1:
        budgets.append(("-head", "head", 1))
    manifests = []
    for suffix, node_type, available in budgets:
        manifest = _object(request, DISRUPTION_BUDGET)
        manifest["metadata"]["name"] += suffix
        manifest["spec"] = {
            "minAvailable": available,
            "selector": {"matchLabels": {**pod.selector(request.model, request.track), NODE_TYPE: node_type}},
        }
        manifests.append(manifest)
    return manifests


def _object(request: RenderRequest, kind: Kind) -> Manifest:
    model = request.model
    return {
        "apiVersion": kind.api,
        "kind": kind.name,
        "metadata": {
            "name": object_name(model, request.track),
            "namespace": request.namespace,
            "labels": pod.labels(model, request.track),
            "ownerReferences": [model.owner_reference()],
        },
    }


def _find(manifests: Sequence[Manifest], name: str) -> Manifest | None:
    return next((each for each in manifests if each["kind"] == KIND and name_of(each) == name), None)
