"""The shape of quarterdeck.yaml. `loading.py` reads the file and reports problems by line."""

import re
from collections.abc import Sequence
from typing import Annotated, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
    field_validator,
    model_validator,
)

from quarterdeck.settings.batches import BatchesConfig
from quarterdeck.settings.cache import CacheConfig
from quarterdeck.settings.content import ContentConfig
from quarterdeck.settings.cors import CorsConfig
from quarterdeck.settings.file_storage import FilesConfig
from quarterdeck.settings.langfuse import LangfuseConfig
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.moderations import ModerationsConfig
from quarterdeck.settings.prompts import MODEL_PREFIX
from quarterdeck.settings.routes import QueueConfig, RouteConfig, RoutingConfig
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.settings.tenancy import KeyConfig, OrgConfig, TeamConfig, TeamName
from quarterdeck.settings.tools import ToolsConfig
from quarterdeck.settings.webhooks import WebhooksConfig

_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_HOST = re.compile(r"(?:[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])(?::[1-9][0-9]{0,4})?", re.ASCII)
_NEVER_FORWARDED = frozenset(
    {
        # connection and framing headers: the engine client writes its own
        *("connection", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade", "accept", "accept-encoding", "content-encoding", "x-request-id"),
        # the caller's secrets
        *("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"),
    }
)


class DuplicateNameError(ValueError):
    """Two models, aliases, adapters or routes share a name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"duplicate name {name!r} among models, aliases, adapters and routes")
        self.name = name


class ReservedNameError(DuplicateNameError):
    """A name that a request would take for a prompt's."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.args = (f"invalid name {name!r}: `{MODEL_PREFIX}…` names a prompt",)


class MisplacedValueError(ValueError):
    """A value conflicts with another part of the file; `where` is its location in pydantic's form."""

    def __init__(self, where: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.where = where


class GatewayConfig(BaseModel):
    """Timeouts and bounds of the gateway."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_body_mb: PositiveInt = 4
    """Maximum request body in MiB (2²⁰ bytes); a larger one is rejected with 413. 4: room for a 128k-token prompt.
    Pictures, audio and files in a chat do not count."""
    max_media_body_mb: PositiveInt = 50
    """Maximum body of a chat with its pictures, audio and files, and of a form with audio or pictures, in MiB; a larger
    one is rejected with 413. 50: as hosted APIs take. Such a request takes about three times its body's memory, within
    `max_body_mb_in_flight`."""
    connect_timeout_seconds: PositiveFloat = 2
    """Timeout for opening a connection to an endpoint. Short: endpoints are nearby, and another can be tried."""
    first_token_timeout_seconds: PositiveFloat = 120
    """Timeout from the request to the first byte of a stream. Long enough for long prompts in long queues; bounds a
    hung engine."""
    prefill_heartbeat_seconds: NonNegativeFloat = 0
    """Seconds without a first token after which a stream begins with SSE comments, and between two of them. 0: never.

    For prompts that an engine reads for minutes behind a load balancer that closes a silent connection after 60 s: 20.
    Off by default: after the first comment the status is 200, and an error can only be an event.
    """
    whole_answer_timeout_seconds: PositiveFloat | None = None
    """How long an endpoint may stay silent while it works on an answer that is not streamed. None: until the request's
    total timeout.

    None: engines send nothing of such an answer before its end, so a long answer and a hung engine look the same.
    """
    idle_timeout_seconds: PositiveFloat = 60
    """Timeout between two chunks of a stream. vLLM sends a token every few ms; a minute of silence is a dead engine."""
    total_timeout_seconds: PositiveFloat = 900
    """Timeout for a whole request. Bounds the resources of a forgotten stream."""
    client_body_timeout_seconds: PositiveFloat = 60
    """Timeout for receiving a request body; then 408. Bounds the resources of a client that sends byte by byte."""
    client_write_timeout_seconds: PositiveFloat = 60
    """Timeout for a client that reads nothing; then its connection is closed. Memory is bounded meanwhile."""
    shutdown_delay_seconds: Annotated[float, Field(ge=0, le=600)] | None = None
    """How long the gateway goes on serving after SIGTERM, with `/readyz` 503 and answers that close their connections.
    Longer while a request that began before SIGTERM is in flight, and while further ones arrive, by at most half of
    `drain_seconds`.

    None: 8 in a cluster (CLUSTER_DELAY_SECONDS), else 0. Load balancers need a second or two to take a gateway out of
    their lists, and clients must not send a request on a kept connection just when it is closed: OpenAI's SDK for
    Python keeps idle connections for 5 s.
    """
    drain_seconds: NonNegativeFloat = 30
    """How long requests in flight may continue after SIGTERM, and after `shutdown_delay_seconds`. New ones are refused.

    The gateway exits at most 22 s later (`settings/shutdown.py`); a pod's `terminationGracePeriodSeconds` must be as
    long, 60 with the defaults.
    """
    redis_timeout_seconds: PositiveFloat = 0.25
    """Timeout for each reply of Redis to the gateway. If admission takes longer, `on_redis_down` applies.

    0.25: several hundred times what Redis needs; a request waits so long when Redis hangs.
    """
    on_redis_down: Literal["allow", "deny"] = "allow"
    """allow: requests are admitted within `redis_down_share` and recorded in the spool. deny: 503.

    A request with a price under a budget with `on_exhausted: deny` gets 503 in both cases, because spending is unknown
    meanwhile.
    """
    redis_down_share: float = Field(default=0.1, gt=0, le=1)
    """Share of each limit that one gateway grants while Redis is unavailable, at least 1.

    0.1: up to ten gateways together exceed no limit of at least ten; of a smaller limit each grants 1. Use 1 with a
    single gateway.
    """
    budget_wait_seconds: NonNegativeFloat = 5
    """How long a request waits for a budget that is not counted yet, before it gets 503 `limits_unavailable`.

    5: the worker counts a new budget within a second, and has started by then if it is started with the gateway. 0:
    no wait.
    """
    max_waiting_records: NonNegativeInt = 100_000
    """Records that may wait for the worker (about 100 MB in Redis) before requests with a budget and a price get
    503. 0: no limit.

    Remaining budgets are rebuilt from ledger and stream, so the stream must stay readable. Records are never dropped.
    """
    reservation_lease_seconds: float = Field(default=60, ge=1, le=900)
    """How long after its gateway's last heartbeat a request in flight is settled as lost.

    60: a gateway that pauses for less keeps its requests. Gateways renew the lease every third of this time.
    """
    max_in_flight: PositiveInt = 2048
    """Requests with a valid key in flight per gateway; the next one gets 503 with Retry-After. Bounds memory."""
    max_in_flight_per_key: PositiveInt = 1024
    """Requests in flight of one key per gateway; the next one gets 429.

    1024: half of `max_in_flight`, so that one key, whatever its other limits, leaves room for the others.
    """
    max_body_mb_in_flight: PositiveInt = 1024
    """Memory of all request bodies in flight per gateway, in MiB, and of whole answers that clients have not read yet;
    the next request gets 503. A body is held as long as its request: another endpoint may need it. Those of 64 KiB and
    less are not counted.

    1024: some five hundred of the largest bodies by default. Where the container's memory limit is below 4 GiB, a
    quarter of that limit instead.
    """
    max_body_mb_in_flight_per_key: PositiveInt = 256
    """The same of one key, by the content-lengths its requests state; the next request gets 429. A single body within
    `max_body_mb` is always taken.

    256: a quarter of `max_body_mb_in_flight`, also where the container's memory limit makes that smaller.
    """
    retries: int = Field(default=2, ge=0, le=5)
    """How many other endpoints are tried when one fails before its first byte."""
    resumes: int = Field(default=2, ge=0, le=5)
    """How often an answer may be resumed on another endpoint after its endpoint failed mid-stream. 0: never.

    2: a rolling restart can hit the second engine too; more failures in one answer are unlikely to be accidental.
    """
    media_domains: tuple[str, ...] = ()
    """Hosts from which engines may fetch media that a request references by URL (such as `image_url`).

    `img.example.com` allows exactly this host on the default port, `img.example.com:8443` this port, and `*` every host
    name with a dot that has no private suffix (`.local`, `.internal`, `.svc`, …) and every public IPv4 address.
    Default: none; media must be `data:` URLs. Engines fetch from inside the cluster, so URLs are an attack path.
    """
    isolate_prefix_cache: bool = True
    """Whether each organisation has its own part of vLLM's prefix cache (`cache_salt`).

    On: without it, cached token counts and response times show whether another organisation has sent a prompt. Off:
    organisations share cached prefixes, such as a common system prompt.
    """
    forward_headers: tuple[str, ...] = ()
    """Client headers forwarded to engines, by name. Default: none; an engine sees only the body.

    Example: `x-fault` for the simulated engine's faults, in tests. Connection headers and secrets are refused.
    """

    keep_alive_seconds: float = Field(default=75, ge=0, le=3600)
    """How long a client's connection may stay idle between two requests. 0: it is closed after each response.

    75: longer than the 60 s of most load balancers, as a request is lost if it is sent while the gateway closes.
    """
    cors: CorsConfig = CorsConfig()
    """Pages of other origins that may call this gateway from a browser."""

    @field_validator("media_domains")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        lower = tuple(host.lower() for host in hosts)
        for host in lower:
            if host != "*" and not _HOST.fullmatch(host):
                raise ValueError(f"{host!r} is not a host name, an IP address, or one of them with a port")
        return lower

    @field_validator("forward_headers")
    @classmethod
    def _may_be_forwarded(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        lower = tuple(name.lower() for name in names)
        for name in lower:
            if name in _NEVER_FORWARDED or not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"header {name!r} can't be forwarded")
        return lower


class LedgerConfig(BaseModel):
    """How long the ledger keeps requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    retention_days: float | None = Field(default=None, ge=1)
    """Days after which requests are deleted from the ledger, and their contents with them, if these are kept longer.

    None: they are kept. Usage by hour and what counts for budgets stay; reports by user and the request log end where
    the ledger begins. A row takes about 1 KB, so 10 requests a second are some 25 GB in a month.
    """


class Config(BaseModel):
    """quarterdeck.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    models: tuple[ModelConfig, ...]
    """Models the platform serves."""
    routes: tuple[RouteConfig, ...] = ()
    """Public names that map to several models: canaries, fallbacks, mirrors."""
    queue: QueueConfig = QueueConfig()
    """Queueing of requests whose model has no free or no ready endpoint."""
    limits: Limits = Limits()
    """Default limits of a key."""
    keys: dict[str, KeyConfig] = Field(default_factory=dict)
    """Limits, budgets and priorities of keys, by key name."""
    teams: dict[TeamName, TeamConfig] = Field(default_factory=dict)
    """Limits, budgets and priorities shared by a team's keys, by team name."""
    org: OrgConfig | None = None
    """Limits and budget shared by all keys. None: managed by the admin API."""
    gateway: GatewayConfig = GatewayConfig()
    """Timeouts and bounds of the gateway."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """Traces: their labels, sampling and sinks."""
    cache: CacheConfig = CacheConfig()
    """Response caching."""
    ledger: LedgerConfig = LedgerConfig()
    """How long the ledger keeps requests."""
    moderations: ModerationsConfig | None = None
    """How `/v1/moderations` is answered. None: it is not served."""
    content: ContentConfig = ContentConfig()
    """Capture of inputs and outputs."""
    files: FilesConfig = FilesConfig()
    """Sizes of files, and what an organisation may store."""
    batches: BatchesConfig = BatchesConfig()
    """Batches: how many run, how much of the engines they take, what they cost."""
    webhooks: WebhooksConfig = WebhooksConfig()
    """Events posted to URLs of organisations, and alerts of budgets."""
    tools: ToolsConfig = ToolsConfig()
    """Tools that the platform executes in responses."""
    langfuse: LangfuseConfig = LangfuseConfig()
    """Prompts of a Langfuse project."""

    _added_models: frozenset[str] = PrivateAttr(default=frozenset())
    _problems: tuple[str, ...] = PrivateAttr(default=())

    @property
    def added_models(self) -> frozenset[str]:
        """Names of the models that are not in the file: `settings/drop_ins.py` added them."""
        return self._added_models

    @property
    def problems(self) -> tuple[str, ...]:
        """Why added models are not in force, a line each."""
        return self._problems

    def with_models(self, added: Sequence[ModelConfig], problems: Sequence[str] = ()) -> Self:
        """This configuration with models at the end of its own, replacing those of the same names. Raises
        ValidationError."""
        names = frozenset(model.name for model in added)
        given = {name: getattr(self, name) for name in self.model_fields_set}
        given["models"] = (*(model for model in self.models if model.name not in names), *added)
        config = type(self).model_validate(given)
        config._added_models, config._problems = names, tuple(problems)
        return config

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        seen: set[str] = set()
        for model in self.models:
            adapters = [a.name for a in model.engine.adapters] if model.engine else []
            for name in (model.name, *model.aliases, *adapters):
                if name in seen:
                    raise DuplicateNameError(name)
                if name.startswith(MODEL_PREFIX):
                    raise ReservedNameError(name)
                seen.add(name)
        for route in self.routes:
            if route.name in seen:
                raise DuplicateNameError(route.name)
            if route.name.startswith(MODEL_PREFIX):
                raise ReservedNameError(route.name)
            seen.add(route.name)
        if self.moderations is not None and self.moderations.model not in seen:
            raise MisplacedValueError(("moderations", "model"), f"unknown model or route {self.moderations.model!r}")
        return self

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Self:
        known = {adapter.name for model in self.models if model.engine for adapter in model.engine.adapters}
        known |= {model.name for model in self.models}
        for number, route in enumerate(self.routes):
            places: list[tuple[tuple[str | int, ...], str]] = []
            places += [(("targets", at, "model"), each.model) for at, each in enumerate(route.targets)]
            places += [(("fallbacks", at, "model"), each.model) for at, each in enumerate(route.fallbacks)]
            if route.mirror:
                places.append((("mirror", "model"), route.mirror.model))
            for where, name in places:
                if name not in known:
                    raise MisplacedValueError(("routes", number, *where), f"unknown model or adapter {name!r}")
        return self

    @model_validator(mode="after")
    def _sessions_can_be_seen(self) -> Self:
        chosen: list[tuple[tuple[str | int, ...], RoutingConfig | None]] = []
        chosen += [(("models", at, "routing", "session"), model.routing) for at, model in enumerate(self.models)]
        chosen += [(("routes", at, "routing", "session"), route.routing) for at, route in enumerate(self.routes)]
        for where, routing in chosen:
            kind, _, header = routing.session.partition(":") if routing else ("", "", "")
            if kind == "header" and header not in self.gateway.forward_headers:
                raise MisplacedValueError(where, f"header {header!r} is not in gateway.forward_headers")
        return self
