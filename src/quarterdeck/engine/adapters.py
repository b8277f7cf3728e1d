"""LoRA adapters: which each model should have, which each replica has, and the calls that reconcile the two.

vLLM loads an adapter into one replica and forgets it when the replica ends. So the door keeps the desired adapters and
reconciles at each poll: a new or restarted replica gets those it lacks.
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
    """A ready replica. `key` changes with a restart."""

    key: str
    url: str


class Replicas(Protocol):
    """Loads and unloads adapters in a replica. Raises EngineError with the replica's reason."""

    async def load(self, url: str, adapter: Adapter) -> None: ...

    async def unload(self, url: str, name: str) -> None: ...


class Adapters:
    """The desired adapters of each model, and the loaded ones of each replica."""

    def __init__(self, replicas: Replicas, capacity: Mapping[str, int], roots: Sequence[Path]) -> None:
        """`capacity`: how many adapters each model takes; 0 if LoRA is off in its engine."""
        self._replicas = replicas
        self._capacity = dict(capacity)
        self._roots = tuple(root.resolve() for root in roots)
        self._desired: dict[str, dict[str, Adapter]] = {model: {} for model in capacity}
        self._loaded: dict[str, set[str]] = {}
        self._refused: set[tuple[str, str]] = set()

    @property
    def loaded(self) -> Mapping[str, set[str]]:
        """Adapter names by replica key."""
        return self._loaded

    def lacks_adapters(self, model: str, replica: Replica) -> bool:
        """Whether the replica lacks an adapter that it has not refused."""
        has = self._loaded.get(replica.key, set())
        return any(
            name not in has and (replica.key, name) not in self._refused for name in self._desired.get(model, {})
        )

    def desire(self, model: str, adapter: Adapter) -> None:
        """Add an adapter of the configuration; the next reconcile loads it."""
        self._desired[model][adapter.name] = adapter

    async def add(self, model: str, name: str, path: str, replicas: Iterable[Replica]) -> None:
        """Load an adapter into every replica, or into none. Raises APIError."""
        adapter = self._validated(model, name, path)
        done: list[Replica] = []
        for replica in replicas:
            try:
                await self._load(replica, adapter)
            except EngineError:
                for other in done:
                    await self._unload(other, name)
                raise
            done.append(replica)
        self._desired[model][name] = adapter
        log.info("loaded adapter %s of %s into %d replicas", name, model, len(done))

    async def remove(self, model: str, name: str, replicas: Iterable[Replica]) -> None:
        """Unload an adapter from every replica. Raises NotFoundError."""
        if name not in self._desired_of(model):
            raise NotFoundError(f"The model '{model}' has no adapter '{name}'.", param="name", code="adapter_not_found")
        del self._desired[model][name]
        for replica in replicas:
            await self._unload(replica, name)

    async def reconcile(self, replicas: Mapping[str, Sequence[Replica]]) -> None:
        """Load missing adapters into each replica; drop ended replicas. A refused adapter is not tried again."""
        alive = {replica.key for of_model in replicas.values() for replica in of_model}
        self._loaded = {key: names for key, names in self._loaded.items() if key in alive}
        self._refused = {(key, name) for key, name in self._refused if key in alive}
        for model, of_model in replicas.items():
            for replica in of_model:
                for adapter in list(self._desired.get(model, {}).values()):
                    has = self._loaded.get(replica.key, set())
                    if adapter.name in has or (replica.key, adapter.name) in self._refused:
                        continue
                    try:
                        await self._load(replica, adapter)
                    except EngineError as error:
                        self._refused.add((replica.key, adapter.name))
                        log.error("could not load adapter %s of %s: %s", adapter.name, model, error.message)

    async def _load(self, replica: Replica, adapter: Adapter) -> None:
        await self._replicas.load(replica.url, adapter)
        self._loaded.setdefault(replica.key, set()).add(adapter.name)

    async def _unload(self, replica: Replica, name: str) -> None:
        self._loaded.get(replica.key, set()).discard(name)
        try:
            await self._replicas.unload(replica.url, name)
        except EngineError as error:  # the replica has ended, or never had it
            log.warning("could not unload adapter %s: %s", name, error.message)

    def _desired_of(self, model: str) -> dict[str, Adapter]:
        if model not in self._desired:
            raise NotFoundError(
                f"The model '{model}' is not served by this engine.", param="model", code="model_not_found"
            )
        return self._desired[model]

    def _validated(self, model: str, name: str, path: str) -> Adapter:
        desired = self._desired_of(model)
        if self._capacity[model] == 0:
            raise BadRequestError(
                f"Adapters are disabled for the model '{model}': set max_adapters.",
                param="model",
                code="adapters_disabled",
            )
        if name in self._capacity or any(name in of_model for of_model in self._desired.values()):
            raise ConflictError(f"The name '{name}' is already in use.", param="name", code="adapter_exists")
        if len(desired) >= self._capacity[model]:
            raise ConflictError(
                f"The model '{model}' already has {len(desired)} adapters: unload one or raise max_adapters.",
                param="model",
                code="too_many_adapters",
            )
        return Adapter(name, validated_folder(path, self._roots))


def validated_folder(path: str, roots: Sequence[Path]) -> Path:
    """Resolve links and return the folder, if it is below a root and contains an adapter. Raises BadRequestError."""
    folder = Path(path).resolve()
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
    for field in ("model", "name", "path"):
        value = fields.get(field) if isinstance(fields, dict) else None
        if not isinstance(value, str) or not value:
            raise BadRequestError(f"'{field}' must be a non-empty string.", param=field)
        values.append(value)
    return values[0], values[1], values[2]
