"""Public names that are more than one model: canaries, fallbacks, mirrors; and how an endpoint of a model is chosen."""

from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

Condition = Literal["error", "timeout", "rate_limited", "queue", "context_length", "content_filter"]
"""error: an engine failed, or nobody is ready. rate_limited: the engine is full. queue: no room came in time here."""
Policy = Literal["least_load", "power_of_two", "weighted", "prefix", "session"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class RoutingConfig(_Frozen):
    """How one of a model's endpoints is chosen."""

    policy: Policy = "least_load"
    """least_load: the fewest tokens under way, by what the endpoint can run. power_of_two: the better of two at random.
    weighted: at random, by `max_running`. prefix: equal beginnings of prompts go to one endpoint, whose cache holds
    them, as long as it has no more than its share. session: the same for equal sessions."""
    prefix_kb: PositiveInt = Field(default=1, le=64)
    """KiB of `messages` or `prompt` that decide, up to the first answer in them: a conversation stays where it is. What
    lies beyond costs nothing. 1: a system prompt's head, or a whole first question."""
    load_bound: float = Field(default=1.25, ge=1, le=10)
    """How much more than the mean an endpoint may hold before its prefixes or sessions go to the next one."""
    session: str = Field(default="metadata.session_id", pattern=r"^(metadata\.session_id|user|header:[a-z0-9-]+)$")
    """Where the session's name stands: `metadata.session_id`, `user` or `header:x-session`. A header must be among
    `gateway.forward_headers`."""


class Target(_Frozen):
    """A model that answers for a route."""

    model: str
    """A model of `models:`, or an adapter."""
    weight: float = Field(default=1, ge=0, le=1_000_000)
    """Its share of the requests, beside the other targets' weights. 0: only where no other can."""


class Fallback(_Frozen):
    """A model that is asked where the targets could not answer, before the answer began."""

    model: str
    """A model of `models:`, or an adapter."""
    after: tuple[Condition, ...] = ("error", "timeout", "rate_limited", "queue")
    """Which failures. (It is not called `on`: YAML reads that as true.)"""
    contains: str | None = Field(default=None, min_length=3, max_length=200)
    """Also after an error whose message holds this text, whatever it is."""


class RouteTimeouts(_Frozen):
    """Seconds; what is not given is the gateway's."""

    connect: PositiveFloat | None = None
    """To open a connection to an endpoint."""
    first_token: PositiveFloat | None = None
    """From the request to the answer's first byte."""
    idle: PositiveFloat | None = None
    """Between two pieces of a stream."""
    total: PositiveFloat | None = None
    """The whole request, all attempts and waiting included."""


class MirrorConfig(_Frozen):
    """A share of the requests is also sent to another model, whose answers nobody is given."""

    model: str
    """A model of `models:`, or an adapter."""
    share: float = Field(gt=0, le=1)
    """0.05: one request in twenty."""


class RouteConfig(_Frozen):
    """One entry of `routes:`."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$")
    """The public name, what a request says in `model`."""
    targets: tuple[Target, ...] = Field(min_length=1, max_length=100)
    """Who answers, by weight. One that can't is stood in for by the others."""
    fallbacks: tuple[Fallback, ...] = Field(default=(), max_length=100)
    """Who is asked after them, in this order."""
    stickiness: Literal["none", "session", "prefix"] = "none"
    """Whether a session's (or a prompt beginning's) requests all go to one target."""
    routing: RoutingConfig | None = None
    """How an endpoint is chosen. None: as each model says."""
    timeouts: RouteTimeouts = RouteTimeouts()
    """What this route waits for."""
    retries: int | None = Field(default=None, ge=0, le=5)
    """Other endpoints of a model tried before the first byte. None: the gateway's `retries`. All retries of a route
    together are held to 20 % of its requests."""
    mirror: MirrorConfig | None = None
    """None: requests are sent once."""

    @model_validator(mode="after")
    def _somebody_answers(self) -> Self:
        if not any(target.weight for target in self.targets):
            raise ValueError("at least one target needs a weight above 0")
        models = [target.model for target in self.targets]
        if len(set(models)) < len(models):
            raise ValueError("a model is given twice among the targets")
        return self


class HealthCheck(_Frozen):
    """A question asked again and again, so that a dead endpoint is known before a request finds it."""

    path: str = Field(default="/health", pattern=r"^/[\x21-\x7e]*$")
    """What is asked for; any answer below 400 is a good one."""
    interval_seconds: float = Field(default=5, ge=0.1, le=3600)
    """Between two questions."""
    timeout_seconds: PositiveFloat = 2
    """After which no answer is a bad one."""
    failures: PositiveInt = 2
    """Bad answers in a row after which it is offered no more while another is there; one good answer brings it back."""


class QueueConfig(_Frozen):
    """Who waits at the gateway when every endpoint of a model is full, and for how long.

    The higher priority goes first; among equals each team gets its share, however much it sends; and every eighth place
    goes to whoever has waited longest.
    """

    max_waiting: int = Field(default=0, ge=0, le=100_000)
    """Requests that wait for one model; the next is 429 `queue_full`. 0: nobody waits here, endpoints queue themselves.
    An endpoint is full at its `max_running`."""
    max_wait_seconds: NonNegativeFloat = 30
    """After which a request that still waits is 503 `queue_timeout`."""
    cold_wait_seconds: NonNegativeFloat = 0
    """How long a request waits for a model whose engine has no ready replica. 0: 503 `model_not_ready` at once."""
    max_cold: PositiveInt = 256
    """Requests held for one such model; the next is 429 `queue_full`."""
    heartbeat_after_seconds: PositiveFloat = 5
    """A stream that waits so long begins with SSE comments. From then on an error is an event, no longer a status."""
    heartbeat_seconds: PositiveFloat = 5
    """Between two comments. Proxies hang up on silence."""
    weights: dict[str, PositiveFloat] = Field(default_factory=dict)
    """A team's share beside another's; 1 where nothing is said."""
