"""An endpoint: a server that answers for a model, and what this gateway knows about it.

Five parts, each changed by one owner:

* `spec`     what its source says about it; replaced by `sources`
* `address`  where it listens and the request heads for it; never changes
* `load`     this gateway's running requests there; counted by `attempts` and `mirror`
* `breaker`  whether it is offered requests; updated by routing and by `health_checks`
* `context`  its model's context in tokens; read by `contexts`
"""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from quarterdeck.inference.endpoints.circuit_breaker import CircuitBreaker
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.net.http_origin import Origin, ProxyUse, request_head
from quarterdeck.protocol.dialects import Habits, learn
from quarterdeck.settings.models import EndpointKind
from quarterdeck.settings.routes import HealthCheck

log = logging.getLogger(__name__)

MAX_LEARNED = 8
"""How often an endpoint's habits are adapted: a server that contradicts itself must not be asked for ever."""
State = Literal["starting", "ready", "draining", "idle"]
"""idle: no replica runs, and a request that waits starts one."""


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
    other_names: frozenset[str] = frozenset()
    """Names of its model in an earlier or later configuration: requests that began under that find it too."""
    version: str = ""
    """The fingerprint of its model's files. Empty: not known."""
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
    """Sent with every request besides the key."""
    health: HealthCheck | None = None
    """How its health is checked. None: it isn't."""
    is_probed: bool = False
    """Whether it is checked that connections can be opened, where `health` is None."""
    problem: str = ""
    """Why it can't serve as it is configured, such as a key that is not set."""
    query: str = ""
    """Query of every request (`api-version=…`), without the question mark."""
    key_header: str = "authorization"
    """The header that carries the key: `authorization`, as a bearer token, or another one."""
    sends: frozenset[str] = frozenset()
    """Members of vLLM's that a server of another kind knows as well."""
    omits: frozenset[str] = frozenset()
    """Members that it is not sent."""
    proxy: ProxyUse = "auto"
    """Whether it is reached through the environment's proxy."""

    def serves(self, name: str) -> bool:
        """Whether `name` is its model or one of its adapters."""
        return name == self.model or name in self.adapters or name in self.other_names

    def name_of(self, name: str) -> str | None:
        """Its name of a model or adapter. None: the same."""
        return self.upstream_model or (self.engine_names.get(name) if self.engine_names else None)

    def weights_of(self, name: str) -> str:
        """What identifies the weights behind a model or an adapter here. Empty: not known."""
        return self.engine_names.get(name, self.version) if name in self.adapters else self.version

    def is_same_server(self, other: "EndpointSpec") -> bool:
        """Whether both name the same server, called in the same way: load and failures then carry over."""
        return self._identity() == other._identity()

    @property
    def account(self) -> tuple[object, ...]:
        """What shares one allowance at a server that is not vLLM: the address and the key."""
        return (self.url, self.api_key, self.key_header, self.headers, self.query)

    def _identity(self) -> tuple[object, ...]:
        return (
            *(self.url, self.upstream_model, self.api_key, self.kind, self.headers, self.query, self.key_header),
            *(self.sends, self.omits, self.proxy),
        )


_VERSION = re.compile(r"/v\d+[a-z0-9]*(?:/|$)|/openai/deployments/[^/]+$")
"""A path that says its version itself: Gemini's `/v1beta/openai`, `/api/paas/v4`, a deployment of Azure's."""


class Address:
    """Where an endpoint listens, and the request heads for it, built once for each path."""

    __slots__ = ("_query", "_states_version", "headers", "heads", "origin")

    def __init__(self, spec: EndpointSpec) -> None:
        self.origin = Origin.parse(spec.url, spec.proxy)
        self._query = f"?{spec.query}" if spec.query else ""
        self._states_version = spec.kind != "vllm" and _VERSION.search(self.origin.prefix) is not None
        headers = [(name.encode(), value.encode("latin-1")) for name, value in spec.headers]
        if spec.api_key:
            key = spec.api_key.encode()
            is_bearer = spec.key_header == "authorization"
            headers.insert(0, (spec.key_header.encode(), b"Bearer " + key if is_bearer else key))
        if spec.kind != "vllm":
            headers.append((b"accept-encoding", b"identity"))
        self.headers = tuple(headers)
        """The endpoint's key and the headers its spec names."""
        self.heads: dict[str, bytes] = {}
        """By path; see `head`."""

    def head(self, path: str) -> bytes:
        """Request line and headers of a JSON POST to `path`, without `content-length` and the blank line."""
        if (head := self.heads.get(path)) is None:
            head = self.heads[path] = self.head_of(path, b"application/json")
        return head

    def head_of(self, path: str, content_type: bytes) -> bytes:
        """As `head`, for a POST of another content type. Not kept: a form has a new boundary each time."""
        headers = [(b"content-type", content_type), (b"accept", b"*/*"), *self.headers]
        there = path.removeprefix("/v1") if self._states_version else path
        return request_head("POST", self.origin, there + self._query, headers)


class Load:
    """This gateway's requests at an endpoint."""

    __slots__ = ("last_other", "of_batches", "requests", "tokens")

    def __init__(self, requests: int = 0, tokens: int = 0) -> None:
        self.requests = requests
        self.tokens = tokens
        """Estimated, prompt and output."""
        self.of_batches = 0
        """Requests of batches among them."""
        self.last_other = float("-inf")
        """When the last request that does not belong to a batch began. Unix seconds."""

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

    __slots__ = ("_refusals_learned", "address", "breaker", "context", "habits", "id", "load", "spec")

    def __init__(self, spec: EndpointSpec) -> None:
        self.id = spec.id
        self.spec = spec
        self.address = Address(spec)
        self.load = Load()
        self.breaker = CircuitBreaker()
        self.context: int | None = None
        """Prompt and answer together. None: not known."""
        self.habits = Habits(spec.sends, spec.omits)
        """What it is sent besides the rules of its kind."""
        self._refusals_learned = 0

    def learn(self, members: Mapping[str, object], message: str, param: str | None) -> bool:
        """Learn from a refusal of these members. Returns whether the request may be repeated in another form."""
        learned = learn(self.habits, members, message, param)
        if learned == self.habits or self._refusals_learned >= MAX_LEARNED:
            return False
        log.info("endpoint %s refuses %s; adapting", self.id, ", ".join(sorted(learned.refused)) or learned.cap)
        self.habits = learned
        self._refusals_learned += 1
        return True

    def __repr__(self) -> str:
        return f"Endpoint({self.id})"

    def update(self, spec: EndpointSpec) -> None:
        """Replace the spec by a newer one of the same server (`is_same_server`)."""
        was_checked, self.spec = self.spec.health is not None, spec
        if was_checked and spec.health is None:
            self.breaker.record_health(is_alive=True)


class Endpoints(Protocol):
    """What the request path needs to know about the endpoints."""

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint in any state."""
        ...

    def serving(self, name: str) -> Sequence[Endpoint]:
        """The endpoints that are ready for a model or an adapter. The same object as long as the set is the same."""
        ...

    def unavailable(self, name: str) -> str:
        """Why no endpoint will become ready for a model or an adapter, in a sentence. Empty: one may."""
        ...

    def status(self, name: str) -> ModelStatus | None:
        """What the engine's door says of a model as a whole. None: nothing."""
        ...
