"""The controller over an API server in memory and simulated engines: adapters get to where they are wanted."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import httpx
from tests.operator.fake_cluster import FakeCluster

from quarterdeck.kube.compiled import EngineEntry, EngineIndex
from quarterdeck.kube.names import API_VERSION, MODEL_LABEL
from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.adapters.controller import AdapterController
from quarterdeck.operator.apply import Applier
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.endpoint_keys import EndpointKeys
from quarterdeck.operator.event_recorder import EventRecorder
from quarterdeck.operator.manifests import Key, Manifest
from quarterdeck.operator.publish import Publisher
from quarterdeck.simulator import SimulatorConfig, create_app

TICK = 3.0


class Engines(httpx.AsyncBaseTransport):
    """Simulated engines by address."""

    def __init__(self) -> None:
        self.apps: dict[str, Any] = {}
        self.calls = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.calls += 1
        app = self.apps.get(request.url.host)
        if app is None:
            raise httpx.ConnectError("connection refused", request=request)
        return await httpx.ASGITransport(app).handle_async_request(request)


class Operation:
    """A controller; `settle` plays the watches, the publisher and the passing of time."""

    def __init__(self, cluster: FakeCluster, engines: Engines, clock: list[float]) -> None:
        self.cluster, self.engines, self.clock = cluster, engines, clock
        self.cache = ObjectCache()
        applier = Applier(cluster, self.cache, "models")  # type: ignore[arg-type]
        self.publisher = Publisher(
            self.cache,
            applier,
            EndpointKeys(cluster, "models", "keys"),  # type: ignore[arg-type]
            namespace="models",
            config_map="config",
            base={},
            on_verdict=lambda key: None,
        )
        self.events: list[tuple[str, str]] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.controller = AdapterController(
            cluster=cluster,  # type: ignore[arg-type]
            cache=self.cache,
            publisher=self.publisher,
            recorder=EventRecorder(cluster, "models", "op", self.write_event),  # type: ignore[arg-type]
            http=httpx.AsyncClient(transport=engines),
            namespace="models",
            parse=Model.parse,
            add=lambda key, seconds: None,
            spawn=self.spawn,
            clock=lambda: clock[0],
        )

    def write_event(self, work: Coroutine[Any, Any, None]) -> None:
        work.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self.tasks.append(asyncio.get_running_loop().create_task(work))

    def see(self) -> None:
        for each in self.cluster.objects.values():
            self.cache.put(each)
        for kind in ("Pod", "ModelAdapter"):
            for key in self.cache.keys(kind):
                if key not in self.cluster.objects and (gone := self.cache.get(*key)) is not None:
                    self.cache.remove(gone)

    async def settle(self, rounds: int = 6) -> None:
        for _ in range(rounds):
            self.see()
            await self.publisher.publish()
            await self.controller.reconcile("base")
            await asyncio.gather(*self.tasks)
            self.tasks.clear()
            self.clock[0] += TICK
        self.see()
        await self.controller.reconcile("base")
        await self.publisher.publish()

    def entry(self) -> EngineEntry:
        text = self.cluster.objects[Key("ConfigMap", "config")]["data"]["engines.json"]
        return EngineIndex.decode(text).engines["base"]

    def pods_of(self, adapter: str) -> tuple[str, ...]:
        return self.entry().adapters[adapter].pods

    def ready(self, adapter: str) -> tuple[str, str]:
        status = self.cluster.objects[Key("ModelAdapter", adapter)]["status"]
        found = next(each for each in status["conditions"] if each["type"] == "Ready")
        return found["status"], found["reason"]

    def loaded(self, pod: str) -> set[str]:
        return {each.name.partition("@")[0] for each in self.engines.apps[address_of(pod)].engine.adapters.all()}


def address_of(pod: str) -> str:
    return f"10.0.0.{pod.rpartition('-')[2]}"


def model(places: int = 8) -> Manifest:
    spec = {"engine": {"type": "sim"}, "adapters": {"max": places}}
    return {
        "apiVersion": API_VERSION,
        "kind": "Model",
        "metadata": {"name": "base", "namespace": "models"},
        "spec": spec,
    }


def adapter(name: str, path: str = "fine", day: int = 1, **more: Any) -> Manifest:
    metadata = {"name": name, "namespace": "models", "creationTimestamp": f"2026-01-{day:02d}T00:00:00Z"}
    spec = {"modelRef": {"name": "base"}, "source": {"uri": f"file:///a/{path}"}, **more}
    return {"apiVersion": API_VERSION, "kind": "ModelAdapter", "metadata": metadata, "spec": spec}


def pod(number: int, run: int = 0) -> Manifest:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"pod-{number}", "namespace": "models", "labels": {MODEL_LABEL: "base"}},
        "spec": {"containers": [{"name": "engine", "ports": [{"name": "http", "containerPort": 8000}]}]},
        "status": {
            "podIP": address_of(f"pod-{number}"),
            "conditions": [{"type": "Ready", "status": "True"}],
            "containerStatuses": [{"name": "engine", "containerID": f"run-{run}"}],
        },
    }


def start(replicas: int = 2, *adapters: Manifest, places: int = 8) -> Operation:
    cluster, engines = FakeCluster(), Engines()
    cluster.add(model(places))
    for number in range(1, replicas + 1):
        cluster.add(pod(number))
        engines.apps[address_of(f"pod-{number}")] = create_app(SimulatorConfig(model="base", max_loras=places))
    for each in adapters:
        cluster.add(each)
    return Operation(cluster, engines, [1000.0])


async def test_an_adapter_is_loaded_probed_published_and_reported() -> None:
    operation = start(2, adapter("poet"))
    await operation.settle()
    assert operation.loaded("pod-1") == operation.loaded("pod-2") == {"poet"}
    assert operation.pods_of("poet") == ("pod-1", "pod-2")
    assert operation.ready("poet") == ("True", "Ready")


async def test_a_steady_state_calls_nothing_and_writes_nothing() -> None:
    operation = start(2, adapter("poet"), adapter("bad", "fail-rank"))
    await operation.settle()
    calls, writes = operation.engines.calls, len(operation.cluster.writes)
    operation.clock[0] += 0.1
    await operation.controller.reconcile("base")
    assert (operation.engines.calls, len(operation.cluster.writes)) == (calls, writes)


async def test_a_bad_adapter_harms_only_itself() -> None:
    operation = start(2, adapter("poet"), adapter("big", "fail-rank"), adapter("broken", "fail-probe"))
    await operation.settle()
    assert operation.pods_of("poet") == ("pod-1", "pod-2")
    assert operation.pods_of("big") == operation.pods_of("broken") == ()
    assert operation.ready("big") == ("False", "AdapterRankTooLarge")
    assert operation.ready("broken") == ("False", "AdapterProbeFailed")
    assert set(operation.entry().failed_adapters) == {"big", "broken"}


async def test_a_restarted_engine_and_a_new_replica_get_the_adapter() -> None:
    operation = start(2, adapter("poet"))
    await operation.settle()
    operation.engines.apps[address_of("pod-1")] = create_app(SimulatorConfig(model="base"))
    operation.cluster.add(pod(1, run=1))
    operation.engines.apps[address_of("pod-3")] = create_app(SimulatorConfig(model="base"))
    operation.cluster.add(pod(3))
    operation.see()
    await operation.controller.reconcile("base")
    await operation.publisher.publish()
    assert operation.pods_of("poet") == ("pod-2",), "not where it is not yet"
    await operation.settle()
    assert operation.pods_of("poet") == ("pod-1", "pod-2", "pod-3")


async def test_a_deleted_adapter_is_taken_from_gateways_first_and_unloaded_then() -> None:
    operation = start(2, adapter("poet"), adapter("other"))
    await operation.settle()
    del operation.cluster.objects[Key("ModelAdapter", "poet")]
    operation.see()
    await operation.publisher.publish()
    await operation.controller.reconcile("base")
    assert set(operation.entry().adapters) == {"other"}
    assert operation.loaded("pod-1") == {"poet", "other"}, "a request may be on its way"
    await operation.settle()
    assert operation.loaded("pod-1") == operation.loaded("pod-2") == {"other"}


async def test_a_new_operator_takes_nothing_from_gateways_and_unloads_what_is_left() -> None:
    operation = start(2, adapter("poet"), adapter("old"))
    await operation.settle()
    del operation.cluster.objects[Key("ModelAdapter", "old")]
    operation.cluster.objects.pop(Key("ConfigMap", "config"))
    successor = Operation(operation.cluster, operation.engines, [5000.0])
    unreachable = successor.engines.apps.pop(address_of("pod-2"))
    successor.see()
    await successor.publisher.publish()
    await successor.controller.reconcile("base")
    await successor.publisher.publish()
    assert successor.pods_of("poet") == ("pod-1", "pod-2"), "an engine that does not answer at the moment keeps it"
    successor.engines.apps[address_of("pod-2")] = unreachable
    await successor.settle(rounds=30)
    assert successor.loaded("pod-1") == successor.loaded("pod-2") == {"poet"}


async def test_another_source_replaces_the_adapter_without_a_gap() -> None:
    operation = start(2, adapter("poet"))
    await operation.settle()
    before = operation.entry().adapters["poet"].engine_name
    changed = operation.cluster.objects[Key("ModelAdapter", "poet")]
    changed["spec"] = {**changed["spec"], "source": {"uri": "file:///a/next"}}
    changed["metadata"]["generation"] += 1
    operation.cluster.add(changed)
    for _ in range(8):
        await operation.settle(rounds=1)
        assert operation.pods_of("poet"), "served all the time"
    assert operation.entry().adapters["poet"].engine_name != before
    await operation.settle(rounds=6)
    assert [len(app.engine.adapters.all()) for app in operation.engines.apps.values()] == [1, 1]


async def test_more_adapters_than_places() -> None:
    operation = start(1, *(adapter(f"a{day}", day=day) for day in (1, 2, 3)), places=2)
    await operation.settle()
    assert operation.loaded("pod-1") == {"a1", "a2"}
    assert operation.ready("a3") == ("False", "TooManyAdapters")


async def test_a_hundred_adapters_on_four_replicas() -> None:
    """Bounded by calls, not by time: one list of each replica, and a load and a probe of each adapter there."""
    operation = start(4, *(adapter(f"a{number}") for number in range(100)), places=100)
    await operation.settle(rounds=2)
    assert all(len(operation.pods_of(f"a{number}")) == 4 for number in range(100))
    assert operation.engines.calls == 4 + 2 * 400
