"""The parts of an engine's pod that are equal for every engine and backend.

Every pod passes Pod Security `restricted`: no root, no privileges, a read-only root file system; what an engine writes
goes to /tmp, /dev/shm and its cache.
"""

import json
from collections.abc import Sequence
from typing import Any

from quarterdeck.kube.names import (
    APP_COMPONENT,
    APP_INSTANCE,
    APP_MANAGED_BY,
    APP_NAME,
    APP_PART_OF,
    GROUP,
    MANAGED_BY,
    MODEL_LABEL,
    PART_OF,
    REVISION_LABEL,
)
from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.plan import hash_of, quantity
from quarterdeck.operator.render.request import RenderError, RenderRequest
from quarterdeck.operator.render.strategic_merge import PatchError, merged
from quarterdeck.operator.settings import Accelerator

ENGINE = "engine"
"""Name of the engine's container, and of the component."""
PORT = 8000
USER = 65532
TRACK_LABEL = "quarterdeck.dev/track"
"""`stable`, or `canary` while one runs: tells the pods of two Deployments of one Model apart."""
KILL_SECONDS = 30
"""A pod is killed so long after its drain should have ended."""

_PRE_STOP = """\
import sys, time, urllib.request
end, quiet = time.monotonic() + float(sys.argv[1]), 0
time.sleep(2)
while time.monotonic() < end and quiet < 3:
    try:
        page = urllib.request.urlopen("http://127.0.0.1:8000/metrics", timeout=5).read().decode()
    except ConnectionRefusedError:
        break
    except OSError as error:
        if isinstance(getattr(error, "reason", None), ConnectionRefusedError):
            break
        page = "vllm:num_requests_running 1"
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting{", "vllm:num_requests_waiting ")
    busy = sum(float(line.rsplit(" ", 1)[1]) for line in page.splitlines() if line.startswith(names))
    quiet = 0 if busy else quiet + 1
    time.sleep(0.5)
"""
"""Waits until the engine is idle. The first two seconds: gateways hear that the pod is terminating within one."""


def labels(model: Model, track: str) -> dict[str, str]:
    """Labels of every object of a Model."""
    return {**selector(model, track), APP_NAME: ENGINE, APP_INSTANCE: model.name, **_COMMON}


_SELECTED = frozenset({APP_NAME, APP_INSTANCE, APP_COMPONENT})
_COMMON = {APP_COMPONENT: ENGINE, APP_PART_OF: PART_OF, APP_MANAGED_BY: MANAGED_BY}


def selector(model: Model, track: str) -> dict[str, str]:
    """Labels by which pods of one Deployment are selected."""
    return {MODEL_LABEL: model.name, TRACK_LABEL: track}


def accelerator_of(request: RenderRequest) -> Accelerator | None:
    """The Model's accelerator profile; None on a CPU. Raises RenderError for an unknown one."""
    resources = request.model.spec.resources
    if resources.is_cpu:
        return None
    profile = request.config.accelerators.get(resources.accelerator)
    if profile is None:
        known = ", ".join(sorted([*request.config.accelerators, "cpu"]))
        raise RenderError(
            "UnknownAccelerator", f"there is no accelerator profile '{resources.accelerator}'; profiles are {known}"
        )
    return profile


def pod_security() -> dict[str, Any]:
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> dict[str, Any]:
    return {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def writable_volumes(shm: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Volumes and mounts for /tmp and /dev/shm."""
    volumes = [
        {"name": "tmp", "emptyDir": {}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": shm}},
    ]
    return volumes, [{"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"}]  # noqa: S108


def shm_size(model: Model) -> str:
    """Size of /dev/shm."""
    resources = model.spec.resources
    if resources.shm is not None:
        return str(resources.shm)
    return "1Gi" if resources.tensor_parallel * resources.pipeline_parallel > 1 else "64Mi"


def placement(request: RenderRequest, profile: Accelerator | None) -> dict[str, Any]:
    """Where a pod may run, and what every engine's pod has."""
    config = request.config
    spec: dict[str, Any] = {
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": pod_security(),
        "terminationGracePeriodSeconds": request.model.spec.rollout.drain_seconds + KILL_SECONDS,
    }
    if config.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in config.image_pull_secrets]
    if config.pod.priority_class:
        spec["priorityClassName"] = config.pod.priority_class
    if profile is not None:
        if profile.node_selector:
            spec["nodeSelector"] = dict(profile.node_selector)
        if profile.tolerations:
            spec["tolerations"] = [dict(each) for each in profile.tolerations]
        if profile.runtime_class:
            spec["runtimeClassName"] = profile.runtime_class
    return spec


def container_resources(model: Model, profile: Accelerator | None, cpu: str, memory: str, limit: str | None) -> Any:
    """Requests and limits of an engine's container. `cpu`, `memory`, `limit`: where the Model names none."""
    wanted = model.spec.resources
    requests = {"cpu": str(wanted.cpu or cpu), "memory": str(wanted.memory or memory)}
    limits: dict[str, str] = {}
    if wanted.memory is not None:
        limits["memory"] = str(wanted.memory)
    elif limit is not None:
        limits["memory"] = limit
    if profile is not None and wanted.gpu_count > 0:
        requests[profile.resource] = limits[profile.resource] = str(wanted.gpu_count)
    return {"requests": requests, **({"limits": limits} if limits else {})}


def times(text: str, factor: int) -> str:
    """A quantity of memory, multiplied."""
    number = quantity(text)
    if number is None:
        return text
    size = int(number * factor)
    return str(size) if size % 2**20 else f"{size // 2**20}Mi"


def pre_stop(model: Model) -> dict[str, Any]:
    """Keeps the engine alive until its requests are done."""
    return {"exec": {"command": ["python3", "-c", _PRE_STOP, str(model.spec.rollout.drain_seconds)]}}


def probes(path: str, ready_path: str, *, period: int, start_seconds: int) -> dict[str, Any]:
    """Startup, readiness and liveness of an engine that serves HTTP on its port."""
    at, ready = {"path": path, "port": "http"}, {"path": ready_path, "port": "http"}
    return {
        "startupProbe": {
            "httpGet": ready,
            "periodSeconds": period,
            "timeoutSeconds": 2,
            "failureThreshold": max(start_seconds // period, 1),
        },
        "readinessProbe": {"httpGet": ready, "periodSeconds": 5, "timeoutSeconds": 5, "failureThreshold": 2},
        "livenessProbe": {"httpGet": at, "periodSeconds": 10, "timeoutSeconds": 10, "failureThreshold": 6},
    }


def variables(own: dict[str, str], given: dict[str, str], more: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """Environment of a container: derived variables, a Model's own (which take precedence), and references."""
    referenced = [dict(each) for each in more if each["name"] not in given]
    plain = {**own, **given}
    return [*({"name": name, "value": value} for name, value in sorted(plain.items())), *referenced]


def patched_template(request: RenderRequest, template: dict[str, Any]) -> dict[str, Any]:
    """The pod template with the Model's patch, and its revision as a label. Raises RenderError."""
    template = patched(request, template)
    metadata = template.get("metadata") or {}
    # A revision has the same hash in both tracks.
    own = {name: value for name, value in (metadata.get("labels") or {}).items() if name != TRACK_LABEL}
    revision = hash_of({**template, "metadata": {**metadata, "labels": own}})[:10]
    return {**template, "metadata": {**metadata, "labels": {**metadata.get("labels", {}), REVISION_LABEL: revision}}}


def patched(request: RenderRequest, template: dict[str, Any]) -> dict[str, Any]:
    """The pod template with the Model's patch. Raises RenderError."""
    model, reason = request.model, "InvalidPodTemplatePatch"
    if not model.spec.pod_template_patch:
        return template
    try:
        found = merged(template, model.spec.pod_template_patch or {})
        json.dumps(found, allow_nan=False)
    except (PatchError, ValueError, TypeError) as error:
        raise RenderError(reason, str(error)) from None
    except RecursionError:
        raise RenderError(reason, "podTemplatePatch is nested too deeply") from None
    unknown = sorted(found.keys() - {"metadata", "spec"})
    if unknown:
        raise RenderError(reason, f"podTemplatePatch.{unknown[0]}: a pod template has only `metadata` and `spec`")
    containers = (found.get("spec") or {}).get("containers") or []
    if ENGINE not in [each.get("name") for each in containers]:
        raise RenderError(reason, f"podTemplatePatch removes the container '{ENGINE}'")
    found_labels = (found.get("metadata") or {}).get("labels") or {}
    own_labels = template["metadata"]["labels"]
    for name in sorted({*own_labels, *found_labels}):
        if _is_own(name) and found_labels.get(name) != own_labels.get(name):
            raise RenderError(reason, f"podTemplatePatch changes the label {name}, by which pods are selected")
    if not all(isinstance(value, str) for value in found_labels.values()):
        raise RenderError(reason, "podTemplatePatch.metadata.labels: a label's value must be a string")
    if (problem := request.config.reserved.problem_of_template(found)) is not None:
        raise RenderError(reason, problem)
    return found


def _is_own(label: str) -> bool:
    """Whether Services and NetworkPolicies of the platform select pods by it. A pod with another's would be a gateway,
    and get the keys of callers, or reach Redis."""
    return label in _SELECTED or label.startswith((f"{GROUP}/", "ray.io/"))
