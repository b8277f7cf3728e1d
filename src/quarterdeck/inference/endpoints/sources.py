"""Where endpoints come from. Each source keeps its own set up to date; `registry` joins them.

* `StaticEndpoints`  the `endpoints:` of the configuration
* `PolledEndpoints`  the engine door's `GET /endpoints`

In a cluster there is a third one, `gateway/cluster/endpoints`.

A source builds an index by name whenever its set changes, so that a request doesn't scan all endpoints. An endpoint
that stays in the set keeps its load and its breaker.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Protocol

import msgspec

from quarterdeck.inference.endpoints.endpoint import Endpoint, EndpointSpec, State
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin, request_head
from quarterdeck.settings.config import Config
from quarterdeck.settings.files import TRANSIENT, read_file
from quarterdeck.settings.live import Live
from quarterdeck.settings.loading import ConfigError
from quarterdeck.settings.models import EndpointConfig, ModelConfig
from quarterdeck.settings.source import Stamp, stamp

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
POLL_TIMEOUTS = Timeouts(connect=2.0, first_byte=5.0, idle=5.0)
MAX_KEY_BYTES = 64 * 1024
"""Of an `api_key_file`."""
KEY_POLL_SECONDS = 5.0
"""Between two looks at the files of API keys."""
MAX_LISTING_BYTES = 4 * 1024 * 1024

Index = Mapping[str, tuple[Endpoint, ...]]
"""The endpoints that are ready, by every name they serve."""


class EndpointSource(Protocol):
    """Keeps a set of endpoints."""

    index: Index
    """Replaced when the set changes, never modified."""
    unavailable: Mapping[str, str]
    """Why no endpoint will become ready, by the name of the model or adapter. Others are waited for."""
    statuses: Mapping[str, ModelStatus]
    """What the source says of models as a whole, by name. Empty: nothing."""

    def all(self) -> Sequence[Endpoint]:
        """Every endpoint in any state."""
        ...

    async def run(self) -> None:
        """Follow the source until cancelled."""
        ...


def updated(known: Iterable[Endpoint], specs: Iterable[EndpointSpec]) -> list[Endpoint]:
    """The endpoints of `specs`. One that is known keeps its load and breaker; on a new server it starts anew."""
    by_id = {endpoint.id: endpoint for endpoint in known}
    found = []
    for spec in specs:
        endpoint = by_id.get(spec.id)
        if endpoint is None or not endpoint.spec.is_same_server(spec):
            endpoint = Endpoint(spec)
        else:
            endpoint.update(spec)
        found.append(endpoint)
    return found


def indexed(endpoints: Iterable[Endpoint], before: Index | None = None) -> Index:
    """Index a set. Parts that are equal to those of `before` are kept, as rings are built for them."""
    found: dict[str, list[Endpoint]] = {}
    for endpoint in endpoints:
        if endpoint.spec.state == "ready":
            for name in {endpoint.spec.model, *endpoint.spec.adapters, *endpoint.spec.other_names}:
                found.setdefault(name, []).append(endpoint)
    return joined([{name: tuple(each) for name, each in found.items()}], before or {})


def joined(parts: Sequence[Index], before: Index) -> Index:
    """Join several indexes. Parts that are equal to those of `before` are kept."""
    found: dict[str, tuple[Endpoint, ...]] = {}
    for part in parts:
        for name, endpoints in part.items():
            found[name] = found.get(name, ()) + endpoints
    for name, endpoints in found.items():
        if before.get(name) == endpoints:
            found[name] = before[name]
    return found


class StaticEndpoints:
    """The endpoints that the configuration names. They are taken to be ready; failures and health checks eject them,
    and `problem` says what their configuration lacks."""

    def __init__(
        self, config: Live[Config], variables: Mapping[str, str], *, key_poll_seconds: float = KEY_POLL_SECONDS
    ) -> None:
        """`variables`: the environment, for `api_key_env`."""
        self._config, self._variables, self._key_poll_seconds = config, variables, key_poll_seconds
        self._stamps: dict[str, Stamp | None] = {}
        self._endpoints: list[Endpoint] = []
        self.index: Index = {}
        self.unavailable: Mapping[str, str] = {}
        self.statuses: Mapping[str, ModelStatus] = {}
        self._read(config.current)
        config.subscribe(self._read)

    def all(self) -> Sequence[Endpoint]:
        return self._endpoints

    def _read(self, config: Config) -> None:
        """Follow a new configuration. Keys are read again from files and environment."""
        # Before the files are read: a change in between is seen by the next poll.
        self._stamps = {
            endpoint.api_key_file: stamp(Path(endpoint.api_key_file))
            for model in config.models
            for endpoint in model.endpoints
            if endpoint.api_key_file is not None
        }
        specs = [self._spec(model, endpoint) for model in config.models for endpoint in model.endpoints]
        self._endpoints = updated(self._endpoints, specs)
        self.index = indexed(self._endpoints, self.index)

    async def run(self) -> None:
        """Read keys again when their files change. A mounted Secret changes without the configuration, and may appear a
        minute after it."""
        while True:
            await asyncio.sleep(self._key_poll_seconds)
            if not self._stamps or not await asyncio.to_thread(self._keys_have_changed):
                continue
            log.info("API keys of endpoints have changed")
            try:
                self._read(self._config.current)
            except ConfigError as error:  # not readable at the moment: the next poll tries again
                self._stamps = dict.fromkeys(self._stamps)
                log.warning("%s", error)

    def _keys_have_changed(self) -> bool:
        return any(stamp(Path(file)) != seen for file, seen in list(self._stamps.items()))

    def _spec(self, model: ModelConfig, endpoint: EndpointConfig) -> EndpointSpec:
        key, problem = self._api_key(endpoint)
        if problem:
            log.warning("%s: %s", model.name, problem)
        return EndpointSpec(
            id=f"{model.name}@{endpoint.url}",
            model=model.name,
            url=endpoint.base_url,
            max_running=endpoint.max_running,
            upstream_model=endpoint.model,
            api_key=key,
            problem=problem,
            is_probed=True,
            kind=endpoint.kind,
            headers=tuple(endpoint.headers.items()),
            health=endpoint.health,
            query=endpoint.query,
            key_header=endpoint.key_header,
            sends=frozenset(endpoint.send),
            omits=frozenset(endpoint.omit),
            proxy=endpoint.proxy,
        )

    def _api_key(self, endpoint: EndpointConfig) -> tuple[str | None, str]:
        """The key, and why there is none although one is configured. Stripped: a secret read from a file often ends
        with a line break. Raises ConfigError where the file can't be read at the moment: a reload must not take a key
        away for that."""
        if endpoint.api_key_file is not None:
            try:
                key = read_file(endpoint.api_key_file, MAX_KEY_BYTES).decode("ascii").strip()
            except (OSError, UnicodeDecodeError) as error:
                # Never a decoding error itself: it quotes the file's content.
                why = error.strerror if isinstance(error, OSError) else "not ASCII"
                if isinstance(error, OSError) and error.errno in TRANSIENT:
                    raise ConfigError(f"can't read api_key_file {endpoint.api_key_file}: {why}") from error
                return None, f"can't read api_key_file {endpoint.api_key_file}: {why}"
            return key or None, "" if key else f"api_key_file {endpoint.api_key_file} is empty"
        if endpoint.api_key_env is None:
            return None, ""
        key = self._variables.get(endpoint.api_key_env, "").strip()
        return key or None, "" if key else f"environment variable {endpoint.api_key_env} is not set"


class ListedEndpoint(msgspec.Struct, frozen=True):
    """A row of the engine door's `GET /endpoints`."""

    id: str
    model: str
    state: State
    url: str = ""
    adapters: list[str] | dict[str, str] = []
    """Names, or the engine's names by public name."""
    failed_adapters: dict[str, str] = {}
    version: str = ""
    max_running: Annotated[int, msgspec.Meta(ge=1)] = 64
    task: str = "generate"
    detail: str = ""

    def spec(self) -> EndpointSpec:
        return EndpointSpec(
            id=self.id,
            model=self.model,
            url=self.url,
            state=self.state,
            adapters=frozenset(self.adapters),
            engine_names=self.adapters if isinstance(self.adapters, dict) else {},
            failed_adapters=self.failed_adapters,
            version=self.version,
            max_running=self.max_running,
            task=self.task,
            detail=self.detail,
        )


class Listing(msgspec.Struct, frozen=True):
    """The answer to `GET /endpoints`."""

    endpoints: list[ListedEndpoint]
    models: list[ModelStatus] = []
    """Of a door that starts models by itself."""


class PolledEndpoints:
    """The endpoints that the engine door lists. While it doesn't answer, the last good list stays in force."""

    def __init__(
        self,
        url: str,
        client: HttpClient,
        *,
        interval: float = POLL_SECONDS,
        translate: Callable[[EndpointSpec], EndpointSpec | None] = lambda spec: spec,
        on_change: Callable[[], None] = lambda: None,
    ) -> None:
        """`interval`: seconds between two polls. `translate` makes our spec of a listed one; None: it is left out.
        `on_change` is called when the index was replaced."""
        self._translate = translate
        self._on_change = on_change
        self._origin = Origin.parse(url)
        self._head = request_head("GET", self._origin, "/endpoints", [(b"content-length", b"0")]) + b"\r\n"
        self._client = client
        self._interval = interval
        self._endpoints: list[Endpoint] = []
        self.index: Index = {}
        self.unavailable: Mapping[str, str] = {}
        self.statuses: Mapping[str, ModelStatus] = {}
        self._is_reachable = True

    def all(self) -> Sequence[Endpoint]:
        return tuple(self._endpoints)

    async def run(self) -> None:
        """Poll until cancelled."""
        while True:
            try:
                listing = await self._fetch()
                self._endpoints = listed(self._endpoints, listing.endpoints, self._translate)
                self.statuses = {each.name: each for each in listing.models}
                self.unavailable = {each.name: why for each in listing.models if (why := why_unavailable(each))}
                index = indexed(self._endpoints, self.index)
                if index != self.index:
                    self.index = index
                    self._on_change()
                self._log_change(is_reachable=True)
            except (UpstreamError, msgspec.DecodeError, ValueError, RecursionError) as error:
                # ValueError: bytes that are not UTF-8, or a malformed URL.
                self._log_change(is_reachable=False, why=str(error))
            await asyncio.sleep(self._interval)

    async def _fetch(self) -> Listing:
        connection = await self._client.request(self._origin, self._head, b"", POLL_TIMEOUTS)
        try:
            body = await connection.read_all(MAX_LISTING_BYTES)
        finally:
            self._client.release(self._origin, connection)
        if connection.status != 200:
            raise UpstreamError(f"status {connection.status}", sent=True, answered=True)
        return msgspec.json.decode(body, type=Listing)

    def _log_change(self, *, is_reachable: bool, why: str = "") -> None:
        """One line per change, not one per poll."""
        if is_reachable is not self._is_reachable:
            self._is_reachable = is_reachable
            if is_reachable:
                log.info("engine door reachable again")
            else:
                log.warning("engine door unreachable, keeping its last endpoint list: %s", why)


def why_unavailable(status: ModelStatus) -> str:
    """Why a model will not be ready soon, in a sentence. Empty: it will, or it is."""
    if status.state == "failed":
        return f"{status.detail[:1].upper()}{status.detail[1:].rstrip('.')}."
    return "It is stopped." if status.state == "stopped" else ""


def listed(
    known: Iterable[Endpoint],
    rows: Iterable[ListedEndpoint],
    translate: Callable[[EndpointSpec], EndpointSpec | None] = lambda spec: spec,
) -> list[Endpoint]:
    """The endpoints of a listing; of rows with the same id, the last counts."""
    specs = {row.id: translate(row.spec()) for row in rows}
    return updated(known, [spec for spec in specs.values() if spec is not None])
