"""Compiles all custom resources into the ConfigMap that gateways and workers follow.

Compiling decides what is accepted: of two objects that claim one name, the older one. It runs a moment after a change,
so that hundreds of changes make a few writes, and writes only when the documents change.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from quarterdeck.kube.compiled import Documents, to_config_map
from quarterdeck.kube.names import APP_MANAGED_BY, APP_PART_OF, MANAGED_BY, PART_OF
from quarterdeck.kube.resources.model_status import State
from quarterdeck.operator.apply import Applier
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.manifests import CONFIG_MAP, Key, Manifest
from quarterdeck.operator.plan import make_plan

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.1
"""From a change to its compilation. With the API server's and the gateway's part, a change is in force within 1 s."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether an object is accepted, and if not, why. `reason` is a condition's."""

    generation: int
    is_accepted: bool = True
    reason: str = "Accepted"
    message: str = ""


@dataclass(frozen=True, slots=True)
class Runtime:
    """What gateways must know of a Model's engine."""

    state: State = "Starting"
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Compilation:
    """The documents, and a verdict on every object that was compiled."""

    documents: Documents
    verdicts: Mapping[Key, Verdict]
    names: Mapping[str, str]
    """Public names (of Models, their revisions and adapters) to the name of the Model object."""


class Compile(Protocol):
    """A pure function (`kube/compile`)."""

    def __call__(self, objects: Iterable[Manifest], runtimes: Mapping[str, Runtime]) -> Compilation: ...


class Publisher:
    """`on_verdict` is called with the key of each object whose verdict has changed, and after a write with those of
    all objects that are published since."""

    def __init__(
        self,
        compile: Compile,
        cache: ObjectCache,
        applier: Applier,
        namespace: str,
        config_map: str,
        kinds: Iterable[str],
        on_verdict: Callable[[Key], None],
        *,
        on_write: Callable[[], None] = lambda: None,
        owner: Manifest | None = None,
    ) -> None:
        self._compile, self._cache, self._applier = compile, cache, applier
        self._namespace, self._config_map, self._kinds = namespace, config_map, tuple(kinds)
        self._on_verdict, self._on_write, self._owner = on_verdict, on_write, owner
        self._runtimes: dict[str, Runtime] = {}
        self._verdicts: Mapping[Key, Verdict] = {}
        self._published: frozenset[Key] = frozenset()
        self._dirty = asyncio.Event()
        self.names: Mapping[str, str] = {}

    def mark(self) -> None:
        """Something has changed that may change the documents."""
        self._dirty.set()

    def set_runtime(self, model: str, runtime: Runtime | None) -> None:
        """Take the state of a Model's engine; None: the Model is gone."""
        if runtime is None:
            if self._runtimes.pop(model, None) is not None:
                self.mark()
        elif self._runtimes.get(model) != runtime:
            self._runtimes[model] = runtime
            self.mark()

    def verdict(self, key: Key, generation: int) -> Verdict | None:
        """The verdict on this generation of an object; None: not compiled yet."""
        found = self._verdicts.get(key)
        return found if found is not None and found.generation == generation else None

    def is_published(self, key: Key) -> bool:
        """Whether the ConfigMap has the object."""
        return key in self._published

    async def run(self) -> None:
        """Publish after each change, until cancelled. A failed write is repeated with growing pauses."""
        failures = 0
        while True:
            await self._dirty.wait()
            await asyncio.sleep(PAUSE_SECONDS if not failures else min(2.0**failures, 30.0))
            self._dirty.clear()
            try:
                await self.publish()
                failures = 0
            except Exception:  # an error boundary: the last good documents stay, and the next attempt may succeed
                failures += 1
                log.exception("could not publish the configuration")
                self._dirty.set()

    async def publish(self) -> None:
        """Compile and write now."""
        objects = [each for kind in self._kinds for each in self._cache.of_kind(kind)]
        compilation = self._compile(objects, self._runtimes)
        before, self._verdicts = self._verdicts, compilation.verdicts
        self.names = compilation.names
        for key, verdict in compilation.verdicts.items():
            if before.get(key) != verdict:
                self._on_verdict(key)
        manifest = self._manifest(compilation.documents)
        observed = self._cache.get(CONFIG_MAP.name, self._config_map)
        plan = make_plan([manifest], [observed] if observed is not None else [], self._applier.settled)
        if plan.apply:
            await self._applier.carry_out(plan, owner_uid="", adopt=True)
            self._on_write()
        published = frozenset(key for key, verdict in compilation.verdicts.items() if verdict.is_accepted)
        changed, self._published = published ^ self._published, published
        for key in changed:
            self._on_verdict(key)

    def _manifest(self, documents: Documents) -> Manifest:
        metadata: Manifest = {
            "name": self._config_map,
            "namespace": self._namespace,
            "labels": {APP_MANAGED_BY: MANAGED_BY, APP_PART_OF: PART_OF},
        }
        if self._owner is not None:
            metadata["ownerReferences"] = [
                {
                    "apiVersion": self._owner["apiVersion"],
                    "kind": self._owner["kind"],
                    "name": self._owner["metadata"]["name"],
                    "uid": self._owner["metadata"]["uid"],
                }
            ]
        return {
            "apiVersion": CONFIG_MAP.api,
            "kind": CONFIG_MAP.name,
            "metadata": metadata,
            **to_config_map(documents),
        }
