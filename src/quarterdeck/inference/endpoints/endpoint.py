"""An endpoint: a server that answers for a model, and what this gateway knows about it.

Four parts, each changed by one owner:

* `spec`     what its source says about it; replaced by `sources`
* `address`  where it listens and the request heads for it; never changes
* `load`     this gateway's running requests there; counted by `attempts` and `mirror`
* `breaker`  whether it is offered requests; updated by routing and by `health_checks`
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from quarterdeck.inference.endpoints.circuit_breaker import CircuitBreaker
from quarterdeck.net.http_origin import Origin, request_head
from quarterdeck.settings.models import EndpointKind
from quarterdeck.settings.routes import HealthCheck

State = Literal["starting", "ready", "draining"]


@dataclass(frozen=True, slots=True)
class EndpointSpec:
    """What a source says about an endpoint."""

    id: str
    model: str
    url: str
    state: State = "ready"
    adapters: frozenset[str] = frozenset()
    """Names of the adapters it has loaded."""
    engine_names: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Its names of those adapters, where they differ. They carry the content's hash: equal names are equal weights."""
    failed_adapters: Mapping[str, str] = field(default_factory=dict, hash=False)
    """Why it lacks other adapters, by name."""
    max_running: int = 64
    """Requests it runs at once before it queues."""
    task: str = "generate"
    """generate or embed."""
    detail: str = ""
    """Why it is in this state, for readers of `/readyz`."""
    upstream_model: str | None = None
    """The model's name at the endpoint, if it differs."""
    api_key: str | None = field(default=None, repr=False)
    kind: EndpointKind = "vllm"
    headers: tuple[tuple[str, str], ...] = ()
    """Sent with every request beside the key."""
    health: HealthCheck | None = None
    """How its health is checked. None: it isn't."""

    def serves(self, name: str) -> bool:
        """Whether `name` is its model or one of its adapters."""
        return name == self.model or name in self.adapters

    def name_of(self, name: str) -> str | None:
        """Its name of a model or adapter. None: the same."""
        return self.upstream_model or (self.engine_names.get(name) if self.engine_names else None)

    def is_same_server(self, other: "EndpointSpec") -> bool:
        """Whether both name the same server, called in the same way: load and failures then carry over."""
        return self._identity() == other._identity()

    def _identity(self) -> tuple[object, ...]:
        return self.url, self.upstream_model, self.api_key, self.kind, self.headers


class Address:
    """Where an endpoint listens, and the request heads for it, built once for each path."""

    __slots__ = ("headers", "heads", "origin")

    def __init__(self, spec: EndpointSpec) -> None:
        self.origin = Origin.parse(spec.url)
        headers = [(name.encode(), value.encode("latin-1")) for name, value in spec.headers]
        if spec.api_key:
            headers.insert(0, (b"authorization", b"Bearer " + spec.api_key.encode()))
        self.headers = tuple(headers)
        """The endpoint's key and the headers its spec names."""
        self.heads: dict[str, bytes] = {}
        """By path; see `head`."""

    def head(self, path: str) -> bytes:
        """Request line and headers of a JSON POST to `path`, without `content-length` and the blank line."""
        if (head := self.heads.get(path)) is None:
            headers = [(b"content-type", b"application/json"), (b"accept", b"*/*"), *self.headers]
            head = self.heads[path] = request_head("POST", self.origin, path, headers)
        return head


class Load:
    """This gateway's requests at an endpoint."""

    __slots__ = ("requests", "tokens")

    def __init__(self, requests: int = 0, tokens: int = 0) -> None:
        self.requests = requests
        self.tokens = tokens
        """Estimated, prompt and output."""

    def begin(self, tokens: int) -> None:
        """Add a request of this many tokens."""
        self.requests += 1
        self.tokens += tokens

    def end(self, tokens: int) -> None:
        """Remove a request; `tokens` as given to `begin`."""
        self.requests -= 1
        self.tokens -= tokens


class Endpoint:
    """One endpoint for as long as its source lists it. Compared by identity."""

    __slots__ = ("address", "breaker", "id", "load", "spec")

    def __init__(self, spec: EndpointSpec) -> None:
        self.id = spec.id
        self.spec = spec
        self.address = Address(spec)
        self.load = Load()
        self.breaker = CircuitBreaker()

    def __repr__(self) -> str:
        return f"Endpoint({self.id})"

    def update(self, spec: EndpointSpec) -> None:
        """Replace the spec by a newer one of the same server (`is_same_server`)."""
        self.spec = spec
        if spec.health is None:
            self.breaker.record_health(is_alive=True)


class Endpoints(Protocol):
    """What the request path needs to know about the endpoints."""

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint in any state."""
        ...

    def serving(self, name: str) -> Sequence[Endpoint]:
        """The endpoints that are ready for a model or an adapter. The same object as long as the set is the same."""
        ...
