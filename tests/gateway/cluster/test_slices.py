"""EndpointSlices become endpoints: each pod once, whatever the slices, with the name and state that its Model has."""

from dataclasses import replace
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quarterdeck.gateway.cluster.slices import (
    EndpointSlice,
    Entries,
    addresses,
    doors,
    engine_specs,
    is_foreign,
    of_door,
    placeholders,
    replica_hosts,
    unavailable,
)
from quarterdeck.inference.endpoints.endpoint import EndpointSpec
from quarterdeck.inference.endpoints.sources import indexed, updated
from quarterdeck.kube.compiled import EngineEntry, EngineIndex


def pod(address: str, name: str = "", **conditions: bool | None) -> dict[str, Any]:
    target = {"kind": "Pod", "name": name, "uid": f"uid-{name}"} if name else None
    return {"addresses": [address], "conditions": {"ready": True, **conditions}, "targetRef": target}


def a_slice(
    name: str, *pods: dict[str, Any], model: str = "chat", role: str = "engine", family: str = "IPv4", **more: Any
) -> EndpointSlice:
    service = f"model-{model}-replicas" if role == "replica" else f"model-{model}"
    labels = {
        "quarterdeck.dev/model": model,
        "quarterdeck.dev/role": role,
        "kubernetes.io/service-name": service,
    } | more.pop("labels", {})
    document = {
        "metadata": {"name": name, "labels": labels},
        "addressType": family,
        "endpoints": list(pods) or None,
        "ports": [{"name": "metrics", "port": 9000}, {"name": "http", "port": 8000, "protocol": "TCP"}],
        **more,
    }
    return msgspec.convert(document, EndpointSlice)


def entries(**changes: Any) -> Entries:
    entry = EngineEntry(**({"object": "chat", "model": "team/chat", "state": "Serving"} | changes))
    return Entries(EngineIndex(engines={"chat": entry}))


def test_a_ready_pod_is_an_endpoint_of_its_public_name() -> None:
    (spec,) = engine_specs([a_slice("s", pod("10.0.0.1", "chat-1"))], entries(max_running=8, task="embed"))
    assert (spec.id, spec.model, spec.url, spec.state) == ("chat/chat-1", "team/chat", "http://10.0.0.1:8000", "ready")
    assert (spec.max_running, spec.task) == (8, "embed")


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ({"ready": True, "serving": True, "terminating": False}, "ready"),
        ({"ready": False, "serving": False, "terminating": False}, "starting"),
        ({"ready": False, "serving": True, "terminating": True}, "draining"),
        ({"ready": False, "serving": False, "terminating": True}, "draining"),
        ({"ready": None, "serving": None, "terminating": None}, "ready"),
    ],
)
def test_conditions_become_states(conditions: dict[str, Any], state: str) -> None:
    (spec,) = engine_specs([a_slice("s", pod("10.0.0.1", "p", **conditions))], entries())
    assert spec.state == state


def test_many_slices_are_one_set() -> None:
    found = [a_slice(f"s{n}", *[pod(f"10.0.{n}.{m}", f"p{n}-{m}") for m in range(100)]) for n in range(3)]
    assert len(engine_specs(found, entries())) == 300


def test_a_pod_of_two_families_is_one_endpoint() -> None:
    four, six = a_slice("a6", pod("fd00::1", "p"), family="IPv6"), a_slice("b4", pod("10.0.0.1", "p"))
    assert [spec.url for spec in engine_specs([four, six], entries())] == ["http://10.0.0.1:8000"]
    assert [spec.url for spec in engine_specs([four], entries())] == ["http://[fd00::1]:8000"]


def test_a_pod_that_moves_between_slices_is_one_endpoint() -> None:
    found = [a_slice("old", pod("10.0.0.1", "p", ready=False)), a_slice("new", pod("10.0.0.1", "p"))]
    assert [spec.state for spec in engine_specs(found, entries())] == ["ready"]
    found = [a_slice("old", pod("10.0.0.1", "p")), a_slice("new", pod("10.0.0.1", "p", terminating=True))]
    assert [spec.state for spec in engine_specs(found, entries())] == ["draining"]


def test_an_empty_slice_and_one_of_names_have_no_endpoints() -> None:
    found = [a_slice("empty"), a_slice("names", pod("example.com", "p"), family="FQDN"), a_slice("q", ports=None)]
    assert engine_specs(found, entries()) == []


def test_an_address_that_is_no_pod_is_called_by_its_address() -> None:
    (spec,) = engine_specs([a_slice("s", pod("10.0.0.9"))], entries())
    assert spec.id == "chat/10.0.0.9"


def test_a_model_that_the_index_does_not_know_has_no_endpoints_yet() -> None:
    assert engine_specs([a_slice("s", pod("10.0.0.1", "p"), model="other")], entries()) == []


def test_an_adapter_is_served_by_the_pods_that_have_loaded_it() -> None:
    index = entries(adapters={"pirate": {"engine_name": "pirate@f00", "pods": ["p1"]}})
    one, two = engine_specs([a_slice("s", pod("10.0.0.1", "p1"), pod("10.0.0.2", "p2"))], index)
    assert (one.adapters, one.name_of("pirate")) == (frozenset({"pirate"}), "pirate@f00")
    assert two.adapters == frozenset()


def test_a_pod_of_an_older_template_may_have_other_weights() -> None:
    names = ("model-chat-6f7b4c9d8f-x2k4z", "model-chat-6f7b4c9d8f-b5m7q", "model-chat-78d9f6b4cc-x2k4z")
    found = [a_slice("s", *[pod(f"10.0.0.{at}", name) for at, name in enumerate(names)])]
    same, also, other = engine_specs(found, entries(version="v2"))
    assert same.version == also.version != other.version


class TestCanary:
    """Two Services: one selects all pods of the Model, one those of the revision."""

    index = Entries(
        EngineIndex(
            engines={
                "chat": EngineEntry(object="chat", model="chat@r1", engine_name="chat", state="Serving"),
                "chat@r2": EngineEntry(
                    object="chat", revision="r2", model="chat@r2", engine_name="chat", state="Serving"
                ),
            }
        )
    )
    slices = (
        a_slice("all", pod("10.0.0.1", "old"), pod("10.0.0.2", "new")),
        a_slice("canary", pod("10.0.0.2", "new"), labels={"quarterdeck.dev/revision": "r2"}),
    )

    @pytest.mark.parametrize("order", [slice(None), slice(None, None, -1)])
    def test_each_pod_answers_for_its_revision(self, order: slice) -> None:
        specs = engine_specs(self.slices[order], self.index)
        assert {spec.id: spec.model for spec in specs} == {"chat/old": "chat@r1", "chat/new": "chat@r2"}
        assert {spec.name_of(spec.model) for spec in specs} == {"chat"}, "engines know the public name"


def test_models_without_pods_are_listed_with_their_state() -> None:
    index = Entries(
        EngineIndex(
            engines={
                state: EngineEntry(object=state, model=state, state=state, detail=f"It is {state}.")
                for state in ("Zero", "Starting", "Failed", "Suspended", "Serving")
            }
        )
    )
    found = {spec.model: (spec.state, spec.problem) for spec in placeholders(index, {"Serving"})}
    assert found == {
        "Zero": ("idle", ""),
        "Starting": ("starting", ""),
        "Failed": ("starting", "It is Failed."),
        "Suspended": ("starting", "It is Suspended."),
    }
    assert unavailable(index) == {"Failed": "It is Failed.", "Suspended": "It is Suspended."}


def test_an_adapter_that_no_pod_can_load_is_unavailable() -> None:
    index = entries(failed_adapters={"big": "its rank 64 is above 16."})
    assert unavailable(index) == {"big": "its rank 64 is above 16."}


def test_a_door_lists_its_endpoints_under_the_public_name() -> None:
    found = doors([a_slice("s", pod("10.0.0.1", "head"), role="door")])
    (door,) = found.values()
    entry = EngineEntry(object="chat", model="team/chat", version="v1")
    listed = EndpointSpec(id="chat#1", model="chat", url="http://10.0.0.5:9", adapters=frozenset({"pirate"}))
    spec = of_door(listed, door, entry)
    assert (spec.id, spec.model, spec.version) == ("chat/chat#1", "team/chat", "v1")
    assert (spec.name_of("team/chat"), spec.name_of("pirate")) == ("chat", "pirate")


def test_the_endpoints_of_a_door_that_ends_are_draining() -> None:
    (door,) = doors([a_slice("s", pod("10.0.0.1", "head", terminating=True), role="door")]).values()
    spec = of_door(EndpointSpec("e", "chat", "http://x"), door, EngineEntry(object="chat", model="chat"))
    assert spec.state == "draining"


def test_a_slice_of_a_service_with_another_name_is_no_engine() -> None:
    """Who may create a Service in the namespace may label it."""
    other = a_slice("s", pod("10.0.0.66", "x"), labels={"kubernetes.io/service-name": "model-chat2"})
    assert engine_specs([other], entries()) == []
    nameless = a_slice("s", pod("10.0.0.66", "x"), labels={"kubernetes.io/service-name": ""})
    assert engine_specs([nameless], entries()) == []
    canary = a_slice("s", pod("10.0.0.5", "x"), labels={"kubernetes.io/service-name": "model-chat-canary"})
    assert len(engine_specs([canary], entries())) == 1


def test_a_replica_is_in_a_pod_of_its_model() -> None:
    slices = [
        a_slice("a", pod("10.0.0.5", "w1"), pod("10.0.0.6", "w2", ready=False), role="replica"),
        a_slice("b", pod("fd00::5", "w1"), role="replica", family="IPv6"),
        a_slice("c", pod("10.0.0.7", "v1"), role="replica", model="other"),
        a_slice("d", pod("10.0.0.8", "e1")),
    ]
    hosts = replica_hosts(slices)
    assert hosts == {"chat": {"10.0.0.5", "10.0.0.6", "fd00::5"}, "other": {"10.0.0.7"}}
    starting = EndpointSpec("e", "chat", "", "starting")
    assert not is_foreign(starting, hosts["chat"])
    assert not is_foreign(replace(starting, url="http://10.0.0.6:30000"), hosts["chat"])
    assert is_foreign(replace(starting, url="http://10.0.0.7:30000"), hosts["chat"])


CONDITIONS = st.fixed_dictionaries(
    {name: st.sampled_from([True, False, None]) for name in ("ready", "serving", "terminating")}
)
PODS = st.tuples(st.integers(1, 4), CONDITIONS)


@given(st.lists(st.tuples(st.sampled_from(["IPv4", "IPv6"]), st.lists(PODS, max_size=4)), max_size=4), st.randoms())
def test_a_pod_is_one_address_in_whatever_order_slices_come(parts: list[Any], random: Any) -> None:
    found = [
        a_slice(
            f"s{number}",
            *[pod(f"10.0.0.{n}" if family == "IPv4" else f"fd00::{n}", f"p{n}", **c) for n, c in pods],
            family=family,
        )
        for number, (family, pods) in enumerate(parts)
    ]
    here = addresses(found, "engine")
    assert len({each.pod for each in here}) == len(here)
    random.shuffle(found)
    assert {(each.pod, each.url, each.state) for each in addresses(found, "engine")} == {
        (each.pod, each.url, each.state) for each in here
    }


@pytest.mark.parametrize(("entry", "other"), [("team/chat", "team/chat@r1"), ("team/chat@r1", "team/chat")])
def test_a_request_of_the_configuration_before_finds_the_engine_while_a_canary_begins_or_ends(
    entry: str, other: str
) -> None:
    revision = "r1" if "@" in entry else None
    index = EngineIndex(
        engines={"x": EngineEntry(object="chat", revision=revision, model=entry, engine_name="team/chat", version="v")}
    )
    found = a_slice("s", pod("10.0.0.1", "chat-1"), labels={"quarterdeck.dev/revision": "r1"})
    (spec,) = engine_specs([found], Entries(index))
    assert spec.serves(entry) and spec.serves(other) and not spec.adapters
    assert (spec.name_of(entry) or entry, spec.name_of(other) or other) == ("team/chat", "team/chat")
    assert spec.weights_of(entry) == spec.weights_of(other) == spec.version != "", (
        "resumed by its weights, not by a name"
    )
    (endpoint,) = updated([], [spec])
    assert set(indexed([endpoint])) == {entry, other}
