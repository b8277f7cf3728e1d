"""Who answers for a model, right now.

Sources keep the set (`StaticEndpoints`: the configuration; `PolledEndpoints`: the engine door, each second), and an
index of it by name that is made anew when the set changes: a request looks nobody over who does not serve its model.
What failures do to an endpoint is `routing/health`'s to say; here it is only remembered.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal, Protocol

import msgspec

from quarterdeck.net.http_client import HttpClient, Origin, Timeouts, UpstreamError, request_head
from quarterdeck.settings.config import Config
from quarterdeck.settings.models import EndpointConfig, EndpointKind
from quarterdeck.settings.routes import HealthCheck

State = Literal["starting", "ready", "draining"]

log = logging.getLogger(__name__)

Index = Mapping[str, tuple["Endpoint", ...]]
"""Those that are ready, by each name they serve."""


@dataclass(slots=True, eq=False)
class Endpoint:
    """A server that answers for a model, and what this gateway knows of it."""

    id: str
    model: str
    url: str
    state: State
    adapters: frozenset[str] = frozenset()
    max_running: int = 64
    task: str = "generate"
    detail: str = ""
    upstream_model: str | None = None
    """The model's name over there, where it is another."""
    api_key: str | None = field(default=None, repr=False)
    kind: EndpointKind = "vllm"
    headers: tuple[tuple[str, str], ...] = ()
    """What every request there carries beside the key."""
    health: HealthCheck | None = None
    """How it is asked whether it lives. None: it is not."""
    is_alive: bool = True
    """What the last health checks said."""
    in_flight: int = 0
    in_flight_tokens: int = 0
    """Estimated, of this gateway's requests under way."""
    failures: int = 0
    """In a row."""
    calls: int = 0
    failure_share: float = 0.0
    """Of its last calls, the latest counting most."""
    rests: int = 0
    """How often it was put to rest."""
    ejections: int = 0
    """The same, since it is known: never taken back."""
    rests_until: float = 0.0
    """The loop's time until which it is offered only if nobody else is there. Past, and not 0: it is half-open."""
    avoided_until: float = 0.0
    """The loop's time until which it is taken for fuller than it looks: it has just failed."""
    probed_until: float = 0.0
    """Until when the one request that tries a half-open one keeps others away."""

    def __post_init__(self) -> None:
        self.origin = Origin.parse(self.url)
        self.heads: dict[str, bytes] = {}

    origin: Origin = field(init=False, repr=False)
    heads: dict[str, bytes] = field(init=False, repr=False)
    """Request heads by path, built once."""

    def head(self, path: str) -> bytes:
        """The request line and headers for a POST of JSON to `path`."""
        if (head := self.heads.get(path)) is None:
            headers = [(b"content-type", b"application/json"), (b"accept", b"*/*"), *self.own_headers()]
            head = self.heads[path] = request_head("POST", self.origin, path, headers)
        return head

    def own_headers(self) -> list[tuple[bytes, bytes]]:
        """Its key, and what else it wants to see."""
        own = [(name.encode(), value.encode("latin-1")) for name, value in self.headers]
        return [(b"authorization", b"Bearer " + self.api_key.encode()), *own] if self.api_key else own

    def serves(self, name: str) -> bool:
        return name == self.model or name in self.adapters

    def begin(self, tokens: int) -> None:
        """A request of so many tokens goes there."""
        self.in_flight += 1
        self.in_flight_tokens += tokens

    def end(self, tokens: int) -> None:
        """It is over."""
        self.in_flight -= 1
        self.in_flight_tokens -= tokens


class Endpoints(Protocol):
    """What the pipeline needs of whoever knows the endpoints."""

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint there is, in any state."""
        ...

    def serving(self, name: str) -> Sequence[Endpoint]:
        """Those that are ready for a model or an adapter. The same object as long as the set is the same."""
        ...


class Source(Protocol):
    """One that keeps a set."""

    index: Index
    """Replaced, never changed."""

    def all(self) -> Sequence[Endpoint]: ...


def indexed(endpoints: Iterable[Endpoint], before: Index | None = None) -> Index:
    """The index of a set; `before`'s parts are kept where they are the same."""
    found: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        if endpoint.state == "ready":
            for name in {endpoint.model, *endpoint.adapters}:
                found.setdefault(name, []).append(endpoint)
    return _merged([{name: tuple(each) for name, each in found.items()}], before or {})


def _merged(parts: Sequence[Index], before: Index) -> Index:
    merged: dict[str, tuple[Endpoint, ...]] = {}
    for part in parts:
        for name, endpoints in part.items():
            merged[name] = merged.get(name, ()) + endpoints
    for name, endpoints in merged.items():
        if before.get(name) == endpoints:
            merged[name] = before[name]
    return merged


class StaticEndpoints:
    """Those that the configuration names. They are taken to be ready; passive health finds out who isn't."""

    def __init__(
        self, config: Config, variables: Mapping[str, str], *, before: "StaticEndpoints | None" = None
    ) -> None:
        """`before` is what a reload replaces: an endpoint that is still the same keeps its load and its failures."""
        known = {endpoint.id: endpoint for endpoint in before.all()} if before else {}
        self._endpoints = [
            _kept(
                known,
                Endpoint(
                    id=f"{model.name}@{endpoint.url}",
                    model=model.name,
                    url=endpoint.url,
                    state="ready",
                    max_running=endpoint.max_running,
                    upstream_model=endpoint.model,
                    api_key=_key(endpoint, variables),
                    kind=endpoint.kind,
                    headers=tuple(endpoint.headers.items()),
                    health=endpoint.health,
                ),
            )
            for model in config.models
            for endpoint in model.endpoints
        ]
        self.index: Index = indexed(self._endpoints, before.index if before else None)

    def all(self) -> Sequence[Endpoint]:
        return self._endpoints


def _key(endpoint: EndpointConfig, variables: Mapping[str, str]) -> str | None:
    """The key for over there. A secret that was read from a file often ends with a line's end."""
    if endpoint.api_key_file is not None:
        try:
            return Path(endpoint.api_key_file).read_text(encoding="ascii").strip() or None
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror if isinstance(error, OSError) else "it is no ASCII"  # never a piece of what it holds
            log.warning("%s: the key's file %s can't be read: %s", endpoint.url, endpoint.api_key_file, why)
            return None
    return variables.get(endpoint.api_key_env, "").strip() or None if endpoint.api_key_env else None


def _kept(known: Mapping[str, Endpoint], new: Endpoint) -> Endpoint:
    old = known.get(new.id)
    if old is None or _identity(old) != _identity(new):
        return new
    old.max_running, old.health = new.max_running, new.health
    old.is_alive = old.is_alive or new.health is None
    return old


def _identity(endpoint: Endpoint) -> tuple[object, ...]:
    return endpoint.upstream_model, endpoint.api_key, endpoint.kind, endpoint.headers


class Listed(msgspec.Struct, frozen=True):
    """A row of the engine door's `GET /endpoints`."""

    id: str
    model: str
    state: State
    url: str = ""
    adapters: list[str] = []
    max_running: Annotated[int, msgspec.Meta(ge=1)] = 64
    task: str = "generate"
    detail: str = ""


class Listing(msgspec.Struct, frozen=True):
    endpoints: list[Listed]


class PolledEndpoints:
    """What the engine door lists, asked each second; while it does not answer, the last good answer holds."""

    def __init__(self, url: str, client: HttpClient, *, interval: float = 1.0) -> None:
        self._origin = Origin.parse(url)
        self._head = request_head("GET", self._origin, "/endpoints", [(b"content-length", b"0")]) + b"\r\n"
        self._client = client
        self._interval = interval
        self._endpoints: dict[str, Endpoint] = {}
        self.index: Index = {}
        self._answers = True

    def all(self) -> Sequence[Endpoint]:
        return tuple(self._endpoints.values())

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                self._endpoints = merge(self._endpoints, await self._ask())
                index = indexed(self._endpoints.values(), self.index)
                if index != self.index:
                    self.index = index
                self._note(answers=True)
            except (UpstreamError, msgspec.DecodeError, ValueError, RecursionError) as error:
                # ValueError: bytes that are no UTF-8, an address that is none.
                self._note(answers=False, why=str(error))
            await asyncio.sleep(self._interval)

    async def _ask(self) -> list[Listed]:
        connection = await self._client.request(self._origin, self._head, b"", Timeouts(2.0, 5.0, 5.0))
        try:
            body = await connection.read_all(4 * 1024 * 1024)
        finally:
            self._client.release(self._origin, connection)
        if connection.status != 200:
            raise UpstreamError(f"the engine door answered {connection.status}", sent=True, answered=True)
        return msgspec.json.decode(body, type=Listing).endpoints

    def _note(self, *, answers: bool, why: str = "") -> None:
        """One line for each change, not one a second."""
        if answers is not self._answers:
            self._answers = answers
            if answers:
                log.info("the engine door answers again")
            else:
                log.warning("the engine door does not answer, its last list holds: %s", why)


def merge(known: Mapping[str, Endpoint], listed: Sequence[Listed]) -> dict[str, Endpoint]:
    """The new set. An endpoint that was known keeps what is under way and its failures; a new address is a new one."""
    merged: dict[str, Endpoint] = {}
    for row in listed:
        endpoint = known.get(row.id)
        if endpoint is None or endpoint.url != row.url:
            endpoint = Endpoint(row.id, row.model, row.url, row.state)
        endpoint.model, endpoint.state = row.model, row.state
        endpoint.adapters = frozenset(row.adapters)
        endpoint.max_running, endpoint.task, endpoint.detail = row.max_running, row.task, row.detail
        merged[row.id] = endpoint
    return merged


class JoinedEndpoints:
    """Several sources as one; `sources` is asked each time, so that a reloaded configuration is seen at once."""

    def __init__(self, sources: Callable[[], Sequence[Source]]) -> None:
        self._sources = sources
        self._parts: list[Index] = []
        self._index: Index = {}

    def all(self) -> Sequence[Endpoint]:
        return [endpoint for source in self._sources() for endpoint in source.all()]

    def serving(self, name: str) -> Sequence[Endpoint]:
        sources, parts = self._sources(), self._parts
        at = 0
        for source in sources:
            if at == len(parts) or source.index is not parts[at]:
                break
            at += 1
        if at != len(sources) or at != len(parts):
            self._parts = [source.index for source in sources]
            self._index = _merged(self._parts, self._index)
        return self._index.get(name, ())
