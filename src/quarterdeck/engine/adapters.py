"""LoRA adapters: which each model should have, which each replica has, and the calls that make the two equal.

vLLM loads an adapter into one replica and forgets it when that replica ends. So the door remembers what was asked
for and compares at each look: a replica that is new, or came back, gets what it lacks.
"""

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from quarterdeck.errors import BadRequestError, ConflictError, EngineError, NotFoundError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Adapter:
    name: str
    path: Path


@dataclass(frozen=True, slots=True)
class Replica:
    """A replica that serves. `key` is another one after a restart."""

    key: str
    url: str


class Replicas(Protocol):
    """How a replica is told. Raises EngineError with the replica's reason."""

    async def load(self, url: str, adapter: Adapter) -> None: ...

    async def unload(self, url: str, name: str) -> None: ...


class Adapters:
    """The wanted adapters of each model, and what each replica has."""

    def __init__(self, replicas: Replicas, room: Mapping[str, int], roots: Sequence[Path]) -> None:
        """`room`: how many adapters each model takes; 0 where its engine has LoRA off."""
        self._replicas = replicas
        self._room = dict(room)
        self._roots = tuple(root.resolve() for root in roots)
        self._wanted: dict[str, dict[str, Adapter]] = {model: {} for model in room}
        self._loaded: dict[str, set[str]] = {}
        self._refused: set[tuple[str, str]] = set()

    @property
    def loaded(self) -> Mapping[str, set[str]]:
        """Replica's key → names."""
        return self._loaded

    def incomplete(self, model: str, replica: Replica) -> bool:
        """Whether the replica still lacks an adapter that it has not refused."""
        has = self._loaded.get(replica.key, set())
        return any(name not in has and (replica.key, name) not in self._refused for name in self._wanted.get(model, {}))

    def want(self, model: str, adapter: Adapter) -> None:
        """Remember without asking anyone: for the adapters in the config."""
        self._wanted[model][adapter.name] = adapter

    async def add(self, model: str, name: str, path: str, replicas: Iterable[Replica]) -> None:
        """Load into every replica, or into none. Raises APIError."""
        adapter = self._checked(model, name, path)
        done: list[Replica] = []
        for replica in replicas:
            try:
                await self._load(replica, adapter)
            except EngineError:
                for other in done:
                    await self._forget(other, name)
                raise
            done.append(replica)
        self._wanted[model][name] = adapter
        log.info("adapter %s of %s loaded into %d replicas", name, model, len(done))

    async def remove(self, model: str, name: str, replicas: Iterable[Replica]) -> None:
        """Unload everywhere. Raises NotFoundError."""
        if name not in self._wanted_of(model):
            raise NotFoundError(f"'{model}' has no adapter '{name}'.", param="name", code="adapter_not_found")
        del self._wanted[model][name]
        for replica in replicas:
            await self._forget(replica, name)

    async def reconcile(self, replicas: Mapping[str, Sequence[Replica]]) -> None:
        """Give each replica what it lacks; forget replicas that are gone. One that refuses an adapter is asked once."""
        alive = {replica.key for of_model in replicas.values() for replica in of_model}
        self._loaded = {key: names for key, names in self._loaded.items() if key in alive}
        self._refused = {(key, name) for key, name in self._refused if key in alive}
        for model, of_model in replicas.items():
            for replica in of_model:
                for adapter in list(self._wanted.get(model, {}).values()):
                    has = self._loaded.get(replica.key, set())
                    if adapter.name in has or (replica.key, adapter.name) in self._refused:
                        continue
                    try:
                        await self._load(replica, adapter)
                    except EngineError as error:
                        self._refused.add((replica.key, adapter.name))
                        log.error("adapter %s of %s: %s", adapter.name, model, error.message)

    async def _load(self, replica: Replica, adapter: Adapter) -> None:
        await self._replicas.load(replica.url, adapter)
        self._loaded.setdefault(replica.key, set()).add(adapter.name)

    async def _forget(self, replica: Replica, name: str) -> None:
        self._loaded.get(replica.key, set()).discard(name)
        try:
            await self._replicas.unload(replica.url, name)
        except EngineError as error:  # it is gone, or never had it: nothing is owed
            log.warning("adapter %s: %s", name, error.message)

    def _wanted_of(self, model: str) -> dict[str, Adapter]:
        if model not in self._wanted:
            raise NotFoundError(f"The model '{model}' is not served here.", param="model", code="model_not_found")
        return self._wanted[model]

    def _checked(self, model: str, name: str, path: str) -> Adapter:
        wanted = self._wanted_of(model)
        if self._room[model] == 0:
            raise BadRequestError(
                f"The engine of '{model}' has adapters off: set max_adapters.", param="model", code="adapters_disabled"
            )
        if name in self._room or any(name in of_model for of_model in self._wanted.values()):
            raise ConflictError(f"The name '{name}' is taken.", param="name", code="adapter_exists")
        if len(wanted) >= self._room[model]:
            raise ConflictError(
                f"'{model}' has {len(wanted)} adapters, all it takes: unload one or raise max_adapters.",
                param="model",
                code="too_many_adapters",
            )
        return Adapter(name, checked_folder(path, self._roots))


def checked_folder(path: str, roots: Sequence[Path]) -> Path:
    """The folder, links resolved, if it lies below a root and holds an adapter. Raises BadRequestError."""
    folder = Path(path).resolve()
    if not Path(path).is_absolute() or not any(folder.is_relative_to(root) for root in roots):
        allowed = ", ".join(map(str, roots))
        raise BadRequestError(f"'path' must be absolute and below {allowed}.", param="path", code="path_not_allowed")
    try:
        json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadRequestError(
            f"no adapter in {folder}: it has no readable adapter_config.json.", param="path"
        ) from None
    return folder


def requested(body: bytes) -> tuple[str, str, str]:
    """model, name and path of `POST /adapters`. Raises BadRequestError."""
    try:
        fields = json.loads(body)
    except ValueError:
        raise BadRequestError("The body is not JSON.") from None
    values = []
    for field in ("model", "name", "path"):
        value = fields.get(field) if isinstance(fields, dict) else None
        if not isinstance(value, str) or not value:
            raise BadRequestError(f"'{field}' must be a string that is not empty.", param=field)
        values.append(value)
    return values[0], values[1], values[2]
