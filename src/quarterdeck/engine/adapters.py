"""LoRA adapters: which each model should have, which each replica has, and the calls that reconcile the two.

vLLM loads an adapter into one replica and forgets it when the replica ends. So the door keeps the desired adapters and
reconciles each second: a new or restarted replica gets those it lacks. An adapter that can't be loaded is retried, and
the endpoints say why it is missing; its model is served all the same.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

from quarterdeck.engine.adapter_store import Adapter, AdapterFilesError
from quarterdeck.engine.threads import in_thread
from quarterdeck.errors import APIError, BadRequestError, ConflictError, EngineError, NotFoundError

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 2.0
MAX_RETRY_SECONDS = 60.0
"""Between two attempts to load an adapter; doubled after each failure. A minute: a folder that was put back is noticed
soon, and a broken one costs little."""
RETIRE_SECONDS = 30.0
"""How long a replaced adapter stays loaded: until gateways have read the new list, and no request names the old one."""
COPY_SECONDS = 600.0
STAT_SECONDS = 30.0
PRUNE_SECONDS = 60.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}")


@dataclass(frozen=True, slots=True)
class Replica:
    """A ready replica. `key` changes with a restart."""

    key: str
    url: str


class Replicas(Protocol):
    """Loads and unloads adapters in a replica. Raises EngineError with the replica's reason."""

    async def load(self, url: str, adapter: Adapter) -> None: ...

    async def unload(self, url: str, engine_name: str) -> None: ...


class Store(Protocol):
    """Copies of adapters. All methods block."""

    def take(self, name: str, source: Path, roots: Sequence[Path] = ()) -> Adapter: ...

    def has(self, adapter: Adapter) -> bool: ...

    def prune(self, used: Collection[Path]) -> None: ...


@dataclass(slots=True)
class Retry:
    """A failure, and when the next attempt is due."""

    reason: str
    due: float
    delay: float = FIRST_RETRY_SECONDS

    @classmethod
    def after(cls, failure: "Retry | None", reason: str, now: float) -> "Retry":
        delay = min(MAX_RETRY_SECONDS, failure.delay * 2) if failure else FIRST_RETRY_SECONDS
        return cls(reason, now + delay, delay)


@dataclass(slots=True)
class DesiredAdapter:
    """An adapter that a model should have."""

    name: str
    source: Path
    roots: Sequence[Path] = ()
    """Where its files must be. Empty: anywhere, as the configuration names it."""
    copy: Adapter | None = None
    failure: Retry | None = None
    """Why there is no copy."""


@dataclass(slots=True)
class _Loaded:
    """The adapters of one replica."""

    current: dict[str, Adapter] = field(default_factory=dict)
    """By public name."""
    retired: dict[str, float] = field(default_factory=dict)
    """Replaced ones by engine name, and when to unload them."""
    refused: dict[str, Retry] = field(default_factory=dict)
    """By engine name."""


class Adapters:
    """The desired adapters of each model, and the loaded ones of each replica."""

    def __init__(
        self,
        replicas: Replicas,
        capacity: Mapping[str, int],
        roots: Sequence[Path],
        store: Store,
        *,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`capacity`: how many adapters each model takes; 0 if LoRA is off in its engine."""
        self._replicas = replicas
        self._capacity = dict(capacity)
        self._roots = tuple(root.resolve() for root in roots)
        self._store = store
        self._now = now
        self._desired: dict[str, dict[str, DesiredAdapter]] = {model: {} for model in capacity}
        self._loaded: dict[str, _Loaded] = {}
        self._changing = asyncio.Lock()
        self._pruned = now()

    def loaded(self, replica: str) -> Mapping[str, str]:
        """The engine's names of a replica's adapters, by public name."""
        found = self._loaded.get(replica)
        return {name: adapter.engine_name for name, adapter in found.current.items()} if found else {}

    def failures(self, model: str, replica: str) -> Mapping[str, str]:
        """Why a replica lacks adapters, by public name."""
        found = {}
        loaded = self._loaded.get(replica, _Loaded())
        for name, desired in self._desired.get(model, {}).items():
            if name in loaded.current:
                continue
            failure = desired.failure if desired.copy is None else loaded.refused.get(desired.copy.engine_name)
            if failure is not None:
                found[name] = failure.reason
        return found

    def lacks_adapters(self, model: str, replica: Replica) -> bool:
        """Whether the replica lacks an adapter that was not tried yet."""
        has = self._loaded.get(replica.key, _Loaded()).current
        failed = self.failures(model, replica.key)
        return any(name not in has and name not in failed for name in self._desired.get(model, {}))

    def follow(self, capacity: Mapping[str, int], sources: Mapping[str, Mapping[str, Path]]) -> None:
        """Take the models and adapters of a new configuration; the next reconcile loads and unloads them. Adapters that
        were added by request stay, where their model still takes any."""
        self._capacity = dict(capacity)
        before, self._desired = self._desired, {model: {} for model in capacity}
        for model, wanted in self._desired.items():
            known = before.get(model, {})
            for name, source in sources.get(model, {}).items():
                same = known.get(name)
                wanted[name] = same if same is not None and same.source == source else DesiredAdapter(name, source)
            if capacity[model]:
                added = {name: each for name, each in known.items() if each.roots and name not in wanted}
                wanted.update(added)

    async def add(self, model: str, name: str, path: str, replicas: Iterable[Replica]) -> Adapter:
        """Load an adapter into every replica, or into none. One of the same name is replaced. Raises APIError."""
        async with self._changing:
            desired = self._validated(model, name, path)
            adapter = await self._copied(desired)
            done: list[Replica] = []
            for replica in replicas:
                loaded = self._loaded.setdefault(replica.key, _Loaded())
                if loaded.current.get(name) == adapter:
                    continue
                try:
                    await self._replicas.load(replica.url, adapter)
                except EngineError:
                    for other in done:
                        await self._unload(other, adapter.engine_name)
                    raise
                done.append(replica)
            desired.copy = adapter
            self._desired[model][name] = desired
            for replica in done:
                self._set_current(replica, adapter)
        log.info("loaded adapter %s of %s into %d replicas", adapter.engine_name, model, len(done))
        return adapter

    async def remove(self, model: str, name: str, replicas: Iterable[Replica]) -> None:
        """Unload an adapter from every replica. Raises NotFoundError."""
        async with self._changing:
            if name not in self._desired_of(model):
                raise NotFoundError(
                    f"The model '{model}' has no adapter '{name}'.", param="name", code="adapter_not_found"
                )
            del self._desired[model][name]
            for replica in replicas:
                loaded = self._loaded.get(replica.key, _Loaded())
                if (adapter := loaded.current.pop(name, None)) is not None:
                    await self._unload(replica, adapter.engine_name)

    async def reconcile(self, replicas: Mapping[str, Sequence[Replica]]) -> None:
        """Load missing adapters into each replica, unload replaced ones, forget ended replicas. Copies are made while a
        model still loads."""
        async with self._changing:
            alive = {replica.key for of_model in replicas.values() for replica in of_model}
            self._loaded = {key: loaded for key, loaded in self._loaded.items() if key in alive}
            await self._notice_missing_copies()
            for model, wanted in self._desired.items():
                of_model = replicas.get(model, ())
                for desired in list(wanted.values()):
                    await self._keep_copy(model, desired, of_model)
                    if desired.copy is not None:
                        for replica in of_model:
                            await self._load_if_missing(model, replica, desired.copy)
                for replica in of_model:
                    self._retire_unwanted(replica, wanted)
                    await self._unload_retired(replica)
            await self._prune()

    async def _notice_missing_copies(self) -> None:
        desired = [each for of_model in self._desired.values() for each in of_model.values()]
        copies = [each.copy for each in desired if each.copy is not None]
        if not copies:
            return
        try:
            gone = await in_thread(lambda: [copy for copy in copies if not self._store.has(copy)], STAT_SECONDS)
        except (OSError, TimeoutError) as error:
            log.warning("can't check the copies of adapters: %s", str(error) or type(error).__name__)
            return
        for each in desired:
            if each.copy in gone:
                log.error("the copy of adapter %s is missing: %s", each.name, each.copy and each.copy.path)
                each.copy = None

    async def _keep_copy(self, model: str, desired: DesiredAdapter, replicas: Sequence[Replica]) -> None:
        """Make the adapter's copy if there is none. Without a copy the engine must not be asked for the adapter."""
        if desired.copy is not None or (desired.failure is not None and self._now() < desired.failure.due):
            return
        try:
            desired.copy = await self._copied(desired)
            desired.failure = None
        except APIError as error:
            if desired.failure is None or desired.failure.reason != error.message:
                log.error("can't load adapter %s of %s from %s: %s", desired.name, model, desired.source, error.message)
            desired.failure = Retry.after(desired.failure, error.message, self._now())
            for replica in replicas:
                loaded = self._loaded.get(replica.key, _Loaded())
                if (adapter := loaded.current.pop(desired.name, None)) is not None:
                    await self._unload(replica, adapter.engine_name)

    async def _load_if_missing(self, model: str, replica: Replica, adapter: Adapter) -> None:
        loaded = self._loaded.setdefault(replica.key, _Loaded())
        failure = loaded.refused.get(adapter.engine_name)
        if loaded.current.get(adapter.name) == adapter or (failure is not None and self._now() < failure.due):
            return
        try:
            await self._replicas.load(replica.url, adapter)
        except EngineError as error:
            reason = error.message.replace(str(adapter.path), "its folder")
            loaded.refused[adapter.engine_name] = Retry.after(failure, reason, self._now())
            if failure is None or failure.reason != reason:
                log.error("can't load adapter %s of %s: %s", adapter.engine_name, model, error.message)
            return
        log.info("loaded adapter %s of %s into %s", adapter.engine_name, model, replica.key)
        self._set_current(replica, adapter)

    def _set_current(self, replica: Replica, adapter: Adapter) -> None:
        loaded = self._loaded.setdefault(replica.key, _Loaded())
        before = loaded.current.get(adapter.name)
        loaded.current[adapter.name] = adapter
        loaded.refused = {}
        loaded.retired.pop(adapter.engine_name, None)
        if before is not None and before != adapter:
            loaded.retired[before.engine_name] = self._now() + RETIRE_SECONDS

    def _retire_unwanted(self, replica: Replica, wanted: Collection[str]) -> None:
        """Adapters that the configuration has no more are not offered from now on, and unloaded a little later."""
        loaded = self._loaded.get(replica.key, _Loaded())
        for name in [each for each in loaded.current if each not in wanted]:
            adapter = loaded.current.pop(name)
            loaded.retired[adapter.engine_name] = self._now() + RETIRE_SECONDS

    async def _unload_retired(self, replica: Replica) -> None:
        loaded = self._loaded.get(replica.key, _Loaded())
        for engine_name, due in list(loaded.retired.items()):
            if self._now() >= due:
                del loaded.retired[engine_name]
                await self._unload(replica, engine_name)

    async def _unload(self, replica: Replica, engine_name: str) -> None:
        try:
            await self._replicas.unload(replica.url, engine_name)
        except EngineError as error:  # the replica has ended, or never had it
            log.warning("could not unload adapter %s: %s", engine_name, error.message)

    async def _copied(self, desired: DesiredAdapter) -> Adapter:
        """Raises BadRequestError."""
        take = partial(self._store.take, desired.name, desired.source, desired.roots)
        try:
            return await in_thread(take, COPY_SECONDS)
        except AdapterFilesError as error:
            raise BadRequestError(f"The adapter can't be loaded: {error}.", param="path") from error
        except TimeoutError:
            raise BadRequestError(
                f"The adapter can't be loaded: copying it took more than {COPY_SECONDS:.0f} s.", param="path"
            ) from None

    async def _prune(self) -> None:
        if self._now() < self._pruned + PRUNE_SECONDS:
            return
        self._pruned = self._now()
        copies = [each.copy for of_model in self._desired.values() for each in of_model.values()]
        copies += [adapter for loaded in self._loaded.values() for adapter in loaded.current.values()]
        try:
            await in_thread(partial(self._store.prune, {copy.path for copy in copies if copy}), COPY_SECONDS)
        except (OSError, TimeoutError) as error:
            log.warning("can't delete unused copies of adapters: %s", error)

    def _desired_of(self, model: str) -> dict[str, DesiredAdapter]:
        if model not in self._desired:
            raise NotFoundError(
                f"The model '{model}' is not served by this engine.", param="model", code="model_not_found"
            )
        return self._desired[model]

    def _validated(self, model: str, name: str, path: str) -> DesiredAdapter:
        desired = self._desired_of(model)
        if self._capacity[model] == 0:
            raise BadRequestError(
                f"Adapters are disabled for the model '{model}': set max_adapters.",
                param="model",
                code="adapters_disabled",
            )
        if not _NAME.fullmatch(name):
            raise BadRequestError(
                "'name' must be up to 128 letters, digits and . _ : / -, and start with a letter or digit.",
                param="name",
            )
        if name in self._capacity or any(name in others for key, others in self._desired.items() if key != model):
            raise ConflictError(f"The name '{name}' is already in use.", param="name", code="adapter_exists")
        known = desired.get(name)
        if known is None and len(desired) >= self._capacity[model]:
            raise ConflictError(
                f"The model '{model}' already has {len(desired)} adapters: unload one or raise max_adapters.",
                param="model",
                code="too_many_adapters",
            )
        if known is not None and not known.roots:
            if Path(path) != known.source:
                raise ConflictError(
                    f"The adapter '{name}' is managed by the configuration: its path is {known.source}.",
                    param="path",
                    code="managed_by_config",
                )
            return DesiredAdapter(name, known.source)
        return DesiredAdapter(name, validated_folder(path, self._roots), self._roots)


def validated_folder(path: str, roots: Sequence[Path]) -> Path:
    """Resolve links and return the folder, if it is below a root and contains an adapter. Raises BadRequestError."""
    try:
        folder = Path(path).resolve()
    except (ValueError, OSError, RuntimeError):  # NUL, a lone surrogate, a loop of links
        raise BadRequestError("'path' is not a valid path.", param="path", code="path_not_allowed") from None
    if not Path(path).is_absolute() or not any(folder.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots))
        raise BadRequestError(f"'path' must be absolute and below {allowed}.", param="path", code="path_not_allowed")
    try:
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadRequestError(
            f"{folder} is not an adapter: it has no readable adapter_config.json.", param="path"
        ) from None
    return folder


def parse_adapter_request(body: bytes) -> tuple[str, str, str]:
    """Return model, name and path of `POST /adapters`. Raises BadRequestError."""
    try:
        fields = json.loads(body)
    except ValueError:
        raise BadRequestError("The request body is not valid JSON.") from None
    values = []
    for field_name in ("model", "name", "path"):
        value = fields.get(field_name) if isinstance(fields, dict) else None
        if not isinstance(value, str) or not value:
            raise BadRequestError(f"'{field_name}' must be a non-empty string.", param=field_name)
        values.append(value)
    return values[0], values[1], values[2]
