"""Compiles all custom resources into the ConfigMap that gateways and workers follow.

Compiling decides what is accepted: of two objects that claim one name, the older one. It runs a moment after a change,
so that hundreds of changes make a few writes, and writes only when the documents change.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from quarterdeck.kube.compile.compiler import Compiled, compile_objects
from quarterdeck.kube.compile.runtime import Canary, Runtime
from quarterdeck.kube.compile.verdicts import Verdict, refused
from quarterdeck.kube.compiled import AdapterEntry, Documents, EngineState, from_config_map, to_config_map
from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.names import APP_MANAGED_BY, APP_PART_OF, MANAGED_BY, PART_OF
from quarterdeck.kube.reserved import NOTHING, Reserved
from quarterdeck.kube.resources.adapter import ModelAdapter
from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.apply import Applier
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.endpoint_keys import EndpointKeys
from quarterdeck.operator.manifests import CONFIG_MAP, CUSTOM, Key, Manifest, key_of, name_of, uid_of
from quarterdeck.operator.plan import make_plan

log = logging.getLogger(__name__)

PAUSE_SECONDS = 0.1
"""From a change to its compilation. With the API server's and the gateway's part, a change is in force within 1 s."""
MAX_PAUSE_SECONDS = 0.7
"""While hundreds of Models start, each compilation and write takes long; then so many changes share one."""
HOLD_SECONDS = 30.0
"""Longest that a new leader keeps what its predecessor wrote, until it has looked at each object itself."""
REPEAT_SECONDS = 60.0
"""Without a change, what is published is compared and keys of endpoints are read again so often."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The operator's own Deployment: what it publishes is deleted with it."""

    name: str
    uid: str

    def reference(self) -> dict[str, Any]:
        return {"apiVersion": "apps/v1", "kind": "Deployment", "name": self.name, "uid": self.uid}


class Publisher:
    """`on_verdict` is called with the key of each object whose verdict has changed, or that is published since, or is
    not any more."""

    def __init__(
        self,
        cache: ObjectCache,
        applier: Applier,
        keys: EndpointKeys,
        *,
        namespace: str,
        config_map: str,
        base: Mapping[str, Any],
        on_verdict: Callable[[Key], None],
        on_write: Callable[[], None] = lambda: None,
        reserved: Reserved = NOTHING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._reserved = reserved
        self._cache, self._applier, self._keys = cache, applier, keys
        self._namespace, self._config_map, self._base = namespace, config_map, base
        self._on_verdict, self._on_write, self._clock = on_verdict, on_write, clock
        self._unseen: set[Key] = set()
        self._hold_until = 0.0
        self.owner: Owner | None = None
        self._runtimes: dict[str, Runtime] = {}
        self._accepted: dict[Key, Manifest] = {}
        """The last accepted body of each object: it stays in force while a later one is invalid."""
        self._verdicts: Mapping[tuple[str, str], Verdict] = {}
        self._published: frozenset[Key] = frozenset()
        self._dirty = asyncio.Event()
        self.problem: str | None = None
        """Why nothing can be compiled; the last documents stay in force."""
        self.names: Mapping[str, str] = {}
        """Public names of engines, their revisions and adapters, with the Model object's name."""
        self._written: Mapping[str, str] = {}
        """Those of the documents as they were written last."""

    def begin(self, keys: Iterable[Key]) -> None:
        """A new leader begins: nothing is written until these objects are `seen`, as it does not know yet in which
        state their engines are and where adapters are loaded."""
        self._unseen, self._hold_until = set(keys), self._clock() + HOLD_SECONDS
        self.mark()

    def seen(self, key: Key) -> None:
        """An object was reconciled."""
        if key in self._unseen:
            self._unseen.discard(key)
            if not self._unseen:
                self.mark()

    @property
    def _is_held(self) -> bool:
        return bool(self._unseen) and self._clock() < self._hold_until

    # ---- what goes in ----

    def mark(self) -> None:
        """Something has changed that may change the documents."""
        self._dirty.set()

    def set_state(self, model: str, state: EngineState, detail: str) -> None:
        """Take the state of a Model's engine, and why it does not serve."""
        self._set(model, replace(self._runtimes.get(model, Runtime()), state=state, detail=detail))

    def set_canary(self, model: str, canary: Canary | None) -> None:
        """Take how requests are split between two revisions of a Model."""
        self._set(model, replace(self._runtimes.get(model, Runtime()), canary=canary))

    def set_adapters(self, model: str, loaded: Mapping[str, AdapterEntry], failed: Mapping[str, str]) -> None:
        """Take which adapters (by the ModelAdapter's name) a Model's engine has, and which it can't load, and why."""
        runtime = self._runtimes.get(model, Runtime())
        self._set(model, replace(runtime, adapters=dict(loaded), failed_adapters=dict(failed)))

    def forget(self, model: str) -> None:
        """A Model is gone."""
        if self._runtimes.pop(model, None) is not None:
            self.mark()

    def _set(self, model: str, runtime: Runtime) -> None:
        if self._runtimes.get(model) != runtime:
            self._runtimes[model] = runtime
            self.mark()

    # ---- what comes out ----

    def verdict(self, key: Key, generation: int) -> Verdict | None:
        """The verdict on this generation of an object; None: not compiled yet."""
        if self.problem is not None:
            return refused(generation, Reason.CONFIGURATION_INVALID, self.problem)
        found = self._verdicts.get(key)
        return found if found is not None and found.generation == generation else None

    def has_name(self, name: str) -> bool:
        """Whether the ConfigMap has an engine of this public name."""
        return name in self._written

    def is_published(self, key: Key) -> bool:
        """Whether the ConfigMap has the object."""
        return key in self._published

    async def run(self) -> None:
        """Publish after each change, until cancelled. A failed write is repeated with growing pauses."""
        failures, pause = 0, PAUSE_SECONDS
        while True:
            try:
                async with asyncio.timeout(1.0 if self._is_held else REPEAT_SECONDS):
                    await self._dirty.wait()
            except TimeoutError:
                pass
            await asyncio.sleep(pause if not failures else min(2.0**failures, 30.0))
            self._dirty.clear()
            started = self._clock()
            try:
                await self.publish()
                pause = min(max(PAUSE_SECONDS, 4 * (self._clock() - started)), MAX_PAUSE_SECONDS)
                failures = 0
            except Exception:  # an error boundary: the last good documents stay, and the next attempt may succeed
                failures += 1
                log.exception("could not publish the configuration")
                self._dirty.set()

    async def publish(self) -> None:
        """Compile and write now."""
        compiled = self._compile()
        if compiled.problem != self.problem:
            self.problem = compiled.problem
            if compiled.problem is not None:
                log.error("nothing can be compiled: %s", compiled.problem)
            for kind in CUSTOM:
                for each in self._cache.keys(kind.name):
                    self._on_verdict(each)
        before, self._verdicts = self._verdicts, compiled.verdicts
        for key, verdict in compiled.verdicts.items():
            if before.get(key) != verdict:
                self._on_verdict(Key(*key))
        if compiled.documents is None:
            return
        self.names = compiled.names
        observed = self._cache.get(CONFIG_MAP.name, self._config_map)
        if observed is not None and self._is_held:
            self._set_published(_published_before(observed, compiled, self._accepted))
            return
        await self._keys.copy(compiled.endpoint_keys, self.owner.reference() if self.owner is not None else None)
        await self._write(compiled.documents)
        self._written = compiled.names
        published = frozenset(Key(*key) for key, verdict in compiled.verdicts.items() if verdict.is_compiled)
        self._set_published(published | frozenset(key for key in self._accepted if key in compiled.verdicts))

    def _set_published(self, published: frozenset[Key]) -> None:
        changed, self._published = published ^ self._published, published
        for key in changed:
            self._on_verdict(key)

    def _compile(self) -> Compiled:
        """Compile the objects as they are. In place of one whose latest spec is invalid, its last accepted one."""
        bodies = [each for kind in CUSTOM for each in self._cache.of_kind(kind.name)]
        runtimes = {name_of(each): _runtime_of(each) for each in bodies if each["kind"] == Model.kind} | self._runtimes
        compiled = compile_objects(self._base, bodies, runtimes, reserved=self._reserved)
        if compiled.problem is not None:
            return compiled
        known, self._accepted = self._accepted, {}
        replaced = False
        for at, body in enumerate(bodies):
            key = key_of(body)
            verdict = compiled.verdicts.get(key)
            if verdict is None:
                continue
            if verdict.is_accepted:
                self._accepted[key] = body
            elif verdict.reason == Reason.INVALID_SPEC and (last := known.get(key)) and uid_of(last) == uid_of(body):
                self._accepted[key] = bodies[at] = last
                replaced = True
        if not replaced:
            return compiled
        again = compile_objects(self._base, bodies, runtimes, reserved=self._reserved)
        invalid = {k: v for k, v in compiled.verdicts.items() if v.reason == Reason.INVALID_SPEC}
        return replace(again, verdicts={**again.verdicts, **invalid})

    async def _write(self, documents: Documents) -> None:
        manifest = self._manifest(documents)
        observed = self._cache.get(CONFIG_MAP.name, self._config_map)
        plan = make_plan([manifest], [observed] if observed is not None else [], self._applier.settled)
        if plan.apply:
            await self._applier.carry_out(plan, owner_uid="", adopt=True)
            self._on_write()

    def _manifest(self, documents: Documents) -> Manifest:
        metadata: Manifest = {
            "name": self._config_map,
            "namespace": self._namespace,
            "labels": {APP_MANAGED_BY: MANAGED_BY, APP_PART_OF: PART_OF},
        }
        if self.owner is not None:
            metadata["ownerReferences"] = [self.owner.reference()]
        return {
            "apiVersion": CONFIG_MAP.api,
            "kind": CONFIG_MAP.name,
            "metadata": metadata,
            **to_config_map(documents),
        }


def _runtime_of(manifest: Manifest) -> Runtime:
    """What an earlier operator found out about a Model's engine."""
    status = manifest.get("status") or {}
    state = status.get("state")
    if state not in ("Serving", "Zero", "Suspended", "Starting", "Failed"):
        return Runtime()
    return Runtime(state=state, detail="" if state in ("Serving", "Zero") else str(status.get("message", "")))


def _published_before(observed: Manifest, compiled: Compiled, accepted: Mapping[Key, Manifest]) -> frozenset[Key]:
    """The objects that the ConfigMap has already."""
    try:
        config = json.loads(from_config_map(observed).config)
        models = config.get("models") or ()
        names = {each["name"] for part in ("models", "routes") for each in config.get(part) or ()}
        adapters = {each["name"] for model in models for each in (model.get("engine") or {}).get("adapters") or ()}
        known = {
            Model.kind: names,
            "ModelRoute": names,
            ModelAdapter.kind: adapters,
            "Team": set(config.get("teams") or ()),
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        return frozenset()
    found = set()
    for key, body in accepted.items():
        spec = body.get("spec") or {}
        public = spec.get("servedName") or spec.get("teamName") or key.name
        if key in compiled.verdicts and public in known.get(key.kind, ()):
            found.add(key)
    return frozenset(found)
