"""Which backend runs a Model."""

from collections.abc import Sequence
from typing import Protocol

from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.manifests import Manifest
from quarterdeck.operator.probe import Capabilities
from quarterdeck.operator.render import deployment, rayservice
from quarterdeck.operator.render.request import STABLE, Change, RenderError, RenderRequest, ReplicaState
from quarterdeck.operator.settings import OperatorConfig


class Backend(Protocol):
    """A module of this package."""

    KIND: str

    def object_name(self, model: Model, track: str = STABLE) -> str: ...

    def image(self, request: RenderRequest) -> str: ...

    def render(self, request: RenderRequest) -> list[Manifest]: ...

    def staged(
        self,
        request: RenderRequest,
        desired: Sequence[Manifest],
        observed: Sequence[Manifest],
        pods: Sequence[Manifest],
    ) -> list[Manifest]:
        """The part of `desired` that may be there now."""
        ...

    def classify(self, request: RenderRequest, desired: Sequence[Manifest], observed: Sequence[Manifest]) -> Change: ...

    def replicas(
        self, request: RenderRequest, observed: Sequence[Manifest], pods: Sequence[Manifest]
    ) -> ReplicaState: ...


BACKENDS: dict[str, Backend] = {deployment.KIND: deployment, rayservice.KIND: rayservice}
"""By kind of the object that runs the engine."""


def backend_of(model: Model, config: OperatorConfig, capabilities: Capabilities) -> Backend:
    """Choose a backend. Raises RenderError if the cluster does not have the one that the Model names.

    `auto`: Deployment for a canary, which KubeRay has none of; else the platform's, and where that is `auto` too:
    RayService if KubeRay is there, except for the simulated engine, which needs no Ray.
    """
    wanted = model.spec.backend
    if wanted == "auto":
        wanted = "Deployment" if model.spec.rollout.canary is not None else config.backend
    if wanted == "auto":
        wanted = "RayService" if capabilities.has_kuberay and model.spec.engine.type == "vllm" else "Deployment"
    if wanted == "RayService" and not capabilities.has_kuberay:
        raise RenderError(
            "BackendUnavailable",
            "backend RayService needs KubeRay, which this cluster does not have; install it,"
            " or set `backend: Deployment`",
        )
    backend = BACKENDS.get(wanted)
    if backend is None:
        raise RenderError("BackendUnavailable", f"this operator has no backend {wanted}")
    return backend
