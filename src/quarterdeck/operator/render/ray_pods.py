"""The pods of a RayService: the head, with the engine door beside it, and one worker for each replica.

The head has no accelerator and runs no replica; a worker offers Ray one CPU for each of its devices, which its replica
takes all. So a replica has a pod of its own, and the number of pods is the number of replicas.
"""

from typing import Any

from quarterdeck.kube import names
from quarterdeck.operator.plan import quantity
from quarterdeck.operator.render import pod, vllm
from quarterdeck.operator.render.request import RenderError, RenderRequest
from quarterdeck.operator.render.weights import Weights, locate
from quarterdeck.operator.settings import Accelerator
from quarterdeck.settings.ray import RAY_VARIABLES

DOOR_PORT = 8011
METRICS_PORT = 8080
"""Ray's and Serve's own metrics, at the agent of each pod. It needs no token."""
TOKEN_KEY = "auth_token"  # noqa: S105
"""Of the Secret; KubeRay's name for it."""
AGENT_PORT = 52365
"""Ray's agent, which answers health checks without a token."""
HEAD_START_SECONDS = 300
OBJECT_STORE_BYTES = 100_000_000
"""Nothing large passes through Ray's object store: requests go directly to the replicas' ports."""
SHM = "256Mi"
"""At least: the object store lives there."""
RAY_MEMORY = "768Mi"
"""What Ray itself takes in a worker, beyond the engine."""
_DRAIN = ["python", "-m", "quarterdeck.engine.kuberay.drain"]
_WAIT = ["python", "-m", "quarterdeck.engine.kuberay.wait"]
"""KubeRay runs it before `ray start`."""
_READY = ["python", "-m", "quarterdeck.engine.kuberay.ready"]


def image(request: RenderRequest) -> str:
    """The Model's own image, or the platform's with the Model's version as its tag."""
    engine, images = request.model.spec.engine, request.config.images
    if engine.image:
        return engine.image
    if engine.type == "sim":
        found = images.ray_sim or images.ray
    else:
        found = (images.ray_cpu if request.model.spec.resources.is_cpu else None) or images.ray
    return vllm.tagged(found, engine.version)


def head(request: RenderRequest) -> dict[str, Any]:
    """The pod template of the head."""
    config = request.config
    volumes, mounts = pod.writable_volumes(SHM)
    ray = {
        **_ray(request, mounts),
        "name": "ray-head",
        "env": pod.variables(_variables(), {}),
        "ports": [
            {"name": name, "containerPort": port, "protocol": "TCP"}
            for name, port in (("gcs-server", 6379), ("dashboard", 8265), ("serve", 8000), ("metrics", METRICS_PORT))
        ],
        "resources": _bounded(config.ray.head_cpu, config.ray.head_memory),
        "lifecycle": {"preStop": _pre_stop(request, "head")},
        **_agent_probes(HEAD_START_SECONDS),
    }
    ready = {"httpGet": {"path": "/healthz", "port": "http"}}
    door = {
        "name": "door",
        "image": image(request),
        "imagePullPolicy": config.images.pull_policy,
        "command": ["python", "-m", "quarterdeck.engine.kuberay"],
        "env": pod.variables({"HOME": "/tmp", "PYTHONUNBUFFERED": "1"}, {}, _token(request)),  # noqa: S108
        "ports": [{"name": "http", "containerPort": DOOR_PORT, "protocol": "TCP"}],
        "resources": {"requests": {"cpu": "20m", "memory": "96Mi"}, "limits": {"memory": "256Mi"}},
        "securityContext": pod.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "lifecycle": {"preStop": _pre_stop(request, "head")},
        "volumeMounts": [mounts[0]],
        "readinessProbe": {**ready, "periodSeconds": 5, "timeoutSeconds": 5},
        "livenessProbe": {**ready, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }
    return {
        "metadata": _metadata(request, {}),
        "spec": {**pod.placement(request, None), "containers": [ray, door], "volumes": volumes},
    }


def worker(request: RenderRequest) -> dict[str, Any]:
    """The pod template of the workers, with the Model's patch. Raises RenderError."""
    model, config = request.model, request.config
    profile = pod.accelerator_of(request)
    volumes, mounts = pod.writable_volumes(_larger(pod.shm_size(model), SHM))
    is_sim = model.spec.engine.type == "sim"
    weights = Weights(model.name, False) if is_sim else locate(model)
    files, annotations = ([], {}) if is_sim else vllm.files(model)
    if files:
        volumes.append({"name": "files", "downwardAPI": {"items": files}})
        mounts.append({"name": "files", "mountPath": vllm.FILES, "readOnly": True})
    own = _variables() if is_sim else {**vllm.environment(model, weights), **_variables()}
    if weights.model.startswith("packaged:"):
        own.pop("HOME")  # prepared models lie in the image
    engine = {
        **_ray(request, [*mounts, *weights.mounts]),
        "name": pod.ENGINE,
        "command": _WAIT,
        "ports": [{"name": "metrics", "containerPort": METRICS_PORT, "protocol": "TCP"}],
        "env": pod.variables(own, model.spec.engine.env, weights.env),
        "resources": _worker_resources(request, profile),
        "lifecycle": {"preStop": _pre_stop(request, "worker")},
        **_agent_probes(HEAD_START_SECONDS),
        **_replica_probes(period=2 if is_sim else 5, start_seconds=config.pod.start_seconds),
    }
    template = {
        "metadata": _metadata(request, annotations),
        "spec": {
            **pod.placement(request, profile),
            "containers": [engine],
            "volumes": [*volumes, *weights.volumes],
        },
    }
    patched = pod.patched(request, template)
    if patched["spec"]["containers"][0].get("name") != pod.ENGINE:
        raise RenderError("InvalidPodTemplatePatch", "podTemplatePatch: the first container must stay 'engine'")
    return patched


def head_parameters() -> dict[str, str]:
    """`rayStartParams` of the head."""
    return {
        "num-cpus": "0",
        "num-gpus": "0",
        "dashboard-host": "0.0.0.0",  # noqa: S104 - KubeRay submits there; a NetworkPolicy admits nothing else
        "object-store-memory": str(OBJECT_STORE_BYTES),
        "metrics-export-port": str(METRICS_PORT),
    }


def worker_parameters(request: RenderRequest) -> dict[str, str]:
    """`rayStartParams` of the workers."""
    resources = request.model.spec.resources
    devices = max(resources.tensor_parallel * resources.pipeline_parallel, 1)
    # Ray LLM places a replica of several GPUs with one CPU more than it has GPUs.
    cpus = devices if resources.is_cpu else resources.gpu_count + 1
    return {
        "num-cpus": str(cpus),
        "num-gpus": str(resources.gpu_count),
        "object-store-memory": str(OBJECT_STORE_BYTES),
        "metrics-export-port": str(METRICS_PORT),
    }


def _metadata(request: RenderRequest, annotations: dict[str, str]) -> dict[str, Any]:
    found = {**request.config.pod.annotations, **annotations}
    labels = pod.labels(request.model, request.track)
    return {"labels": labels, **({"annotations": found} if found else {})}


def _ray(request: RenderRequest, mounts: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "image": image(request),
        "imagePullPolicy": request.config.images.pull_policy,
        "securityContext": pod.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }


def _variables() -> dict[str, str]:
    return {**RAY_VARIABLES, "HOME": "/tmp", "USER": "quarterdeck"}  # noqa: S108 - the writable folder


def token_secret(request: RenderRequest) -> str:
    """Name of the Secret with the cluster's token: the Model's own, unless the platform has one for all."""
    return request.config.ray.token_secret or names.ray_token_name(request.model.name)


def _token(request: RenderRequest) -> list[dict[str, Any]]:
    reference = {"name": token_secret(request), "key": TOKEN_KEY}
    return [{"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": reference}}]


def _pre_stop(request: RenderRequest, role: str) -> dict[str, Any]:
    return {"exec": {"command": [*_DRAIN, role, str(request.model.spec.rollout.drain_seconds)]}}


def _agent_probes(start_seconds: int) -> dict[str, Any]:
    """KubeRay's own probes need wget in the image."""
    check = {"httpGet": {"path": "/api/local_raylet_healthz", "port": AGENT_PORT}}
    return {
        "startupProbe": {**check, "periodSeconds": 2, "timeoutSeconds": 5, "failureThreshold": start_seconds // 2},
        "readinessProbe": {**check, "periodSeconds": 5, "timeoutSeconds": 10, "failureThreshold": 3},
        "livenessProbe": {**check, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 12},
    }


def _replica_probes(*, period: int, start_seconds: int) -> dict[str, Any]:
    check = {"exec": {"command": _READY}, "timeoutSeconds": 10}
    return {
        "startupProbe": {**check, "periodSeconds": period, "failureThreshold": max(start_seconds // period, 1)},
        "readinessProbe": {**check, "periodSeconds": 5, "failureThreshold": 2},
    }


def _worker_resources(request: RenderRequest, profile: Accelerator | None) -> dict[str, Any]:
    model, defaults = request.model, request.config.pod
    is_sim = model.spec.engine.type == "sim"
    cpu, memory = (defaults.sim_cpu, defaults.sim_memory) if is_sim else (defaults.cpu, defaults.memory)
    limit = pod.times(defaults.sim_memory, 4) if is_sim else None
    found: dict[str, Any] = pod.container_resources(model, profile, cpu, memory, limit)
    for kind in ("requests", "limits"):
        if "memory" in found.get(kind, {}):
            found[kind]["memory"] = _sum(found[kind]["memory"], RAY_MEMORY)
    return found


def _bounded(cpu: str, memory: str) -> dict[str, Any]:
    return {"requests": {"cpu": cpu, "memory": memory}, "limits": {"memory": pod.times(memory, 3)}}


def _sum(one: str, other: str) -> str:
    return str(int((quantity(one) or 0) + (quantity(other) or 0)))


def _larger(one: str, other: str) -> str:
    return one if (quantity(one) or 0) >= (quantity(other) or 0) else other
