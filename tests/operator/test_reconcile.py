"""The reconcile of a Model, over an API server in memory."""

import asyncio
from typing import Any

import pytest
from hypothesis import given, settings
from tests.operator.fake_cluster import FakeCluster
from tests.operator.generated import specs
from tests.operator.models import UID, body, gpu_spec, sim_spec

from quarterdeck.kube.resources.model import Model
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.operator.apply import Applier
from quarterdeck.operator.autoscaler import Autoscaler
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.cluster import ClusterError
from quarterdeck.operator.endpoint_keys import EndpointKeys
from quarterdeck.operator.event_log import EventLog
from quarterdeck.operator.event_recorder import EventRecorder
from quarterdeck.operator.manifests import Key, Manifest
from quarterdeck.operator.probe import Capabilities
from quarterdeck.operator.publish import Publisher
from quarterdeck.operator.reconcile import ModelReconciler
from quarterdeck.operator.settings import OperatorConfig

CONFIG = OperatorConfig.model_validate(
    {
        "accelerators": {"h100": {"nodeSelector": {"gpu": "h100"}, "tolerations": [{"key": "gpu"}]}},
        "backend": "Deployment",
    }
)
DEPLOYMENT = Key("Deployment", "model-tiny")


class Operation:
    """A reconciler over a cluster, without watches: the cache is filled by `see`."""

    def __init__(self, cluster: FakeCluster, config: OperatorConfig = CONFIG) -> None:
        self.cluster = cluster
        self.cache = ObjectCache()
        self.events: list[tuple[str, str]] = []
        applier = Applier(cluster, self.cache, "models")  # type: ignore[arg-type]
        self.publisher = Publisher(
            self.cache,
            applier,
            EndpointKeys(cluster, "models", "keys"),  # type: ignore[arg-type]
            namespace="models",
            config_map="config",
            base=config.base_config,
            on_verdict=lambda key: None,
        )
        self.recorder = EventRecorder(cluster, "models", "op", lambda work: work.close())  # type: ignore[arg-type]
        self.reconciler = ModelReconciler(
            cluster=cluster,  # type: ignore[arg-type]
            cache=self.cache,
            applier=applier,
            publisher=self.publisher,
            autoscaler=Autoscaler(60, clock=lambda: 0.0),
            recorder=self.recorder,
            events=EventLog(),
            config=config,
            namespace="models",
            capabilities=lambda: Capabilities(frozenset({"apps/v1"})),
            diagnose=lambda pods, events, others: None,
        )

    def see(self) -> None:
        """Take over what the cluster holds, as the watches do."""
        for each in self.cluster.objects.values():
            self.cache.put(each)

    async def settle(self, name: str = "tiny", rounds: int = 6) -> None:
        """Publish and reconcile until nothing is written any more."""
        for _ in range(rounds):
            before = len(self.cluster.writes)
            self.see()
            await self.publisher.publish()
            await self.reconciler.reconcile(name)
            if len(self.cluster.writes) == before:
                return
        raise AssertionError(f"still writing after {rounds} rounds: {self.cluster.writes[-8:]}")

    def status(self, name: str = "tiny") -> dict[str, Any]:
        status: dict[str, Any] = self.cluster.objects[Key("Model", name)].get("status") or {}
        return status

    def condition(self, kind: str, name: str = "tiny") -> tuple[str, str]:
        found = next(each for each in self.status(name)["conditions"] if each["type"] == kind)
        return found["status"], found["reason"]


def edited(manifest: Manifest, **spec: Any) -> Manifest:
    metadata = {**manifest["metadata"], "generation": manifest["metadata"]["generation"] + 1}
    return {**manifest, "metadata": metadata, "spec": {**manifest["spec"], **spec}}


async def running(**spec: Any) -> Operation:
    """A Model with one ready replica."""
    operation = Operation(FakeCluster())
    operation.cluster.add(body(**spec))
    await operation.settle()
    operation.cluster.ready("model-tiny")
    await operation.settle()
    return operation


async def test_a_model_becomes_a_deployment_a_service_and_a_budget_of_its_own() -> None:
    operation = await running()
    children = [each for key, each in operation.cluster.objects.items() if key.kind not in ("Model", "ConfigMap")]
    assert sorted(each["kind"] for each in children) == ["Deployment", "PodDisruptionBudget", "Service"]
    assert {each["metadata"]["ownerReferences"][0]["uid"] for each in children} == {UID}
    assert operation.condition("Ready") == ("True", "Ready")
    assert operation.status()["state"] == "Serving"


async def test_a_second_run_and_a_new_operator_write_nothing() -> None:
    operation = await running(**gpu_spec())
    operation.cluster.writes.clear()
    await operation.reconciler.reconcile("tiny")
    await operation.publisher.publish()
    other = Operation(operation.cluster)
    other.see()
    other.publisher.begin([Key("Model", "tiny")])
    await other.publisher.publish()
    await other.reconciler.reconcile("tiny")
    other.publisher.seen(Key("Model", "tiny"))
    await other.settle()
    assert operation.cluster.writes == []


@pytest.mark.parametrize("kind", ["Deployment", "Service", "PodDisruptionBudget"])
async def test_a_child_that_was_deleted_comes_back(kind: str) -> None:
    operation = await running()
    gone = operation.cluster.objects.pop(Key(kind, "model-tiny"))
    operation.cache.remove(gone)
    await operation.settle()
    back = operation.cluster.objects[Key(kind, "model-tiny")]
    assert back["spec"] == gone["spec"]


async def test_a_child_that_was_edited_is_put_right() -> None:
    operation = await running()
    live = operation.cluster.objects[DEPLOYMENT]
    image = live["spec"]["template"]["spec"]["containers"][0]["image"]
    live["spec"]["template"]["spec"]["containers"][0]["image"] = "evil"
    operation.cluster.add(live)
    await operation.settle()
    live = operation.cluster.objects[DEPLOYMENT]
    assert live["spec"]["template"]["spec"]["containers"][0]["image"] == image


async def test_an_object_of_someone_else_is_left_alone() -> None:
    operation = Operation(FakeCluster())
    operation.cluster.add(body())
    theirs = operation.cluster.add(
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "model-tiny"}, "spec": {"ports": []}}
    )
    operation.cache.put(operation.cluster.objects[Key("Model", "tiny")])
    for _ in range(3):
        await operation.publisher.publish()
        await operation.reconciler.reconcile("tiny")
    assert operation.cluster.objects[Key("Service", "model-tiny")]["spec"] == theirs["spec"]
    assert operation.condition("Accepted") == ("False", "NameConflict")
    assert "Service 'model-tiny' exists" in operation.status()["message"]


async def test_an_edit_states_its_extra_gpus_before_it_is_carried_out() -> None:
    operation = await running(**gpu_spec())
    operation.cluster.add(edited(operation.cluster.objects[Key("Model", "tiny")], context=8192))
    operation.cluster.writes.clear()
    seen: list[dict[str, Any]] = []

    def before(verb: str, key: Key) -> None:
        if verb == "apply" and key == DEPLOYMENT:
            seen.append(operation.status()["plan"])

    operation.cluster.before = before
    await operation.settle()
    assert [(each["edit"], each["extraGPUs"]) for each in seen] == [("EngineRestart", 2)]


@pytest.mark.parametrize(
    ("change", "edit", "gpus"),
    [
        ({"context": 8192}, "EngineRestart", 2),
        ({"context": 8192, "rollout": {"strategy": "Recreate", "drainSeconds": 90}}, "EngineRestart", 0),
        ({"scaling": {"min": 3, "max": 4}}, "InPlace", 0),
        ({"price": {"input": "1"}}, "InPlace", 0),
        ({"suspend": True}, "InPlace", 0),
    ],
)
async def test_each_edit_is_classified(change: dict[str, Any], edit: str, gpus: int) -> None:
    operation = await running(**gpu_spec())
    operation.cluster.add(edited(operation.cluster.objects[Key("Model", "tiny")], **change))
    await operation.settle()
    assert (operation.status()["plan"]["edit"], operation.status()["plan"]["extraGPUs"]) == (edit, gpus)


@pytest.mark.parametrize(
    ("change", "condition", "reason"),
    [
        ({"podTemplatePatch": {"spec": {"containers": "none"}}}, "Accepted", "InvalidPodTemplatePatch"),
        ({"podTemplatePatch": {"metadata": {"labels": None}}}, "Accepted", "InvalidPodTemplatePatch"),
        ({"resources": {"accelerator": "tpu"}}, "Accepted", "UnknownAccelerator"),
        ({"backend": "RayService"}, "Planned", "BackendUnavailable"),
    ],
)
async def test_an_invalid_edit_is_reported_and_the_last_good_engine_keeps_running(
    change: dict[str, Any], condition: str, reason: str
) -> None:
    operation = await running()
    before = operation.cluster.objects[DEPLOYMENT]["spec"]
    operation.cluster.add(edited(operation.cluster.objects[Key("Model", "tiny")], **change))
    await operation.settle()
    assert operation.cluster.objects[DEPLOYMENT]["spec"] == before
    assert operation.condition(condition) == ("False", reason)
    assert operation.condition("Ready") == ("False", reason)
    assert operation.status()["message"]


async def test_what_the_api_server_refuses_is_reported_in_its_words() -> None:
    operation = await running()

    def before(verb: str, key: Key) -> None:
        if verb == "apply" and key == DEPLOYMENT:
            raise ClusterError(422, "Invalid", "spec.template.spec.containers[0].image: Required value")

    operation.cluster.before = before
    patch = {"spec": {"containers": [{"name": "engine", "image": ""}]}}
    operation.cluster.add(edited(operation.cluster.objects[Key("Model", "tiny")], podTemplatePatch=patch))
    await operation.settle()
    assert operation.condition("Accepted") == ("False", "InvalidPodTemplatePatch")
    assert "image: Required value" in operation.status()["message"]
    assert operation.status()["state"] == "Serving"


async def test_a_suspended_model_has_no_replicas_and_starts_again() -> None:
    operation = await running(**sim_spec(scaling={"min": 2, "max": 4}))
    manifest = operation.cluster.objects[Key("Model", "tiny")]
    operation.cluster.add(edited(manifest, suspend=True))
    await operation.settle()
    assert operation.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 0
    assert operation.status()["state"] == "Suspended"
    assert operation.condition("Ready") == ("False", "Suspended")
    operation.cluster.add(edited(operation.cluster.objects[Key("Model", "tiny")], suspend=False))
    await operation.settle()
    assert operation.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == 2
    assert [(e["from"], e["to"]) for e in operation.status()["lastScalings"]] == [(0, 2), (2, 0)]


async def test_the_scale_subresource_sets_replicas_within_the_bounds() -> None:
    operation = await running(**sim_spec(scaling={"min": 1, "max": 3}))
    for wanted, found in ((2, 2), (9, 3), (0, 1)):
        manifest = operation.cluster.objects[Key("Model", "tiny")]
        operation.cluster.add(edited(manifest, scaling={"min": 1, "max": 3, "replicas": wanted}))
        await operation.settle()
        assert operation.cluster.objects[DEPLOYMENT]["spec"]["replicas"] == found
    assert operation.status()["lastScalings"][0]["reason"] == "set by spec.scaling.replicas"


async def test_a_model_with_external_endpoints_has_no_objects() -> None:
    operation = Operation(FakeCluster())
    operation.cluster.add(body(endpoints=[{"url": "http://10.0.0.7:8000", "kind": "ollama"}]))
    await operation.settle()
    assert {key.kind for key in operation.cluster.objects} == {"Model", "ConfigMap"}
    assert operation.condition("Ready") == ("True", "ExternalEndpoints")


async def test_the_younger_of_two_models_with_one_name_is_refused_by_name() -> None:
    operation = await running()
    other = body("other", **sim_spec(servedName="tiny"))
    other["metadata"] |= {"uid": "u2", "creationTimestamp": "2026-02-01T00:00:00Z"}
    operation.cluster.add(other)
    await operation.settle("other")
    assert operation.condition("Accepted", "other") == ("False", "NameConflict")
    assert "tiny" in operation.status("other")["message"]
    assert Key("Deployment", "model-other") not in operation.cluster.objects
    await operation.settle("tiny")
    assert operation.condition("Ready") == ("True", "Ready")


async def test_a_model_that_is_being_deleted_gets_no_new_objects() -> None:
    operation = await running()
    manifest = operation.cluster.objects[Key("Model", "tiny")]
    manifest["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    operation.cluster.add(manifest)
    del operation.cluster.objects[DEPLOYMENT]
    await operation.settle()
    assert DEPLOYMENT not in operation.cluster.objects
    assert '"models": []' in operation.cluster.objects[Key("ConfigMap", "config")]["data"]["quarterdeck.yaml"]


@pytest.mark.parametrize("edit", [False, True], ids=["create", "update"])
async def test_an_operator_that_dies_at_any_write_leaves_what_the_next_one_completes(edit: bool) -> None:
    """Every write of a create and of an update in turn is the last one of an operator."""

    async def complete(crash_at: int | None) -> tuple[dict[Key, Any], int]:
        count = 0

        def before(verb: str, key: Key) -> None:
            nonlocal count
            if count == crash_at:
                raise KeyboardInterrupt
            count += 1

        operation = Operation(FakeCluster())
        operation.cluster.add(body(**gpu_spec()))
        if edit:
            await operation.settle()
            operation.cluster.ready("model-tiny")
            await operation.settle()
            change = {"context": 8192, "scaling": {"min": 2, "max": 4}}
            operation.cluster.add(edited(operation.cluster.objects[Key("Model", "tiny")], **change))
        operation.cluster.before = before
        try:
            await operation.settle()
        except KeyboardInterrupt:
            operation.cluster.before = lambda verb, key: None
            operation = Operation(operation.cluster)
            await operation.settle()
        specs = {key: each.get("spec") for key, each in operation.cluster.objects.items() if key.kind != "Event"}
        return specs, count

    expected, writes = await complete(None)
    assert writes >= 4
    for crash_at in range(writes):
        found, _ = await complete(crash_at)
        assert found == expected, crash_at


@settings(max_examples=200)
@given(specs())
def test_no_spec_stops_the_operator_and_none_is_written_for_ever(spec: dict[str, Any]) -> None:
    asyncio.run(_reconciles(spec))


@pytest.mark.long
@settings(max_examples=2000)
@given(specs())
def test_two_thousand_specs_do_not_stop_the_operator(spec: dict[str, Any]) -> None:
    asyncio.run(_reconciles(spec))


async def _reconciles(spec: dict[str, Any]) -> None:
    operation = Operation(FakeCluster())
    operation.cluster.add({**body(), "spec": spec})
    await operation.settle()
    status = operation.status()
    assert status["observedGeneration"] == 1 and status["message"]
    assert [each["type"] for each in status["conditions"]][-1] == "Ready"
    try:
        Model.parse(operation.cluster.objects[Key("Model", "tiny")])
    except InvalidObjectError:
        assert DEPLOYMENT not in operation.cluster.objects
