"""`quarterdeck --context … status`: the parts of a release and its Models. Pure, but for `read`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from quarterdeck.cli.installation import APP, COMPONENT, INSTANCE, Installation
from quarterdeck.cli.kubectl import Kubectl
from quarterdeck.kube.names import GROUP

PARTS = ("gateway", "worker", "operator", "redis")
MODELS = f"models.{GROUP}"


@dataclass(frozen=True, slots=True)
class Part:
    """A Deployment or StatefulSet of a release."""

    name: str
    wanted: int
    ready: int
    detail: str = ""
    """Why a pod of it is not ready, if Kubernetes says so."""

    @property
    def is_ready(self) -> bool:
        return self.ready >= self.wanted > 0

    @property
    def state(self) -> str:
        if self.is_ready:
            return "ready"
        return "scaled to zero" if self.wanted == 0 else f"{self.ready} of {self.wanted} ready"


@dataclass(frozen=True, slots=True)
class ModelState:
    """What a Model's Ready condition says."""

    name: str
    is_ready: bool
    reason: str
    message: str
    replicas: str

    @property
    def is_in_trouble(self) -> bool:
        """Not ready, and not because the spec asks for it."""
        return not self.is_ready and self.reason not in ("Suspended", "ScaledToZero")


def read(kubectl: Kubectl, installation: Installation) -> tuple[list[Part], list[ModelState]]:
    """The parts of the release and the Models of its namespace. Raises KubectlError."""
    kubectl = kubectl.within(installation.namespace)
    selector = f"{APP},{INSTANCE}={installation.release}"
    workloads = kubectl.items("deployments,statefulsets", "--selector", selector)
    pods = kubectl.items("pods", "--selector", selector)
    return parts_of(workloads, pods), [model_state(one) for one in kubectl.items(MODELS)]


def parts_of(workloads: list[dict[str, Any]], pods: list[dict[str, Any]]) -> list[Part]:
    """One part for each component of the chart that is there, in their order."""
    found = {}
    for one in workloads:
        component = one["metadata"].get("labels", {}).get(COMPONENT, "")
        if component in PARTS:
            status = one.get("status", {})
            detail = next(filter(None, (_trouble(pod) for pod in pods if _component(pod) == component)), "")
            found[component] = Part(
                component, int(one["spec"].get("replicas", 1)), int(status.get("readyReplicas", 0)), detail
            )
    return [found[name] for name in PARTS if name in found]


def model_state(model: Mapping[str, Any]) -> ModelState:
    """What a Model's status says of its present spec."""
    status = model.get("status") or {}
    ready: Mapping[str, Any] = next((one for one in status.get("conditions", ()) if one["type"] == "Ready"), {})
    replicas = status.get("replicas") or {}
    counts = f"{replicas.get('ready', 0)}/{replicas.get('desired', 0)}" if isinstance(replicas, Mapping) else ""
    return ModelState(
        name=str(model["metadata"]["name"]),
        is_ready=ready.get("status") == "True",
        reason=str(ready.get("reason") or "Pending"),
        message=str(status.get("message") or ready.get("message") or ("" if ready else "the operator has not seen it")),
        replicas=counts,
    )


def _component(pod: Mapping[str, Any]) -> str:
    return str(pod["metadata"].get("labels", {}).get(COMPONENT, ""))


def _trouble(pod: Mapping[str, Any]) -> str:
    """Why a pod is not ready: its containers' waiting reason, else why it can't be scheduled."""
    status = pod.get("status", {})
    for container in (*status.get("initContainerStatuses", ()), *status.get("containerStatuses", ())):
        waiting = container.get("state", {}).get("waiting") or {}
        if waiting.get("reason") not in (None, "ContainerCreating", "PodInitializing"):
            return f"{waiting['reason']}: {waiting.get('message', '')}".rstrip(": ")
    for condition in status.get("conditions", ()):
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return f"{condition.get('reason', '')}: {condition.get('message', '')}".strip(": ")
    return ""
