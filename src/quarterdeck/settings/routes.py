"""Routes, public names that map to several models (canaries, fallbacks, mirrors), and the choice of an endpoint."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from quarterdeck.settings.content import CaptureLevel

Condition = Literal["error", "timeout", "rate_limited", "queue", "context_length", "content_filter"]
"""error: an engine failed, or none is ready. rate_limited: the engine is full. queue: no free slot in time."""
Policy = Literal["least_load", "power_of_two", "weighted", "prefix", "session"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RoutingConfig(_Frozen):
    """How an endpoint of a model is chosen."""

    policy: Policy = "least_load"
    """least_load: the fewest tokens in flight relative to capacity. power_of_two: the less loaded of two random ones.
    weighted: random, by `max_running`. prefix: prompts with equal beginnings go to one endpoint, whose cache holds
    them, within `load_bound`. session: likewise for requests of one session."""
    prefix_kb: PositiveInt = Field(default=1, le=64)
    """KiB of `messages` or `prompt` that form the prefix, up to the first assistant message, so that a conversation
    stays on its endpoint. 1: the head of a system prompt, or a whole first question."""
    load_bound: float = Field(default=1.25, ge=1, le=10)
    """Load relative to the mean above which an endpoint's prefixes or sessions move to the next one."""
    session: str = Field(default="metadata.session_id", pattern=r"^(metadata\.session_id|user|header:[a-z0-9-]+)$")
    """Field that holds the session id: `metadata.session_id`, `user` or `header:x-session`. A header must be listed in
    `gateway.forward_headers`."""


class Target(_Frozen):
    """A model behind a route."""

    model: str
    """A model of `models:`, or an adapter."""
    weight: float = Field(default=1, ge=0, le=1_000_000)
    """Its share of the requests relative to the other targets. 0: used only if no other target can answer."""


class Fallback(_Frozen):
    """A model used when the targets failed before the answer began."""

    model: str
    """A model of `models:`, or an adapter."""
    after: tuple[Condition, ...] = ("error", "timeout", "rate_limited", "queue")
    """Failures that trigger it. (Not named `on`, which YAML reads as true.)"""
    contains: str | None = Field(default=None, min_length=3, max_length=200)
    """Also after any error whose message contains this text."""


class RouteTimeouts(_Frozen):
    """Timeouts in seconds; the gateway's values apply where unset."""

    connect: PositiveFloat | None = None
    """For opening a connection to an endpoint."""
    first_token: PositiveFloat | None = None
    """From the request to the first byte of a stream."""
    whole_answer: PositiveFloat | None = None
    """How long an endpoint may stay silent while it works on an answer that is not streamed."""
    idle: PositiveFloat | None = None
    """Between two chunks of a stream."""
    total: PositiveFloat | None = None
    """For the whole request, including all attempts and waiting."""


class MirrorConfig(_Frozen):
    """Sends a copy of some requests to another model and discards its answers."""

    model: str
    """A model of `models:`, or an adapter."""
    share: float = Field(gt=0, le=1)
    """Share of the requests to copy; 0.05: one in twenty."""


class RouteConfig(_Frozen):
    """One entry of `routes:`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")
    """The public name, used as `model` in requests."""
    targets: tuple[Target, ...] = Field(min_length=1, max_length=100)
    """Models that answer, by weight. The others take over for one that can't."""
    fallbacks: tuple[Fallback, ...] = Field(default=(), max_length=100)
    """Models to try after the targets, in order."""
    stickiness: Literal["none", "session", "prefix"] = "none"
    """Whether all requests of a session, or with the same prompt prefix, go to one target."""
    routing: RoutingConfig | None = None
    """How an endpoint is chosen. None: each model's own setting."""
    timeouts: RouteTimeouts = RouteTimeouts()
    """Timeouts of this route."""
    retries: int | None = Field(default=None, ge=0, le=5)
    """How many other endpoints of a model are tried before the first byte. None: the gateway's `retries`. Retries of
    a route are limited to 20 % of its requests."""
    mirror: MirrorConfig | None = None
    """Mirroring. None: off."""
    content: CaptureLevel | None = None
    """What is kept of inputs and outputs of its requests. None: the route does not say; its models may."""

    @model_validator(mode="after")
    def _has_targets(self) -> Self:
        if not any(target.weight for target in self.targets):
            raise ValueError("at least one target requires a weight above 0")
        models = [target.model for target in self.targets]
        if len(set(models)) < len(models):
            raise ValueError("duplicate model among the targets")
        return self


class HealthCheck(_Frozen):
    """A periodic HTTP check that finds a dead endpoint before a request does."""

    path: str = Field(default="/health", pattern=r"^/[\x21-\x7e]*$")
    """Path to request; a status below 400 is healthy."""
    interval_seconds: float = Field(default=5, ge=0.1, le=3600)
    """Seconds between two checks."""
    timeout_seconds: PositiveFloat = 2
    """Timeout of a check in seconds; then it counts as failed."""
    failures: PositiveInt = 2
    """Consecutive failures after which the endpoint is avoided while others exist. One success restores it."""


class QueueConfig(_Frozen):
    """The gateway's queue for models whose endpoints are all full.

    Higher priorities go first. Within a priority, each team of each organisation gets its share regardless of how much
    it sends. Every eighth slot goes to the request that has waited longest.
    """

    max_waiting: int = Field(default=0, ge=0, le=100_000)
    """Maximum number of waiting requests per model; the next one gets 429 `queue_full`. 0: no queue in the gateway;
    endpoints queue. An endpoint is full at its `max_running`."""
    max_wait_seconds: NonNegativeFloat = 30
    """Maximum wait in seconds; then 503 `queue_timeout`."""
    cold_wait_seconds: NonNegativeFloat = 0
    """How long a request waits for a model without a ready replica, in seconds. 0: immediate 503 `model_not_ready`."""
    loading_wait_seconds: NonNegativeFloat = 300
    """How long a stream waits for a model that is being started, in seconds, with SSE comments that say how far it is.
    Requests that do not stream get 503 `model_not_ready` at once, with the estimate as Retry-After; `cold_wait_seconds`
    makes them wait as well. 0: streams get the same.

    300: models of a laptop load within a minute or two, and a client that gave up has closed its connection.
    """
    max_cold: PositiveInt = 256
    """Maximum number of requests waiting for such a model; the next one gets 429 `queue_full`."""
    heartbeat_after_seconds: PositiveFloat = 5
    """Seconds after which a waiting stream starts with SSE comments. Later errors are events instead of a status."""
    heartbeat_seconds: PositiveFloat = 5
    """Seconds between two comments. Proxies close silent connections."""
    weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    """Relative share of a team, by team name; 1 if unset. Teams of other organisations are named `org/team`."""
    max_org_priority: int = Field(default=0, ge=0, le=9)
    """The highest priority of requests of other organisations than the platform's own, whose admins set priorities
    themselves. 0: they go in turn with the platform's requests of priority 0."""
