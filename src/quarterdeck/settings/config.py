"""quarterdeck.yaml: its shape, and how it is read.

A mistake is reported with the file's line, as a compiler does: `quarterdeck.yaml:7: models[0].price.input: …`.
"""

import re
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from quarterdeck.settings.cache import CacheConfig
from quarterdeck.settings.limits import Limits
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.routes import QueueConfig, RouteConfig, RoutingConfig
from quarterdeck.settings.tenancy import KeyConfig, OrgConfig, TeamConfig, TeamName


class ConfigError(ValueError):
    """The file can't be used; the message says which lines, one problem a line."""


_HEADER_NAME = re.compile(r"[a-z0-9!#$%&'*+.^_`|~-]+")
_NEVER_FORWARDED = frozenset(
    {
        # of one connection, or of the message's framing: the engine client writes its own
        *("connection", "content-length", "content-type", "expect", "host", "keep-alive", "te", "trailer"),
        *("transfer-encoding", "upgrade", "accept", "accept-encoding", "content-encoding", "x-request-id"),
        # secrets of the caller's
        *("authorization", "proxy-authorization", "cookie", "x-api-key", "api-key"),
    }
)


class NameTwiceError(ValueError):
    """Two models, aliases, adapters or routes have one name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"the name {name!r} is given twice among models, aliases, adapters and routes")
        self.name = name


class ElsewhereError(ValueError):
    """Something deeper in the file does not go with the rest of it; `where` is its place, as pydantic says it."""

    def __init__(self, where: tuple[str | int, ...], message: str) -> None:
        super().__init__(message)
        self.where = where


class GatewayConfig(BaseModel):
    """Time-outs and bounds of the gateway."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    max_body_mb: PositiveInt = 4
    """The largest request body, in MiB. 4: a 128k-token prompt with room; a larger one is 413."""
    connect_timeout_seconds: PositiveFloat = 2
    """To open a connection to an endpoint. Short: endpoints are near, and another one may be tried."""
    first_token_timeout_seconds: PositiveFloat = 120
    """From the request to the answer's first byte. Long prompts in long queues take time; a hung engine must end."""
    idle_timeout_seconds: PositiveFloat = 60
    """Between two pieces of a stream. vLLM sends a token every few ms; a minute of silence is a dead engine."""
    total_timeout_seconds: PositiveFloat = 900
    """A whole request. Bounds what a forgotten stream can hold."""
    client_body_timeout_seconds: PositiveFloat = 60
    """A request whose body is not whole after so long is 408. Bounds what a client that sends byte by byte can hold."""
    client_write_timeout_seconds: PositiveFloat = 60
    """A client that reads nothing for so long is hung up on; until then it is waited for with bounded memory."""
    drain_seconds: NonNegativeFloat = 30
    """After SIGTERM: how long requests under way may go on. `/readyz` turns 503 at once."""
    redis_timeout_seconds: PositiveFloat = 0.25
    """How long an admission waits for Redis before `on_redis_down` decides."""
    on_redis_down: str = Field(default="allow", pattern="^(allow|deny)$")
    """allow: requests go on within `redis_down_share` and are recorded in the spool; deny: 503.

    A budget that denies is 503 either way: what others spend meanwhile is unknown.
    """
    redis_down_share: float = Field(default=0.1, gt=0, le=1)
    """The part of each limit that one gateway lets pass by itself while Redis is away, at least 1.

    0.1: with up to ten gateways no limit is exceeded. 1 where there is one gateway.
    """
    max_waiting_records: NonNegativeInt = 100_000
    """Records that may wait for the worker (some 100 MB of Redis) before requests with a budget are 503. 0: any number.

    What a budget has left is rebuilt from ledger and stream, so the stream must stay readable; nothing is dropped.
    """
    reservation_lease_seconds: float = Field(default=60, ge=1)
    """How long a request under way outlives its gateway's last sign of life before it is settled as lost.

    60: a gateway that pauses for less is not robbed of its requests. It renews each third of it.
    """
    max_in_flight: PositiveInt = 2048
    """Requests under way in one gateway; the next one is 503 with Retry-After. Bounds memory."""
    retries: int = Field(default=2, ge=0, le=5)
    """Other endpoints tried when one fails before its first byte."""
    resumes: int = Field(default=2, ge=0, le=5)
    """How often another endpoint may go on with an answer whose endpoint was lost in mid-stream. 0: never.

    2: the second engine may be lost as well, as in a rolling restart; more losses in one answer are no accident.
    """
    media_domains: tuple[str, ...] = ()
    """Hosts from which an engine may fetch what a message names by address (`image_url` and its like); `*`: any.

    None: pictures and sounds come as `data:`. An engine fetches from inside the cluster, so an address is a way in.
    """
    forward_headers: tuple[str, ...] = ()
    """The client's headers that an engine may see, by name. None: an engine learns nothing of a caller but the body.

    `x-fault` for the simulated engine's faults, in tests. What belongs to one connection or holds a secret is refused.
    """

    @field_validator("forward_headers")
    @classmethod
    def _may_be_forwarded(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        lower = tuple(name.lower() for name in names)
        for name in lower:
            if name in _NEVER_FORWARDED or not _HEADER_NAME.fullmatch(name):
                raise ValueError(f"the header {name!r} can't be forwarded")
        return lower


class TelemetryConfig(BaseModel):
    """What a trace says beside the request itself."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    environment: str = Field(default="default", pattern=r"^[a-z0-9_-]{1,40}$")
    """Langfuse's environment: `production`, `staging`."""
    service_name: str = "quarterdeck"
    """OpenTelemetry's `service.name`."""


class Config(BaseModel):
    """quarterdeck.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    models: tuple[ModelConfig, ...]
    """Whom the platform serves."""
    routes: tuple[RouteConfig, ...] = ()
    """Public names that are more than one model: canaries, fallbacks, mirrors."""
    queue: QueueConfig = QueueConfig()
    """Who waits when a model's endpoints are full, or not there yet."""
    limits: Limits = Limits()
    """What a key may take when nothing else is said of it."""
    keys: dict[str, KeyConfig] = Field(default_factory=dict)
    """Keys by name: what they may take instead."""
    teams: dict[TeamName, TeamConfig] = Field(default_factory=dict)
    """Teams by name: what their keys may take together."""
    org: OrgConfig | None = None
    """What all keys may take together. None: what the admin API says of it."""
    gateway: GatewayConfig = GatewayConfig()
    """Time-outs and bounds of the gateway."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """What traces are labelled with."""
    cache: CacheConfig = CacheConfig()
    """Whose answers are kept and given again."""

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        seen: set[str] = set()
        for model in self.models:
            adapters = [a.name for a in model.engine.adapters] if model.engine else []
            for name in (model.name, *model.aliases, *adapters):
                if name in seen:
                    raise NameTwiceError(name)
                seen.add(name)
        for route in self.routes:
            if route.name in seen:
                raise NameTwiceError(route.name)
            seen.add(route.name)
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
                    raise ElsewhereError(("routes", number, *where), f"there is no model or adapter {name!r}")
        return self

    @model_validator(mode="after")
    def _sessions_can_be_seen(self) -> Self:
        chosen: list[tuple[tuple[str | int, ...], RoutingConfig | None]] = []
        chosen += [(("models", at, "routing", "session"), model.routing) for at, model in enumerate(self.models)]
        chosen += [(("routes", at, "routing", "session"), route.routing) for at, route in enumerate(self.routes)]
        for where, routing in chosen:
            kind, _, header = routing.session.partition(":") if routing else ("", "", "")
            if kind == "header" and header not in self.gateway.forward_headers:
                raise ElsewhereError(where, f"the header {header!r} is not among gateway.forward_headers")
        return self


def load(path: Path) -> Config:
    """Read and validate the file. Raises ConfigError with `file:line: where: what` for each problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return parse(text, path.name)


def parse(text: str, filename: str = "quarterdeck.yaml") -> Config:
    """Validate the text of a quarterdeck.yaml; `filename` is only for messages."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (ValueError, RecursionError) as error:  # a date that is none; a document that holds itself
        raise ConfigError(f"{filename}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{mark.line + 1}: " if mark else " "
        raise ConfigError(f"{filename}:{line}{getattr(error, 'problem', None) or error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{filename}:1: a mapping with `models:` is expected")
    try:
        twice = _duplicate_keys(node)
    except RecursionError as error:
        raise ConfigError(f"{filename}: the document holds itself, or is nested too deeply") from error
    if twice:
        raise ConfigError("\n".join(f"{filename}:{line}: {key}: is given twice" for key, line in twice))
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_line_of(problem, node, filename) for problem in error.errors())) from error


def _duplicate_keys(node: yaml.Node | None) -> list[tuple[str, int]]:
    """YAML keeps the last of two equal keys in silence; a limit written twice is a mistake someone should see."""
    found: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                found.append((key.value, key.start_mark.line + 1))
            seen.add(key.value)
            found += _duplicate_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            found += _duplicate_keys(value)
    return found


def _line_of(problem: Any, node: yaml.Node | None, filename: str) -> str:
    """Walk the YAML tree along pydantic's location as far as both agree."""
    where, line = "", 1
    cause = problem.get("ctx", {}).get("error")
    for part in cause.where if isinstance(cause, ElsewhereError) else problem["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
        if (step := _child(node, part)) is not None:
            node, line = step
    if isinstance(cause, NameTwiceError):  # it is about the whole file; the line is where the name stands again
        where, line = "models", _names(node, cause.name)[-1]
    message = problem["msg"].removeprefix("Value error, ")
    return f"{filename}:{line}: {where.lstrip('.') or 'file'}: {message}"


def _names(node: yaml.Node | None, name: str) -> list[int]:
    """The lines on which something is given this name, from above."""
    found: list[int] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            named = value.value if key.value == "aliases" and isinstance(value, yaml.SequenceNode) else [value]
            if key.value in ("name", "aliases"):
                found += [item.start_mark.line + 1 for item in named if item.value == name]
            else:
                found += _names(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            found += _names(value, name)
    return found


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, int] | None:
    """The value under a key or an index, and the line on which the key (or the item) stands."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None
