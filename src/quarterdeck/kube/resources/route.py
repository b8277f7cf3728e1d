"""ModelRoute: a public name that maps to several models."""

from typing import ClassVar, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from quarterdeck.kube.conditions import Condition
from quarterdeck.kube.resources.embedded import (
    CachePolicySpec,
    FallbackSpec,
    MirrorSpec,
    RouteTimeoutsSpec,
    RoutingSpec,
    TargetSpec,
)
from quarterdeck.kube.resources.object import Column, Resource
from quarterdeck.kube.resources.texts import LONG_NAME, MAX_PUBLIC_NAME, SERVED_NAME, SHORT_NAME, PublicName
from quarterdeck.kube.shape import Rule, Shape, StatusShape, with_rules
from quarterdeck.settings.content import CaptureLevel

SOME_WEIGHT = "at least one target requires a weight above 0"
UNIQUE_TARGETS = "each model can be a target only once"
NOT_ITSELF = "a route can't lead to itself"


class ModelRouteSpec(Shape):
    """Where requests of a name go."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(
            Rule("self.targets.exists(t, t.weight > 0.0)", SOME_WEIGHT),
            Rule("self.targets.all(t, self.targets.exists_one(u, u.model == t.model))", UNIQUE_TARGETS),
        )
    )

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

    @model_validator(mode="after")
    def _leads_somewhere(self) -> Self:
        models = [target.model for target in self.targets]
        if not any(target.weight for target in self.targets):
            raise ValueError(SOME_WEIGHT)
        if len(set(models)) < len(models):
            raise ValueError(UNIQUE_TARGETS)
        return self


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
        Column("Message", ".status.message", priority=1),
    )

    schema_rules: ClassVar[tuple[Rule, ...]] = (
        SHORT_NAME,
        Rule(
            f"!(self.spec.targets.exists(t, t.model == {SERVED_NAME}) || "
            f"(has(self.spec.fallbacks) && self.spec.fallbacks.exists(f, f.model == {SERVED_NAME})))",
            NOT_ITSELF,
        ),
    )

    spec: ModelRouteSpec
    """Where requests of the name go."""
    status: ModelRouteStatus = ModelRouteStatus()
    """What is."""

    @model_validator(mode="after")
    def _has_a_name_of_its_own(self) -> Self:
        if len(self.served_name) > MAX_PUBLIC_NAME:
            raise ValueError(LONG_NAME)
        named = [target.model for target in self.spec.targets] + [each.model for each in self.spec.fallbacks]
        if self.served_name in named:
            raise ValueError(NOT_ITSELF)
        return self

    @property
    def served_name(self) -> str:
        """Public name."""
        return self.spec.served_name or self.metadata.name
