"""charts/quarterdeck as Helm renders it: every ci values file, its security, its names, its refusals."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.helm import CHART, CI_VALUES, pod_specs, render, template
from tests.pod_security import violations

from quarterdeck.operator.settings import OperatorConfig
from quarterdeck.settings.shutdown import CLUSTER_DELAY_SECONDS, SHUTDOWN_SECONDS

CLAIM = "persistentVolumeClaim"
Objects = list[dict[str, Any]]
ROOT = Path(__file__).resolve().parents[2]
EVERYTHING = Path(__file__).with_name("everything.yaml")
"""Every optional part at once."""

ids = [each.name.removesuffix("-values.yaml") for each in CI_VALUES] + ["everything"]


@pytest.fixture(scope="module", params=[*CI_VALUES, EVERYTHING], ids=ids)
def objects(request: pytest.FixtureRequest) -> Objects:
    """A release's objects."""
    return render(request.param)


def of_kind(objects: Objects, kind: str) -> dict[str, dict[str, Any]]:
    return {each["metadata"]["name"]: each for each in objects if each["kind"] == kind}


def containers(objects: Objects) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, _, spec in pod_specs(objects):
        for container in (spec.get("initContainers") or []) + spec["containers"]:
            yield where, container


def test_every_pod_is_admitted_by_pod_security_restricted(objects: Objects) -> None:
    assert {where: violations(spec) for where, _, spec in pod_specs(objects)} == {
        where: [] for where, _, _ in pod_specs(objects)
    }


def test_no_pod_gets_service_links_and_only_those_that_call_the_api_get_a_token(objects: Objects) -> None:
    for where, _, spec in pod_specs(objects):
        assert spec["enableServiceLinks"] is False, where
        may_call = where.rpartition("-")[2] in ("gateway", "worker", "operator", "secrets")
        assert spec["automountServiceAccountToken"] is may_call, where


def test_containers_have_a_read_only_root_and_state_what_they_need(objects: Objects) -> None:
    for where, container in containers(objects):
        assert container["securityContext"]["readOnlyRootFilesystem"] is True, where
        assert container["resources"]["requests"].keys() >= {"cpu", "memory"}, where
        assert "memory" in container["resources"]["limits"], where


def test_images_are_pinned(objects: Objects) -> None:
    for where, container in containers(objects):
        image = container["image"]
        assert re.search(r":[^/:]+$|@sha256:[0-9a-f]{64}$", image), f"{where}: {image}"
        assert not image.endswith(":latest"), where


def test_every_object_carries_the_common_labels(objects: Objects) -> None:
    for each in objects:
        if each["kind"] == "CustomResourceDefinition" or "extra" in each["metadata"]["name"]:
            continue
        labels = each["metadata"]["labels"]
        where = f"{each['kind']}/{each['metadata']['name']}"
        assert labels["app.kubernetes.io/name"] == "quarterdeck", where
        assert labels["app.kubernetes.io/instance"] == "prod", where
        assert labels["app.kubernetes.io/component"], where


def test_names_are_unique_and_belong_to_the_release(objects: Objects) -> None:
    names = [(each["kind"], each["metadata"]["name"]) for each in objects]
    assert sorted(names) == sorted(set(names))
    for kind, name in names:
        if kind != "CustomResourceDefinition":
            assert name.startswith(("prod-", "ns:prod-")) or name == "prod", f"{kind}/{name}"


def test_what_belongs_to_the_cluster_has_a_name_of_its_namespace_and_release_alone(objects: Objects) -> None:
    """Release `prod` in `quarterdeck` is not release `quarterdeck` in `quarterdeck-prod`: no namespace has a colon."""
    for kind in ("ClusterRole", "ClusterRoleBinding"):
        assert all(name.partition(":")[0] == "ns" for name in of_kind(objects, kind))


def test_selectors_match_their_pods_and_hold_no_version(objects: Objects) -> None:
    """A selector can't be changed: an upgrade that changes one fails."""
    for kind in ("Deployment", "StatefulSet"):
        for name, each in of_kind(objects, kind).items():
            selector = each["spec"]["selector"]["matchLabels"]
            assert selector == {
                "app.kubernetes.io/name": "quarterdeck",
                "app.kubernetes.io/instance": "prod",
                "app.kubernetes.io/component": name.removeprefix("prod-"),
            }
            assert selector.items() <= each["spec"]["template"]["metadata"]["labels"].items()
    services = of_kind(objects, "Service")
    for name, each in services.items():
        assert each["spec"]["selector"]["app.kubernetes.io/component"] == name.removeprefix("prod-")


def test_no_manifest_holds_a_secret(objects: Objects) -> None:
    assert not of_kind(objects, "Secret")


def test_rights_are_namespaced_and_narrow(objects: Objects) -> None:
    cluster_wide = of_kind(objects, "ClusterRole")
    for each in cluster_wide.values():
        assert [rule["resources"] for rule in each["rules"]] == [["nodes"]]
        assert set(each["rules"][0]["verbs"]) <= {"get", "list", "watch"}
    for name, each in of_kind(objects, "Role").items():
        for rule in each["rules"]:
            assert "*" not in rule["verbs"] + rule["resources"] + rule["apiGroups"], name
            assert not {"pods/exec", "pods/attach", "pods/portforward"} & set(rule["resources"]), name
            if "secrets" in rule["resources"]:
                assert not {"list", "watch"} & set(rule["verbs"]), name
                if {"update", "patch", "delete"} & set(rule["verbs"]):
                    assert rule["resourceNames"], name


def test_without_node_access_there_is_nothing_cluster_wide() -> None:
    kinds = {each["kind"] for each in render(values={"operator": {"readNodes": False}, "crds": {"install": False}})}
    assert not {kind for kind in kinds if kind.startswith("Cluster") or kind == "CustomResourceDefinition"}


def test_a_release_renders_the_same_each_time() -> None:
    assert template(EVERYTHING).stdout == template(EVERYTHING).stdout


def test_one_value_redirects_every_image() -> None:
    objects = render(EVERYTHING, values={"global": {"imageRegistry": "mirror.example.com/qd"}})
    images = {container["image"] for _, container in containers(objects)}
    operator = yaml.safe_load(of_kind(objects, "ConfigMap")["prod-operator"]["data"]["operator.yaml"])
    images |= {image for name, image in operator["images"].items() if name != "pullPolicy"}
    assert len(images) >= 7
    assert {image for image in images if not image.startswith("mirror.example.com/qd/")} == set()


def test_a_digest_goes_before_the_tag() -> None:
    digest = "sha256:" + "a" * 64
    objects = render(values={"gateway": {"image": {"tag": "1.2.3", "digest": digest}}})
    gateway = of_kind(objects, "Deployment")["prod-gateway"]["spec"]["template"]["spec"]["containers"][0]
    assert gateway["image"] == f"localhost/quarterdeck-gateway@{digest}"


def test_what_is_requested_by_default_leaves_most_of_two_cores_and_4_gib_to_engines() -> None:
    objects = [each for each in render() if "helm.sh/hook" not in each["metadata"].get("annotations", {})]
    requests = [container["resources"]["requests"] for _, container in containers(objects)]
    assert sum(int(each["cpu"].removesuffix("m")) for each in requests) <= 500
    assert sum(int(each["memory"].removesuffix("Mi")) for each in requests) <= 1024


def test_a_gateway_has_as_long_to_end_as_its_drain_needs() -> None:
    for drain, delay in ((30, None), (120, None), (0.5, 20)):
        given = {"drain_seconds": drain, **({} if delay is None else {"shutdown_delay_seconds": delay})}
        objects = render(values={"config": {"gateway": given}})
        spec = of_kind(objects, "Deployment")["prod-gateway"]["spec"]["template"]["spec"]
        needed = (delay or CLUSTER_DELAY_SECONDS) + drain + SHUTDOWN_SECONDS
        assert needed <= spec["terminationGracePeriodSeconds"] <= needed + 4


def test_the_operator_reads_what_the_chart_writes(objects: Objects) -> None:
    if config := of_kind(objects, "ConfigMap").get("prod-operator"):
        read = OperatorConfig.model_validate(yaml.safe_load(config["data"]["operator.yaml"]))
        (name,) = {each for each in of_kind(objects, "Deployment") if each.endswith("-operator")}
        assert read.operator_deployment == name
        assert read.gateway_service in of_kind(objects, "Service")
        gateway = of_kind(objects, "Deployment")["prod-gateway"]["spec"]["template"]["spec"]
        mounted = {each["secret"]["secretName"] for each in gateway["volumes"] if "secret" in each}
        assert read.endpoint_keys_secret in mounted
        assert {"prod-operator", "prod-gateway", "prod-worker"} <= read.reserved.service_accounts
        assert {each for each in mounted if not each.endswith("-ca")} <= read.reserved.secrets
        claims = {each["persistentVolumeClaim"]["claimName"] for each in gateway["volumes"] if CLAIM in each}
        assert claims <= read.reserved.claims
        assert read.config_map == next(each["configMap"]["name"] for each in gateway["volumes"] if "configMap" in each)


def test_settings_reach_the_operator_as_they_are_written() -> None:
    config = {"limits": {"tokens_per_minute": 1_000_000_000}, "queue": {"max_waiting": 7}, "teams": {"a": {}}}
    objects = render(values={"config": config})
    operator = yaml.safe_load(of_kind(objects, "ConfigMap")["prod-operator"]["data"]["operator.yaml"])
    assert operator["baseConfig"].items() >= config.items()
    assert isinstance(operator["baseConfig"]["limits"]["tokens_per_minute"], int)


def test_without_an_operator_the_chart_writes_the_configuration() -> None:
    objects = render(CHART / "ci" / "gateway-only-values.yaml")
    text = of_kind(objects, "ConfigMap")["prod-config"]["data"]["quarterdeck.yaml"]
    assert yaml.safe_load(text)["models"][0]["name"] == "elsewhere"
    assert not any("operator" in each["metadata"]["name"] for each in objects)


def test_with_an_operator_the_configuration_is_its_own() -> None:
    assert "prod-config" not in of_kind(render(), "ConfigMap")


def test_a_change_of_settings_restarts_the_operator_alone() -> None:
    def pods(value: int) -> dict[str, Any]:
        return {where: (metadata, spec) for where, metadata, spec in pod_specs(render(values=settings(value)))}

    def settings(value: int) -> dict[str, Any]:
        return {"config": {"queue": {"max_waiting": value}}}

    before, after = pods(1), pods(2)
    assert [where for where in before if before[where] != after[where]] == ["Deployment/prod-operator"]


REFUSED = [
    ({"gateway": {"replicas": 2}}, "More than one gateway needs PostgreSQL: set database.existingSecret"),
    ({"gateway": {"autoscaling": {"enabled": True}}}, "More than one gateway needs PostgreSQL"),
    ({"worker": {"replicas": 2}}, "More than one worker needs PostgreSQL"),
    ({"redis": {"enabled": False}}, "redis.enabled is false: set redis.external.existingSecret"),
    ({"redis": {"external": {"existingSecret": "x"}}}, "redis.external.existingSecret has no effect"),
    ({"config": {"models": []}, "operator": {"enabled": False}}, None),
    ({"config": {"models": [{"name": "m"}]}}, "config.models is compiled from Models by the operator"),
    ({"operator": {"enabled": False}}, "operator.enabled is false: set config.models"),
    ({"networkPolicy": {"egress": {"restricted": True}}}, "needs networkPolicy.egress.apiServer"),
    ({"gateway": {"httpRoute": {"enabled": True}}}, "needs gateway.httpRoute.parentRefs"),
    ({"secrets": {"create": False}}, "secrets.create is false: set gateway.adminKey.existingSecret"),
    ({"gateway": {"replicas": "two"}}, "at '/gateway/replicas': got string, want integer"),
    ({"gateway": {"replica": 2}}, "at '/gateway': additional properties 'replica' not allowed"),
    ({"config": {"gateway": {"drain_second": 2}}}, "at '/config/gateway': additional properties 'drain_second'"),
    ({"gateway": {"image": {"digest": "sha256:1"}}}, "at '/gateway/image/digest'"),
    ({"gateway": {"resources": {"limits": {"memory": "1 GB"}}}}, "at '/gateway/resources/limits/memory'"),
    ({"config": {"limits": {"requests_per_minute": -1}}}, "at '/config/limits/requests_per_minute'"),
]


@pytest.mark.parametrize(("values", "message"), REFUSED, ids=[json.dumps(values)[:60] for values, _ in REFUSED])
def test_values_that_can_not_work_are_refused_by_a_sentence(values: dict[str, Any], message: str | None) -> None:
    finished = template(values=values)
    if message is None:
        assert finished.returncode == 0, finished.stderr
        return
    assert finished.returncode != 0
    assert message in finished.stderr
    assert len(finished.stderr) < 700


def test_the_test_pods_probe_is_a_valid_program() -> None:
    objects = render(EVERYTHING)
    compile(of_kind(objects, "ConfigMap")["prod-test"]["data"]["probe.py"], "probe.py", "exec")


def test_dashboards_and_rules_are_those_of_the_repository() -> None:
    objects = render(EVERYTHING)
    (rule,) = of_kind(objects, "PrometheusRule").values()
    names = [each["name"] for each in rule["spec"]["groups"]]
    wanted = []
    for file in ("alerts.yaml", "recording.yaml"):
        groups = yaml.safe_load((ROOT / "observability" / "rules" / file).read_text())["groups"]
        wanted += [each["name"] for each in groups]
        assert all(group in rule["spec"]["groups"] for group in groups)
    assert sorted(names) == sorted(wanted)
    for path in (ROOT / "observability" / "dashboards").glob("*.json"):
        data = of_kind(objects, "ConfigMap")[f"prod-dashboard-{path.stem}"]["data"]
        assert json.loads(data[f"quarterdeck-{path.name}"]) == json.loads(path.read_text())
