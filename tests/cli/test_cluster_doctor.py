"""Checks of a cluster: what each object says, in words, and how to fix it."""

import copy
from typing import Any

import pytest

from quarterdeck.cli import cluster_doctor as doctor
from quarterdeck.cli.cluster_status import ModelState, Part
from quarterdeck.cli.findings import Finding
from quarterdeck.cli.health import HealthResponse
from quarterdeck.kube.resources.registry import RESOURCES
from quarterdeck.kube.schema import definition

OURS: dict[str, Any] = {one["metadata"]["name"]: one for one in map(definition, RESOURCES)}


def named(name: str, **metadata: Any) -> dict[str, Any]:
    return {"metadata": {"name": name, **metadata}}


@pytest.mark.parametrize(("minor", "mark"), [("28", "missing"), ("29", "ok"), ("34+", "ok")])
def test_kubernetes_must_be_1_29_or_newer(minor: str, mark: str) -> None:
    info = {"serverVersion": {"major": "1", "minor": minor, "gitVersion": "v1.x"}}
    assert doctor.server_version(info).mark == mark


def test_an_unknown_version_of_kubernetes_is_a_note() -> None:
    assert doctor.server_version({"serverVersion": {"gitVersion": "v1"}}).mark == "note"


def test_definitions_of_this_version_are_in_order() -> None:
    assert [one.mark for one in doctor.definitions(list(OURS.values()), OURS)] == ["ok"]


def test_definitions_that_are_not_installed_are_named() -> None:
    found = doctor.definitions([OURS["models.quarterdeck.dev"]], OURS)
    assert [one.mark for one in found] == ["missing"]
    assert "teams.quarterdeck.dev" in found[0].what
    assert "models.quarterdeck.dev" not in found[0].what


def test_a_definition_of_an_older_release_is_named_with_the_fields_that_it_lacks() -> None:
    theirs = copy.deepcopy(OURS)
    spec = theirs["models.quarterdeck.dev"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["scaling"]["properties"]["idleSeconds"]
    assert doctor.definitions(list(theirs.values()), OURS) == [
        Finding(
            "missing",
            "models.quarterdeck.dev is older than this command: it lacks spec.scaling.idleSeconds",
            "upgrade the chart, or kubectl apply --server-side -f k8s/crds",
        )
    ]
    [newer] = doctor.definitions(list(OURS.values()), theirs)
    assert (newer.mark, "newer than this command" in newer.what) == ("note", True)


def test_a_definition_without_our_version_is_missing() -> None:
    theirs = copy.deepcopy(OURS)
    theirs["teams.quarterdeck.dev"]["spec"]["versions"][0]["served"] = False
    assert [one.what for one in doctor.definitions(list(theirs.values()), OURS)] == [
        "teams.quarterdeck.dev does not serve v1alpha1"
    ]


def test_kuberay_is_optional_but_must_be_of_a_version_that_we_write() -> None:
    assert doctor.kuberay(set(), set()).mark == "note"
    assert doctor.kuberay({"rayservices.ray.io"}, {"ray.io/v1alpha1"}).mark == "missing"
    assert doctor.kuberay({"rayservices.ray.io"}, {"ray.io/v1"}).mark == "ok"


def test_gpus_are_counted_by_product() -> None:
    def node(product: str | None, **allocatable: str) -> dict[str, Any]:
        labels = {"nvidia.com/gpu.product": product} if product else {}
        return {**named("n", labels=labels), "status": {"allocatable": {"cpu": "8", **allocatable}}}

    gpus = {"nvidia.com/gpu": "8"}
    found = doctor.accelerators([node("H100", **gpus), node("H100", **gpus), node(None, **{"nvidia.com/gpu": "0"})])
    assert [one.what for one in found] == ["GPUs: 16 × nvidia.com/gpu H100 on 2 nodes"]
    assert [one.what for one in doctor.accelerators([node(None)])] == ["GPUs: none on 1 node"]
    assert "of an unknown product" in doctor.accelerators([node(None, **gpus)])[0].what


def test_a_default_storage_class_is_needed() -> None:
    default = named("fast", annotations={doctor.DEFAULT_CLASS: "true"})
    assert doctor.storage([named("slow"), default]) == Finding("ok", "storage: default class fast")
    assert doctor.storage([named("slow")]).mark == "missing"
    assert doctor.storage([default, default]).mark == "note"


def test_a_namespace_without_pod_security_is_a_note() -> None:
    assert doctor.pod_security(named("qd")).mark == "note"
    enforced = named("qd", labels={doctor.ENFORCE: "restricted"})
    assert doctor.pod_security(enforced) == Finding("ok", "Pod Security: namespace qd enforces restricted")


def test_enforcement_of_network_policies_is_said_to_be_unknown() -> None:
    assert "whether they are enforced is unknown" in doctor.network_policies([named("a")]).what
    assert doctor.network_policies([]).mark == "note"


def test_a_part_that_is_not_ready_says_why() -> None:
    found = doctor.parts([Part("gateway", 2, 1, "ImagePullBackOff: no such image"), Part("worker", 1, 1)])
    assert [(one.mark, one.what) for one in found] == [
        ("missing", "gateway: 1 of 2 ready (ImagePullBackOff: no such image)"),
        ("ok", "worker: ready"),
        ("note", "operator: not in the release"),
    ]


def test_the_gateways_own_problems_are_passed_on() -> None:
    body = {
        "status": "degraded",
        "parts": {"redis": "away", "database": "ready"},
        "models": {"m": {"state": "starting"}},
    }
    assert [one.what for one in doctor.gateway(HealthResponse(200, body))] == ["gateway says: redis: away"]
    assert doctor.gateway(HealthResponse(0))[0].mark == "missing"


def test_models_in_trouble_are_shown_and_those_at_zero_on_purpose_are_not() -> None:
    asleep = ModelState("asleep", False, "ScaledToZero", "", "0/0")
    ready = ModelState("ready", True, "Ready", "", "1/1")
    broken = ModelState("broken", False, "ImageNotFound", "no such image", "0/1")
    assert [one.mark for one in doctor.models([asleep, ready])] == ["ok"]
    assert [one.what for one in doctor.models([asleep, broken])] == ["Model broken: ImageNotFound: no such image"]
    assert doctor.models([])[0].mark == "note"
