"""Who answers for a model, right now.

Sources keep the set (`StaticEndpoints`: the configuration; `PolledEndpoints`: the engine door, each second); the engine
client reports failures into it. An endpoint that failed three times in a row rests for ten seconds: it is still listed,
only offered last.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Literal, Protocol

import msgspec

from quarterdeck.inference.http1 import HttpClient, Origin, Timeouts, UpstreamError, request_head
from quarterdeck.settings.config import Config

State = Literal["starting", "ready", "draining"]

log = logging.getLogger(__name__)

FAILURES_TO_REST = 3
REST_SECONDS = 10.0


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
    in_flight: int = 0
    failures: int = 0
    rests_until: float = 0.0
    """The loop's time until which it is offered only if nobody else is there."""

    def __post_init__(self) -> None:
        self.origin = Origin.parse(self.url)
        self.heads: dict[str, bytes] = {}

    origin: Origin = field(init=False, repr=False)
    heads: dict[str, bytes] = field(init=False, repr=False)
    """Request heads by path, built once."""

    def head(self, path: str) -> bytes:
        """The request line and headers for a POST of JSON to `path`."""
        if (head := self.heads.get(path)) is None:
            headers = [(b"content-type", b"application/json"), (b"accept", b"*/*")]
            if self.api_key:
                headers.append((b"authorization", b"Bearer " + self.api_key.encode()))
            head = self.heads[path] = request_head("POST", self.origin, path, headers)
        return head

    def serves(self, name: str) -> bool:
        return name == self.model or name in self.adapters


class Endpoints(Protocol):
    """What the pipeline needs of whoever knows the endpoints."""

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint there is, in any state."""
        ...


def report_failure(endpoint: Endpoint, now: float) -> None:
    """A call failed by the endpoint's fault. `now` is the loop's time."""
    endpoint.failures += 1
    if endpoint.failures >= FAILURES_TO_REST:
        endpoint.rests_until = now + REST_SECONDS


def report_success(endpoint: Endpoint) -> None:
    endpoint.failures = 0
    endpoint.rests_until = 0.0


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
                    # A secret that was read from a file often ends with a line's end.
                    api_key=variables.get(endpoint.api_key_env, "").strip() or None if endpoint.api_key_env else None,
                ),
            )
            for model in config.models
            for endpoint in model.endpoints
        ]

    def all(self) -> Sequence[Endpoint]:
        return self._endpoints


def _kept(known: Mapping[str, Endpoint], new: Endpoint) -> Endpoint:
    old = known.get(new.id)
    if old is None or (old.upstream_model, old.api_key) != (new.upstream_model, new.api_key):
        return new
    old.max_running = new.max_running
    return old


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
        self._answers = True

    def all(self) -> Sequence[Endpoint]:
        return tuple(self._endpoints.values())

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                self._endpoints = merge(self._endpoints, await self._ask())
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

    def __init__(self, sources: Callable[[], Sequence[Endpoints]]) -> None:
        self._sources = sources

    def all(self) -> Sequence[Endpoint]:
        return [endpoint for source in self._sources() for endpoint in source.all()]
