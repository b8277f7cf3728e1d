"""Keeps the adapters of each Model loaded on its ready replicas, and says where they are.

A reconcile observes, decides and reports; calls that take long (loading downloads weights) run in the background, one
at a time on each replica, and add the Model again when they are done. Nothing has a finalizer: an adapter that is not
wanted any more is unloaded from whatever replica lists it, also by an operator that was started later.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx

from quarterdeck.kube.compiled import AdapterEntry
from quarterdeck.kube.conditions import Reason
from quarterdeck.kube.names import API_VERSION
from quarterdeck.kube.reasons import EXPLANATIONS
from quarterdeck.kube.resources.adapter import ModelAdapter, ModelAdapterStatus
from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.operator.adapters.client import AdapterClient, AdapterError, EngineUnreachableError
from quarterdeck.operator.adapters.plan import (
    Action,
    Replica,
    failed,
    failures_of,
    make_plan,
    next_due,
    pods_of,
    retire,
    version_in_use,
)
from quarterdeck.operator.adapters.replicas import Found, engine_pods, has_doors, ray_replicas
from quarterdeck.operator.adapters.status import AdapterView, summarize
from quarterdeck.operator.adapters.wanted import Refused, Wanted, choose, engine_name
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.diagnosis.finding import sentence
from quarterdeck.operator.event_recorder import EventRecorder
from quarterdeck.operator.manifests import Key, Manifest, is_deleting, name_of
from quarterdeck.operator.publish import Publisher

log = logging.getLogger(__name__)

KEY_KIND = "Adapters"
"""Kind of the work queue's keys; the name is the Model's."""
RESYNC_SECONDS = 60.0
"""Between two looks at what a replica has loaded. A restarted container is noticed at once, by its pod."""
CONCURRENCY = 16
"""Calls of engines at once, of all Models together."""
REPORT_SECONDS = 0.3
"""Calls that end within so long are reported together."""


@dataclass(slots=True)
class _Engines:
    """The replicas of one Model, by key."""

    replicas: dict[str, Replica] = field(default_factory=dict)
    listed_at: dict[str, float] = field(default_factory=dict)
    """When each replica was last asked what it has."""
    busy: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class _Adapters:
    """The ModelAdapters of one Model."""

    live: Sequence[ModelAdapter]
    wanted: Sequence[Wanted]
    refused: dict[str, Refused]


class AdapterController:
    """`parse` reads a Model; `add` puts a Model's key into the queue after some seconds; `spawn` runs a call in the
    background."""

    def __init__(
        self,
        *,
        cluster: Cluster,
        cache: ObjectCache,
        publisher: Publisher,
        recorder: EventRecorder,
        http: httpx.AsyncClient,
        namespace: str,
        parse: Callable[[Manifest], Model],
        add: Callable[[Key, float], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._cache, self._publisher, self._recorder = cluster, cache, publisher, recorder
        self._http, self._client, self._namespace = http, AdapterClient(http), namespace
        self._parse, self._add, self._spawn, self._clock = parse, add, spawn, clock
        self._engines: dict[str, _Engines] = {}
        self._model_of: dict[str, str] = {}
        """The Model of each ModelAdapter that was seen: a deleted one names none."""
        self._limit = asyncio.Semaphore(CONCURRENCY)

    # ---- which Models are reconciled ----

    def models(self) -> list[str]:
        """Models whose adapters are to be reconciled."""
        found = {_model_name(each) for each in self._cache.of_kind(ModelAdapter.kind)}
        found |= {name_of(each) for each in self._cache.of_kind(Model.kind) if _takes_adapters(each)}
        return sorted(found)

    def model_of(self, adapter: str) -> str | None:
        """The Model of a ModelAdapter, also of one that is gone."""
        manifest = self._cache.get(ModelAdapter.kind, adapter)
        if manifest is not None:
            self._model_of[adapter] = _model_name(manifest)
        return self._model_of.get(adapter)

    def concerns(self, model: str) -> bool:
        """Whether a change of the Model or its pods may matter."""
        manifest = self._cache.get(Model.kind, model)
        return model in self._engines or (manifest is not None and _takes_adapters(manifest))

    # ---- the reconcile ----

    async def reconcile(self, name: str) -> float | None:
        """Returns the seconds until the next call, or None for a Model without adapters."""
        adapters = self._adapters_of(name)
        model = self._model(name)
        engines = self._engines.setdefault(name, _Engines())
        if model is not None and model.spec.adapters.max > 0:
            await self._observe(model, engines)
        else:
            engines.replicas.clear()
        chosen = self._choose(model, adapters)
        replicas = [engines.replicas[key] for key in sorted(engines.replicas)]
        now = self._clock()
        retire(chosen.wanted, replicas, now)
        self._begin(name, engines, make_plan(chosen.wanted, replicas, now))
        self._publish(name, chosen, replicas)
        await self._report(model, chosen, replicas)
        if not adapters and not replicas:
            del self._engines[name]
            return None
        due = next_due(chosen.wanted, replicas, self._clock())
        return min(RESYNC_SECONDS, due) if due is not None else RESYNC_SECONDS

    def _adapters_of(self, model: str) -> list[ModelAdapter]:
        found = []
        for manifest in self._cache.of_kind(ModelAdapter.kind):
            if _model_name(manifest) != model or is_deleting(manifest):
                continue
            self._model_of[name_of(manifest)] = model
            try:
                found.append(ModelAdapter.parse(manifest))
            except InvalidObjectError:
                continue  # the compiler's verdict says so
        return found

    def _model(self, name: str) -> Model | None:
        manifest = self._cache.get(Model.kind, name)
        if manifest is None or is_deleting(manifest):
            return None
        try:
            return self._parse(manifest)
        except InvalidObjectError:
            return None

    def _choose(self, model: Model | None, adapters: Sequence[ModelAdapter]) -> _Adapters:
        if model is None:
            return _Adapters(adapters, (), {})
        accepted = []
        for each in adapters:
            verdict = self._publisher.verdict(Key(ModelAdapter.kind, each.name), each.metadata.generation)
            # Until the compiler has seen a new generation, an adapter that is loaded stays.
            is_known = (
                each.status.replicas.loaded > 0 if verdict is None else verdict.is_accepted and verdict.is_resolved
            )
            if is_known:
                accepted.append(each)
        wanted, refused = choose(model, accepted)
        return _Adapters(adapters, wanted, refused)

    # ---- what replicas have ----

    async def _observe(self, model: Model, engines: _Engines) -> None:
        """Take the ready replicas, and ask those for their adapters that are new or were not asked for a while."""
        found = await self._find(model, engines)
        if found is None:
            return
        known, engines.replicas = engines.replicas, {}
        for each in found:
            replica = known.get(each.key) or self._restored(model.name, each)
            engines.replicas[each.key] = replica
        for key in [key for key in engines.listed_at if key not in engines.replicas]:
            del engines.listed_at[key]
        now = self._clock()
        due = [
            replica
            for key, replica in engines.replicas.items()
            if key not in engines.busy and now - engines.listed_at.get(key, -RESYNC_SECONDS) >= RESYNC_SECONDS
        ]
        await asyncio.gather(*(self._list(engines, replica) for replica in due))

    async def _find(self, model: Model, engines: _Engines) -> list[Found] | None:
        pods = [each for each in self._cache.of_model(model.name) if each["kind"] == "Pod"]
        found = engine_pods(pods)
        if has_doors(pods):
            behind_doors = await ray_replicas(pods, self._http)
            if behind_doors is None and engines.replicas:
                return None  # what was known stays
            found += behind_doors or []
        return found

    def _restored(self, model: str, found: Found) -> Replica:
        """A replica that this process sees for the first time. What statuses say of it is believed until it answers, so
        that a new leader does not take adapters from the gateways."""
        replica = Replica(found.pod, found.key, found.url)
        for adapter in self._adapters_of(model):
            if any(each.pod == found.pod and each.state == "Loaded" for each in adapter.status.per_replica):
                replica.loaded.add(engine_name(adapter))
                replica.probed.add(engine_name(adapter))
        return replica

    async def _list(self, engines: _Engines, replica: Replica) -> None:
        try:
            async with self._limit:
                replica.loaded = await self._client.loaded(replica.url)
        except AdapterError as error:
            log.warning("could not list the adapters of %s: %s", replica.pod, error.message)
            return
        replica.probed &= replica.loaded
        engines.listed_at[replica.key] = self._clock()

    # ---- calls ----

    def _begin(self, model: str, engines: _Engines, actions: Sequence[Action]) -> None:
        by_replica: dict[str, list[Action]] = {}
        for action in actions:
            by_replica.setdefault(action.replica, []).append(action)
        for key, due in by_replica.items():
            # A replica that has not said what it has is asked first, at the next call.
            if key not in engines.busy and key in engines.listed_at:
                engines.busy.add(key)
                self._spawn(self._carry_out(model, engines, engines.replicas[key], due))
            elif key not in engines.listed_at:
                self._add(Key(KEY_KIND, model), 1.0)

    async def _carry_out(self, model: str, engines: _Engines, replica: Replica, actions: Sequence[Action]) -> None:
        try:
            for action in actions:
                async with self._limit:
                    is_reachable = await self._call(replica, action)
                self._add(Key(KEY_KIND, model), REPORT_SECONDS)
                if not is_reachable:
                    break
        finally:
            engines.busy.discard(replica.key)
            self._add(Key(KEY_KIND, model), 0.0)

    async def _call(self, replica: Replica, action: Action) -> bool:
        """One call, and a probe after loading. Returns whether the engine answers."""
        name = action.engine_name
        try:
            if action.act == "unload":
                await self._client.unload(replica.url, name)
                replica.loaded.discard(name)
                replica.probed.discard(name)
                log.info("unloaded adapter %s from %s", name, replica.pod)
            else:
                if action.act == "load":
                    await self._client.load(replica.url, name, action.path)
                    replica.loaded.add(name)
                await self._client.probe(replica.url, name)
                replica.probed.add(name)
                log.info("loaded adapter %s into %s", name, replica.pod)
            replica.failures.pop(name, None)
        except AdapterError as error:
            known = replica.failures.get(name)
            if known is None or known.message != error.message:
                log.warning("could not %s adapter %s of %s: %s", action.act, name, replica.pod, error.message)
            failed(replica, name, error.reason, error.message, self._clock())
            return not isinstance(error, EngineUnreachableError)
        return True

    # ---- what it says ----

    def _publish(self, model: str, chosen: _Adapters, replicas: Sequence[Replica]) -> None:
        loaded: dict[str, AdapterEntry] = {}
        failures: dict[str, str] = {name: refused.message for name, refused in chosen.refused.items()}
        for each in chosen.wanted:
            name = version_in_use(each, replicas)
            pods = pods_of(name, replicas)
            loaded[each.name] = AdapterEntry(engine_name=name, pods=pods)
            of_pods = failures_of(each, replicas)
            if not pods and replicas and len(of_pods) == len(replicas):
                failures[each.name] = of_pods[sorted(of_pods)[0]].message
        self._publisher.set_adapters(model, loaded, failures)

    async def _report(self, model: Model | None, chosen: _Adapters, replicas: Sequence[Replica]) -> None:
        by_name = {each.name: each for each in chosen.wanted}
        for adapter in chosen.live:
            key = Key(ModelAdapter.kind, adapter.name)
            verdict = self._publisher.verdict(key, adapter.metadata.generation)
            if verdict is None:
                continue  # the compiler's verdict calls again
            view = AdapterView(
                wanted=by_name.get(adapter.name),
                refused=chosen.refused.get(adapter.name),
                replicas=replicas,
                verdict=verdict.conditions(refers=True),
                model_state=model.status.state or "Starting" if model is not None else "Starting",
                is_published=self._publisher.is_published(key),
            )
            status = summarize(adapter, view, _now())
            if status != adapter.status:
                await self._write(adapter, status)
                self._emit(adapter, status)

    async def _write(self, adapter: ModelAdapter, status: ModelAdapterStatus) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": ModelAdapter.kind,
            "metadata": {"name": adapter.name, "namespace": self._namespace, "uid": adapter.metadata.uid},
            "status": status.model_dump(mode="json", exclude_none=True),
        }
        try:
            self._cache.put(await self._cluster.apply(body, self._namespace, status=True), is_own=True)
        except ClusterError as error:
            if error.status not in (404, 409):  # it was deleted meanwhile
                raise

    def _emit(self, adapter: ModelAdapter, status: ModelAdapterStatus) -> None:
        """An event about what has changed."""
        manifest = self._cache.get(ModelAdapter.kind, adapter.name)
        ready = next((each for each in status.conditions if each.type == "Ready"), None)
        before = next((each for each in adapter.status.conditions if each.type == "Ready"), None)
        if manifest is None or ready is None or (before is not None and before.reason == ready.reason):
            return
        if ready.status == "True":
            self._recorder.emit(manifest, "Normal", ready.reason, ready.message, key=f"ready {_now()}")
            return
        explanation = EXPLANATIONS[Reason(ready.reason)]
        if not explanation.is_progress and ready.reason != Reason.NO_READY_REPLICA:
            text = f"{sentence(ready.message)} {explanation.remedy}"
            self._recorder.emit(manifest, "Warning", ready.reason, text, key=f"{ready.reason} {_now()}")


def _model_name(adapter: Manifest) -> str:
    return str(((adapter.get("spec") or {}).get("modelRef") or {}).get("name", ""))


def _takes_adapters(model: Manifest) -> bool:
    places = ((model.get("spec") or {}).get("adapters") or {}).get("max", 0)
    return isinstance(places, int) and places > 0


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
