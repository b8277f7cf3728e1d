"""Status of a Model, which the operator writes."""

from typing import Literal

from pydantic import Field

from quarterdeck.kube.conditions import Condition
from quarterdeck.kube.resources.object import Replicas
from quarterdeck.kube.shape import StatusShape

Edit = Literal["InPlace", "EngineRestart", "NewCluster"]
State = Literal["Serving", "Zero", "Suspended", "Starting", "Failed"]


class Plan(StatusShape):
    """What the operator decided."""

    image: str = ""
    """Image of the engine."""
    accelerator: str = ""
    """Accelerator profile."""
    gpus: int = 0
    """GPUs of one replica."""
    quantization: str = ""
    """Quantization method."""
    edit: Edit | None = None
    """What the latest change needs. InPlace: nothing restarts. EngineRestart: engines restart in place. NewCluster: a
    second set of replicas runs meanwhile."""
    extra_gpus: int = Field(default=0, alias="extraGPUs")
    """GPUs that the change needs beyond those in use."""
    source: str = ""
    """Short form of the weights' source, for `kubectl get`."""


class CanaryStatus(StatusShape):
    """A canary: a new revision that is tried beside the one in use."""

    phase: Literal["Preparing", "Running", "Promoting", "Aborting", "Aborted"]
    """Preparing: its engine starts. Running: it gets requests. Promoting: the engine in use takes the new revision.
    Aborting: it gets no more requests and ends. Aborted: the old revision serves alone until the spec changes."""
    stable: str
    """Revision in use."""
    candidate: str
    """Revision that is tried."""
    step: int = 0
    """Index of the step of `spec.rollout.canary.steps`."""
    weight: int = 0
    """Percentage of requests that the candidate gets."""
    since: str = ""
    """When the phase or step began."""
    message: str = ""
    """Why it was aborted, with the figures."""


class ScalingEvent(StatusShape):
    """A change of the number of replicas."""

    from_: int = Field(alias="from")
    """Replicas before."""
    to: int
    """Replicas after."""
    reason: str = ""
    """Why."""
    at: str = ""
    """When."""


class Backend(StatusShape):
    """The object that runs the engine."""

    kind: str = ""
    """Deployment or RayService."""
    name: str = ""
    """Its name."""


class ModelStatus(StatusShape):
    """What is."""

    observed_generation: int = 0
    """The generation of the spec that the status describes."""
    conditions: tuple[Condition, ...] = ()
    """Accepted, Planned, WeightsReady, Scheduled, EngineReady, Routable, and Ready as their summary."""
    plan: Plan | None = None
    """What the operator decided."""
    replicas: Replicas = Replicas()
    """Replicas."""
    selector: str = ""
    """Label selector of the engine's pods, for the scale subresource."""
    state: State | None = None
    """Serving, Starting, Zero (no replica, the next request starts one), Suspended or Failed."""
    canary: CanaryStatus | None = None
    """The canary that runs, or was aborted."""
    last_scalings: tuple[ScalingEvent, ...] = ()
    """The latest changes of the number of replicas, newest first, at most 5."""
    backend: Backend | None = None
    """The object that runs the engine."""
    message: str = ""
    """The state in a sentence."""
