"""Replicas of a Model's engine: how many, and how they are replaced."""

from typing import Literal, Self

from pydantic import ConfigDict, Field, model_validator

from quarterdeck.kube.shape import Rule, Shape, with_rules


class ColdStart(Shape):
    """What happens to a request while no replica runs."""

    mode: Literal["Hold", "Reject"] = "Hold"
    """Hold: it waits until a replica is ready. Reject: 503 with Retry-After, and a replica starts."""
    hold_seconds: float = Field(default=300, ge=0, le=900)
    """How long it waits, in seconds."""


class Scaling(Shape):
    """Number of replicas."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(Rule("!has(self.max) || self.min <= self.max", "min must not be more than max"))
    )

    min: int = Field(default=1, ge=0, le=1000)
    """Minimum number of replicas. 0: none runs while there are no requests."""
    max: int | None = Field(default=None, ge=1, le=1000)
    """Maximum number of replicas. Unset: `min`, at least 1."""
    target: int = Field(default=16, ge=1, le=100_000)
    """Requests in flight per replica above which another one is added."""
    idle_seconds: int = Field(default=300, ge=1, le=86_400)
    """Seconds without a request after which the last replica ends, where `min` is 0."""
    replicas: int | None = Field(default=None, ge=0, le=1000)
    """A fixed number within `min` and `max`, set by `kubectl scale` or an autoscaler through the scale subresource.
    Leave it out of manifests. Unset: as many as requests need."""
    cold_start: ColdStart = ColdStart()
    """What happens to a request while no replica runs."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.max is not None and self.min > self.max:
            raise ValueError("min must not be more than max")
        return self

    @property
    def upper(self) -> int:
        """Maximum number of replicas."""
        return self.max if self.max is not None else max(self.min, 1)


class CanaryStep(Shape):
    """One step of a canary."""

    weight: int = Field(ge=1, le=100)
    """Percentage of requests that the new revision gets."""
    pause_seconds: int = Field(default=60, ge=0, le=86_400)
    """Seconds before the next step."""


class CanaryAbort(Shape):
    """When a canary is aborted."""

    error_rate: float = Field(default=0.05, ge=0, le=1)
    """Share of its requests that fail."""
    ttft_ratio: float = Field(default=2.0, ge=1, le=100)
    """Its 90th percentile of the time to first token, relative to the old revision's."""
    min_requests: int = Field(default=20, ge=1, le=1_000_000)
    """Requests before it is judged."""


class Canary(Shape):
    """Moves requests to a new revision in steps."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(
            Rule(
                "self.steps.map(s, s.weight).isSorted() && "
                "self.steps.all(s, self.steps.exists_one(t, t.weight == s.weight))",
                "weights of the steps must ascend: each step moves more requests than the one before",
            )
        )
    )

    steps: tuple[CanaryStep, ...] = Field(min_length=1, max_length=20)
    """Steps in order; after the last one the new revision gets all requests."""
    abort: CanaryAbort = CanaryAbort()
    """When it is aborted; then the old revision gets all requests again."""

    @model_validator(mode="after")
    def _weights_ascend(self) -> Self:
        weights = [step.weight for step in self.steps]
        if weights != sorted(set(weights)):
            raise ValueError("weights of the steps must ascend: each step moves more requests than the one before")
        return self


class Rollout(Shape):
    """How a change that needs a new engine is rolled out."""

    model_config = ConfigDict(
        json_schema_extra=with_rules(
            Rule("!has(self.canary) || self.strategy == 'Surge'", "a canary needs both revisions: use strategy Surge")
        )
    )

    strategy: Literal["Surge", "Recreate"] = "Surge"
    """Surge: the new replica is ready before an old one ends, which needs its GPUs twice. Recreate: the old ones end
    first."""
    drain_seconds: int = Field(default=120, ge=0, le=3600)
    """Seconds that requests in flight have before a replica ends."""
    canary: Canary | None = None
    """Moves requests in steps. Unset: all at once. A RayService ignores it."""

    @model_validator(mode="after")
    def _canary_has_both_revisions(self) -> Self:
        if self.canary is not None and self.strategy == "Recreate":
            raise ValueError("a canary needs both revisions: use strategy Surge")
        return self
