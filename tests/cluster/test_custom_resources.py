"""Custom resource definitions on a real API server: what it takes, what it refuses and with which words."""

import json
import re
import subprocess
from random import Random
from typing import Any

import pytest
from tests.cluster.kubectl import Kubectl, KubectlError
from tests.custom_resource_cases import CASES, GOOD, HUB, adapter, manifest, model
from tests.generated_resources import generate

from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.kube.resources.registry import RESOURCES

KINDS = {each.kind: each for each in RESOURCES}

pytestmark = pytest.mark.usefixtures("crds")


@pytest.fixture(scope="module")
def refusals(kubectl: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> dict[int, str]:
    """Why the API server refuses objects of CASES, by their number: all of them in one call of kubectl."""
    folder = tmp_path_factory.mktemp("cases")
    for number, (kind, spec, _) in enumerate(CASES):
        (folder / f"case-{number}.json").write_text(json.dumps(manifest(kind, spec)))
    command = ["kubectl", "create", "--dry-run=server", "--output=name", "-f", str(folder)]
    done = subprocess.run(command, env=kubectl.environ, capture_output=True, text=True, check=False)
    found = re.findall(r'when creating "[^"]*/case-(\d+)\.json": (.*)', done.stderr)
    assert len(done.stdout.splitlines()) + len(found) == len(CASES), done.stderr
    return {int(number): why for number, why in found}


@pytest.mark.parametrize("number", range(len(CASES)))
def test_the_api_server_takes_and_refuses(refusals: dict[int, str], number: int) -> None:
    kind, spec, message = CASES[number]
    if message is GOOD:
        assert number not in refusals, (kind, spec, refusals[number])
    else:
        assert message in refusals.get(number, "taken"), (kind, spec)


@pytest.mark.parametrize("name", ["1st", "a.b", "a" * 41])
def test_a_model_whose_services_cant_be_named_after_it_is_refused(kubectl: Kubectl, name: str) -> None:
    with pytest.raises(KubectlError, match="must be a lower-case DNS label of at most 40 characters"):
        kubectl("apply", "--dry-run=server", "-f", "-", input=json.dumps(manifest("Model", model(), name)))


def test_a_price_is_written_in_quotes(kubectl: Kubectl) -> None:
    with pytest.raises(KubectlError, match=r"spec\.price\.input"):
        kubectl(
            "create", "--dry-run=server", "-f", "-", input=json.dumps(manifest("Model", model(price={"input": 0.05})))
        )


def test_what_the_api_server_refuses_the_parser_refuses_too(kubectl: Kubectl) -> None:
    rng = Random(7)
    objects = {}
    for number in range(300):
        each = generate(rng, name=f"g{number}")
        objects[each["kind"], f"g{number}"] = each
    text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects.values())})
    # Without the check of unknown fields, for which kubectl downloads all schemas of the cluster: there are none.
    command = ["kubectl", "create", "--dry-run=server", "--validate=false", "--output=name", "-f", "-"]
    done = subprocess.run(command, env=kubectl.environ, input=text, capture_output=True, text=True, check=False)
    accepted = {line.partition("/")[2].strip() for line in done.stdout.splitlines()}
    assert len(accepted) > 60, done.stderr[-2000:]
    wrong = []
    for (kind, name), each in objects.items():
        if name not in accepted:
            try:
                KINDS[kind].parse(each)
            except InvalidObjectError:
                continue
            wrong.append(each)
    assert not wrong


def test_what_must_not_change_can_not_be_changed(namespace: Kubectl) -> None:
    size = {"mode": "pvc", "size": "20Gi", "storageClass": "fast"}
    namespace.apply(
        manifest("Model", model(source={**HUB, "cache": size}, suspend=True)),
        manifest("ModelAdapter", adapter()),
        manifest("Team", {"name": "red"}),
        manifest("Prompt", {"text": "a"}),
    )
    changes = [
        ("model", {"source": {"cache": {"size": "10Gi"}}}, "can't shrink"),
        ("model", {"source": {"cache": {"storageClass": "slow"}}}, "storageClass of an existing claim can't change"),
        ("modeladapter", {"modelRef": {"name": "other"}}, "modelRef can't change"),
        ("team", {"name": "blue"}, "name can't change"),
        ("team", {"name": None}, "name can't change"),
        ("prompt", {"name": "b"}, "name can't change"),
    ]
    for kind, change, message in changes:
        with pytest.raises(KubectlError, match=message):
            namespace.patch(kind, f"a-{kind}", {"spec": change})
    namespace.patch("model", "a-model", {"spec": {"source": {"cache": {"size": "30Gi"}}}})


def test_a_model_is_scaled_by_kubectl_scale(namespace: Kubectl) -> None:
    namespace.apply(manifest("Model", model(suspend=True), "scaled"))
    namespace("scale", "model/scaled", "--replicas=3")
    found = namespace.get("model", "scaled")
    assert found is not None
    assert found["spec"]["scaling"]["replicas"] == 3
    with pytest.raises(KubectlError, match="less than or equal to 1000"):
        namespace("scale", "model/scaled", "--replicas=1001")


def test_a_null_survives_where_it_means_something(namespace: Kubectl) -> None:
    spec = {"text": "{{ a }}", "variables": {"a": {"default": None}}, "parameters": {"stop": None}}
    namespace.apply(manifest("Prompt", spec, "nulls"))
    found = namespace.get("prompt", "nulls")
    assert found is not None
    assert found["spec"]["variables"]["a"] == {"default": None, "type": "string"}
    assert found["spec"]["parameters"] == {"stop": None}


def test_every_field_explains_itself(kubectl: Kubectl) -> None:
    document = json.loads(kubectl("get", "--raw", "/openapi/v3/apis/quarterdeck.dev/v1alpha1"))
    shapes = document["components"]["schemas"]
    silent = []
    for kind in KINDS:
        shape = shapes[f"dev.quarterdeck.v1alpha1.{kind}"]
        for part in ("spec", "status"):
            silent += unexplained(shape["properties"][part], f"{kind}.{part}")
    assert not silent
    text = kubectl("explain", "models.spec.scaling.coldStart.holdSeconds")
    assert "How long it waits, in seconds." in text


def unexplained(shape: dict[str, Any], path: str) -> list[str]:
    """Paths of the fields without a description."""
    found = [] if shape.get("description") or path.endswith("[]") else [path]
    for name, each in shape.get("properties", {}).items():
        found += unexplained(each, f"{path}.{name}")
    if isinstance(shape.get("additionalProperties"), dict):
        found += unexplained(shape["additionalProperties"], f"{path}[]")
    return found + (unexplained(shape["items"], f"{path}[]") if "items" in shape else [])


def test_all_resources_are_listed_by_their_category_and_short_names(namespace: Kubectl) -> None:
    namespace.apply(manifest("Model", model(suspend=True), "listed"), manifest("Team", {}, "listed"))
    listed = namespace("get", "quarterdeck", "-o", "name")
    assert {"model.quarterdeck.dev/listed", "team.quarterdeck.dev/listed"} <= set(listed.split())
    for short in ("m", "ma", "mr", "tm", "pr"):
        namespace("get", short)
    header = namespace("get", "models").splitlines()[0].split()
    assert header == ["NAME", "READY", "REASON", "SOURCE", "QUANT", "GPU", "REPLICAS", "STATE", "AGE"]
