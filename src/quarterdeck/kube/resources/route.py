"""ModelRoute: a public name that maps to several models."""

from typing import ClassVar, Literal

from pydantic import Field

from quarterdeck.kube.conditions import Condition
from quarterdeck.kube.resources.embedded import (
    CachePolicySpec,
    FallbackSpec,
    MirrorSpec,
    RouteTimeoutsSpec,
    RoutingSpec,
    TargetSpec,
)
from quarterdeck.kube.resources.model import PublicName
from quarterdeck.kube.resources.object import Column, Resource
from quarterdeck.kube.shape import Shape, StatusShape
from quarterdeck.settings.content import CaptureLevel


class ModelRouteSpec(Shape):
    """Where requests of a name go."""

    served_name: PublicName | None = None
    """Public name, used as `model` in requests. Unset: the object's name."""
    targets: tuple[TargetSpec, ...] = Field(min_length=1, max_length=100)
    """Models that answer, by weight. The others take over for one that can't."""
    fallbacks: tuple[FallbackSpec, ...] = Field(default=(), max_length=100)
    """Models to try after the targets, in order."""
    stickiness: Literal["none", "session", "prefix"] = "none"
    """Whether all requests of a session, or with the same prompt prefix, go to one target."""
    routing: RoutingSpec | None = None
    """How an endpoint is chosen. Unset: each model's own setting."""
    timeouts: RouteTimeoutsSpec = RouteTimeoutsSpec()
    """Timeouts of this route."""
    retries: int | None = Field(default=None, ge=0, le=5)
    """How many other endpoints of a model are tried before the first byte. Unset: the gateway's `retries`."""
    mirror: MirrorSpec | None = None
    """Mirroring. Unset: off."""
    cache: CachePolicySpec | None = None
    """Response caching of requests of this name. Unset: the platform's default policy."""
    content: CaptureLevel | None = None
    """What is kept of inputs and outputs. Unset: the route does not say; its models may."""


class ModelRouteStatus(StatusShape):
    """What is."""

    observed_generation: int = 0
    """The generation of the spec that the status describes."""
    conditions: tuple[Condition, ...] = ()
    """Accepted, ResolvedRefs, Routable, and Ready as their summary."""
    message: str = ""
    """The state in a sentence."""


class ModelRoute(Resource):
    """A public name that maps to several models: weights, fallbacks, mirrors."""

    kind: ClassVar[str] = "ModelRoute"
    plural: ClassVar[str] = "modelroutes"
    short_names: ClassVar[tuple[str, ...]] = ("mr",)
    columns: ClassVar[tuple[Column, ...]] = (
        Column("Ready", '.status.conditions[?(@.type=="Ready")].status'),
        Column("Reason", '.status.conditions[?(@.type=="Ready")].reason'),
        Column("Targets", ".spec.targets[*].model"),
        Column("Age", ".metadata.creationTimestamp", "date"),
    )

    spec: ModelRouteSpec
    status: ModelRouteStatus = ModelRouteStatus()

    @property
    def served_name(self) -> str:
        """Public name."""
        return self.spec.served_name or self.metadata.name
