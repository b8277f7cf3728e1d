"""What gateways are given, and when."""

import json
from typing import Any

from tests.operator.fake_cluster import FakeCluster
from tests.operator.models import body, sim_spec

from quarterdeck.kube.compiled import AdapterEntry
from quarterdeck.operator.apply import Applier
from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.endpoint_keys import EndpointKeys
from quarterdeck.operator.manifests import Key
from quarterdeck.operator.publish import HOLD_SECONDS, Owner, Publisher

CONFIG = Key("ConfigMap", "config")


class Publishing:
    """A publisher over a cluster in memory, with a clock of its own."""

    def __init__(self, cluster: FakeCluster | None = None, base: dict[str, Any] | None = None) -> None:
        self.now = 0.0
        self.cluster = cluster or FakeCluster()
        self.cache = ObjectCache()
        self.verdicts: list[Key] = []
        self.publisher = Publisher(
            self.cache,
            Applier(self.cluster, self.cache, "models"),  # type: ignore[arg-type]
            EndpointKeys(self.cluster, "models", "keys", clock=lambda: self.now),  # type: ignore[arg-type]
            namespace="models",
            config_map="config",
            base=base or {},
            on_verdict=self.verdicts.append,
            clock=lambda: self.now,
        )

    async def publish(self, *manifests: dict[str, Any]) -> None:
        for each in manifests:
            self.cluster.add(each)
        for each in self.cluster.objects.values():
            self.cache.put(each)
        await self.publisher.publish()

    @property
    def config(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cluster.objects[CONFIG]["data"]["quarterdeck.yaml"])
        return found

    @property
    def engines(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.cluster.objects[CONFIG]["data"]["engines.json"])["engines"]
        return found

    @property
    def names(self) -> list[str]:
        return [each["name"] for each in self.config["models"]]


def named(name: str, **spec: Any) -> dict[str, Any]:
    found = body(name, **(spec or sim_spec()))
    found["metadata"]["uid"] = f"uid-{name}"
    return found


async def test_without_a_model_there_is_a_configuration_too() -> None:
    publishing = Publishing(base={"gateway": {"max_body_mb": 8}})
    await publishing.publish()
    assert publishing.config["models"] == [] and publishing.config["gateway"] == {"max_body_mb": 8}


async def test_the_same_objects_are_written_once() -> None:
    publishing = Publishing()
    await publishing.publish(named("a"), named("b"))
    await publishing.publish()
    assert publishing.cluster.writes == [("apply", CONFIG)] and publishing.names == ["a", "b"]


async def test_a_configuration_edited_by_hand_is_put_right_and_belongs_to_the_operator() -> None:
    publishing = Publishing()
    publishing.publisher.owner = Owner("qd-operator", "uid-op")
    await publishing.publish(named("a"))
    owner = publishing.cluster.objects[CONFIG]["metadata"]["ownerReferences"][0]
    assert (owner["kind"], owner["name"], owner["uid"]) == ("Deployment", "qd-operator", "uid-op")
    edited = publishing.cluster.objects[CONFIG]
    edited["data"] = {**edited["data"], "quarterdeck.yaml": "models: []"}
    await publishing.publish(edited)
    assert publishing.names == ["a"]


async def test_the_state_of_an_engine_and_its_adapters_are_published() -> None:
    publishing = Publishing()
    adapter = {
        "apiVersion": "quarterdeck.dev/v1alpha1",
        "kind": "ModelAdapter",
        "metadata": {"name": "law", "generation": 1, "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"modelRef": {"name": "a"}, "source": {"uri": "org/law"}, "servedName": "a-law"},
    }
    publishing.publisher.set_state("a", "Failed", "No such GPU.")
    publishing.publisher.set_adapters("a", {"law": AdapterEntry(engine_name="law", pods=("p1",))}, {})
    await publishing.publish(named("a", **sim_spec(adapters={"max": 2})), adapter)
    entry = publishing.engines["a"]
    assert (entry["state"], entry["detail"]) == ("Failed", "No such GPU.")
    assert entry["adapters"]["a-law"]["pods"] == ["p1"]
    assert publishing.publisher.names == {"a": "a", "a-law": "a"}


async def test_an_invalid_spec_leaves_the_last_accepted_one_in_force() -> None:
    publishing = Publishing()
    await publishing.publish(named("a", **sim_spec(context=4096)))
    broken = named("a", **sim_spec(routing={"session": "header:x-session"}))
    broken["metadata"]["generation"] = 2
    await publishing.publish(broken)
    verdict = publishing.publisher.verdict(Key("Model", "a"), 2)
    assert verdict is not None and not verdict.is_accepted and "forward_headers" in verdict.message
    assert publishing.names == ["a"] and publishing.publisher.is_published(Key("Model", "a"))
    gone = {**broken, "metadata": {**broken["metadata"], "uid": "another"}}
    await publishing.publish(gone)  # made again under the name: there is no last accepted one
    assert publishing.names == []


async def test_an_invalid_base_keeps_the_last_documents_and_says_why() -> None:
    first = Publishing()
    await first.publish(named("a"))
    broken = Publishing(first.cluster, base={"gateway": {"max_body_mb": -1}})
    await broken.publish(named("b"))
    assert broken.names == ["a"]
    verdict = broken.publisher.verdict(Key("Model", "b"), 1)
    assert verdict is not None and verdict.reason == "ConfigurationInvalid" and "max_body_mb" in verdict.message
    assert Key("Model", "b") in broken.verdicts


async def test_a_new_leader_writes_nothing_before_it_has_seen_each_object() -> None:
    first = Publishing()
    first.publisher.set_state("a", "Serving", "")
    first.publisher.set_state("b", "Serving", "")
    await first.publish(named("a"), named("b"))
    keys = [Key("Model", "a"), Key("Model", "b")]
    second = Publishing(first.cluster)
    second.publisher.begin(keys)
    await second.publish(named("c"))
    assert second.engines == {name: second.engines[name] for name in ("a", "b")}
    assert all(second.publisher.is_published(key) for key in keys)
    assert not second.publisher.is_published(Key("Model", "c"))
    for key in keys:
        second.publisher.set_state(key.name, "Serving", "")
        second.publisher.seen(key)
    await second.publish()
    assert second.names == ["a", "b", "c"] and second.engines["a"]["state"] == "Serving"


async def test_a_new_leader_does_not_wait_for_ever_for_an_object_that_fails() -> None:
    first = Publishing()
    await first.publish(named("a"))
    second = Publishing(first.cluster)
    second.publisher.begin([Key("Model", "a")])
    await second.publish(named("b"))
    assert second.names == ["a"]
    second.now = HOLD_SECONDS + 1
    await second.publish()
    assert second.names == ["a", "b"]


async def test_a_new_leader_takes_the_state_of_an_engine_from_its_status() -> None:
    publishing = Publishing()
    failed = {**named("a"), "status": {"state": "Failed", "message": "No such GPU."}}
    await publishing.publish(
        failed, {**named("b"), "status": {"state": "Zero"}}, {**named("c"), "status": {"state": 7}}
    )
    assert {name: entry.get("state") for name, entry in publishing.engines.items()} == {
        "a": "Failed",
        "b": "Zero",
        "c": None,  # Starting
    }


async def test_keys_of_endpoints_are_copied_and_followed() -> None:
    publishing = Publishing()
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "hosted"}, "data": {"key": "c2VjcmV0"}}
    endpoint = {"url": "https://api.example.com", "kind": "openai", "secretRef": {"name": "hosted", "key": "key"}}
    await publishing.publish(secret, named("a", endpoints=[endpoint]))
    target = Key("Secret", "keys")
    assert publishing.cluster.objects[target]["data"] == {"hosted_key": "c2VjcmV0"}
    assert "c2VjcmV0" not in json.dumps(publishing.cluster.objects[CONFIG])
    writes = len(publishing.cluster.writes)
    publishing.now += 61
    await publishing.publish()
    assert len(publishing.cluster.writes) == writes
    publishing.cluster.objects[Key("Secret", "hosted")]["data"] = {"key": "bmV3"}
    publishing.now += 61
    await publishing.publish()
    assert publishing.cluster.objects[target]["data"] == {"hosted_key": "bmV3"}


async def test_a_missing_key_of_an_endpoint_does_not_hold_up_the_others() -> None:
    publishing = Publishing()
    endpoint = {"url": "https://api.example.com", "kind": "openai", "secretRef": {"name": "none", "key": "key"}}
    await publishing.publish(named("a", endpoints=[endpoint]), named("b"))
    assert publishing.names == ["a", "b"]
