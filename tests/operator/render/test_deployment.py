"""The Deployment backend: golden files, and what holds for every spec."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from tests.operator.generated import specs
from tests.operator.models import gpu_spec, model, sim_spec

from quarterdeck.kube.names import REVISION_LABEL
from quarterdeck.kube.reserved import Reserved
from quarterdeck.kube.resources.object import InvalidObjectError
from quarterdeck.operator.render import deployment
from quarterdeck.operator.render.request import CANARY, RenderError, RenderRequest
from quarterdeck.operator.settings import OperatorConfig

GOLDEN = Path(__file__).parent / "golden"
CONFIG = OperatorConfig.model_validate(
    {
        "imagePullSecrets": ["registry"],
        "accelerators": {
            "h100": {
                "nodeSelector": {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"},
                "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
                "runtimeClass": "nvidia",
            }
        },
    }
)
CASES: dict[str, dict[str, Any]] = {
    "sim": sim_spec(engine={"type": "sim", "args": {"time-to-first-token": "80ms"}}, context=4096),
    "gpu": gpu_spec(),
    "cpu": {"source": {"uri": "pvc://weights/smollm2"}, "task": "embed", "rollout": {"strategy": "Recreate"}},
    "patched": sim_spec(
        podTemplatePatch={
            "metadata": {"annotations": {"team": "blue"}},
            "spec": {
                "priorityClassName": "high",
                "containers": [{"name": "engine", "env": [{"name": "TZ", "value": "UTC"}]}],
            },
        }
    ),
}


def rendered(spec: dict[str, Any], replicas: int = 2, track: str = "stable") -> list[dict[str, Any]]:
    return deployment.render(RenderRequest(model(**spec), "models", CONFIG, replicas, track))


def pod_of(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = rendered(spec)[0]["spec"]["template"]
    return found


def engine_of(spec: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = pod_of(spec)["spec"]["containers"][0]
    return found


@pytest.mark.parametrize("case", CASES)
def test_manifests_are_as_recorded(case: str) -> None:
    """Written anew by deleting the file: a difference here restarts every engine of that kind at an upgrade."""
    text = yaml.safe_dump_all(json.loads(json.dumps(rendered(CASES[case]))), sort_keys=True, width=120)
    path = GOLDEN / f"{case}.yaml"
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        pytest.fail(f"{path} was written: read it and run again")
    assert text == path.read_text()


@settings(max_examples=300)
@given(specs())
def test_every_spec_is_rendered_restricted_or_refused_in_a_sentence(spec: dict[str, Any]) -> None:
    try:
        read = model(**spec) if spec else model()
    except InvalidObjectError:
        return
    if read.spec.pod_template_patch:
        read = read.model_copy(update={"spec": read.spec.model_copy(update={"pod_template_patch": None})})
    try:
        manifests = deployment.render(RenderRequest(read, "models", CONFIG, 1))
    except RenderError as error:
        assert error.message and "\n" not in error.message
        return
    json.dumps(manifests, allow_nan=False)
    pod = manifests[0]["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False
    for container in pod["containers"]:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] and security["capabilities"] == {"drop": ["ALL"]}
        assert security["allowPrivilegeEscalation"] is False
        mounts = {each["mountPath"] for each in container["volumeMounts"]}
        assert {"/tmp", "/dev/shm"} <= mounts


def test_rendering_is_deterministic_and_replicas_do_not_change_the_revision() -> None:
    def revision(replicas: int) -> str:
        labels = rendered(gpu_spec(), replicas)[0]["spec"]["template"]["metadata"]["labels"]
        return str(labels[REVISION_LABEL])

    assert rendered(gpu_spec()) == rendered(gpu_spec())
    assert revision(0) == revision(9) and re.fullmatch(r"[0-9a-f]{10}", revision(1))


def test_the_order_of_arguments_does_not_change_the_revision() -> None:
    one = gpu_spec(engine={"type": "vllm", "args": {"a": 1, "b": 2}})
    other = gpu_spec(engine={"type": "vllm", "args": {"b": 2, "a": 1}})
    assert rendered(one) == rendered(other)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"max_num_seqs": 8}, ["--max-num-seqs=8"]),
        ({"max-num-seqs": 8.0}, ["--max-num-seqs=8"]),
        ({"enforce_eager": True}, ["--enforce-eager"]),
        ({"enable_prefix_caching": False}, ["--no-enable-prefix-caching"]),
        ({"hf_overrides": {"b": 1, "a": [True]}}, ['--hf-overrides={"a":[true],"b":1}']),
        ({"lora_modules": ["a=b", "c=d"]}, ["--lora-modules", "a=b", "c=d"]),
        ({"seed": None}, []),
    ],
)
def test_arguments_are_passed_as_vllm_reads_them(arguments: dict[str, Any], words: list[str]) -> None:
    spec = gpu_spec(engine={"type": "vllm", "args": arguments})
    line = engine_of(spec)["args"]
    assert not words or any(line[at : at + len(words)] == words for at in range(len(line)))


@pytest.mark.parametrize("name", ["port", "host", "api_key", "served-model-name", "bad name", "--x", ""])
def test_an_argument_of_the_platform_or_without_a_name_is_refused(name: str) -> None:
    with pytest.raises((RenderError, InvalidObjectError)):
        rendered(gpu_spec(engine={"type": "vllm", "args": {name: "1"}}))


def test_a_token_of_the_hub_is_a_reference_and_never_a_value() -> None:
    token = [each for each in engine_of(gpu_spec())["env"] if each["name"] == "HF_TOKEN"]
    assert token == [{"name": "HF_TOKEN", "valueFrom": {"secretKeyRef": {"name": "hub", "key": "token"}}}]


def test_gpus_come_from_the_accelerator_profile() -> None:
    pod = pod_of(gpu_spec())["spec"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "2"
    assert pod["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3"}
    assert pod["runtimeClassName"] == "nvidia" and pod["tolerations"][0]["key"] == "nvidia.com/gpu"


def test_an_unknown_profile_is_refused_with_the_known_ones() -> None:
    with pytest.raises(RenderError, match="no accelerator profile 'tpu'; profiles are cpu, h100"):
        rendered(gpu_spec(resources={"accelerator": "tpu"}))


def test_a_pod_has_time_to_finish_its_requests() -> None:
    pod = pod_of(gpu_spec())["spec"]
    assert pod["terminationGracePeriodSeconds"] == 120
    assert pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1] == "90"


def test_a_rollout_surges_one_replica_or_ends_one_first() -> None:
    def strategy(name: str) -> Any:
        return rendered(gpu_spec(rollout={"strategy": name}))[0]["spec"]["strategy"]["rollingUpdate"]

    assert strategy("Surge") == {"maxSurge": 1, "maxUnavailable": 0}
    assert strategy("Recreate") == {"maxSurge": 0, "maxUnavailable": 1}


def test_a_canary_has_objects_of_its_own_that_select_no_stable_pod() -> None:
    stable, canary = rendered(gpu_spec()), rendered(gpu_spec(), track=CANARY)
    assert [(each["kind"], each["metadata"]["name"]) for each in canary] == [
        ("Deployment", "model-tiny-canary"),
        ("Service", "model-tiny-canary"),
    ]
    labels = canary[0]["spec"]["template"]["metadata"]["labels"]
    assert not stable[1]["spec"]["selector"].items() <= labels.items()
    assert canary[1]["spec"]["selector"].items() <= labels.items()
    assert canary[1]["metadata"]["labels"][REVISION_LABEL] == labels[REVISION_LABEL]


@pytest.mark.parametrize(
    ("uri", "model_argument"),
    [
        ("org/name", "org/name"),
        ("hf://org/name", "org/name"),
        ("file:///models/a", "/models/a"),
        ("pvc://claim/a/b", "/weights/a/b"),
        ("pvc://claim", "/weights"),
    ],
)
def test_a_source_is_located(uri: str, model_argument: str) -> None:
    line = engine_of({"source": {"uri": uri}, "backend": "Deployment"})["args"]
    assert f"--model={model_argument}" in line


@pytest.mark.parametrize("image", ["a/b:1", "registry:5000/a/b", "registry:5000/a/b:2", "a/b@sha256:abc"])
def test_a_version_replaces_the_tag(image: str) -> None:
    config = OperatorConfig.model_validate({"images": {"sim": image}})
    request = RenderRequest(model(**sim_spec(engine={"type": "sim", "version": "v9"})), "models", config, 1)
    found = deployment.render(request)[0]["spec"]["template"]["spec"]["containers"][0]["image"]
    assert found in ("a/b:v9", "registry:5000/a/b:v9")


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"metadata": {"labels": {"app.kubernetes.io/name": "quarterdeck"}}}, "app.kubernetes.io/name"),
        ({"metadata": {"labels": {"app.kubernetes.io/component": "gateway"}}}, "app.kubernetes.io/component"),
        ({"metadata": {"labels": {"app.kubernetes.io/instance": None}}}, "app.kubernetes.io/instance"),
        ({"metadata": {"labels": {"ray.io/node-type": "head"}}}, "ray.io/node-type"),
        ({"metadata": {"labels": {"quarterdeck.dev/role": "door"}}}, "quarterdeck.dev/role"),
        ({"spec": {"serviceAccountName": "qd-operator"}}, "ServiceAccount"),
        ({"spec": {"volumes": [{"name": "x", "secret": {"secretName": "qd-admin"}}]}}, "Secret"),
    ],
)
def test_a_patch_can_not_make_an_engine_pass_for_a_part_of_the_platform(patch: dict[str, Any], words: str) -> None:
    reserved = Reserved(secrets=frozenset({"qd-admin"}), service_accounts=frozenset({"qd-operator"}))
    config = CONFIG.model_copy(update={"reserved": reserved})
    with pytest.raises(RenderError) as refused:
        deployment.render(RenderRequest(model(**gpu_spec(podTemplatePatch=patch)), "models", config, 1))
    assert refused.value.reason == "InvalidPodTemplatePatch" and words in refused.value.message


def test_a_patch_may_add_labels_of_its_own() -> None:
    patch = {"metadata": {"labels": {"app.kubernetes.io/version": "2", "team": "search"}}}
    labels = rendered(gpu_spec(podTemplatePatch=patch))[0]["spec"]["template"]["metadata"]["labels"]
    assert labels["team"] == "search"


def test_a_patch_nested_too_deeply_is_refused_in_a_sentence() -> None:
    patch: dict[str, Any] = {}
    for _ in range(5000):
        patch = {"x": patch}
    one = model(**gpu_spec())
    one = one.model_copy(update={"spec": one.spec.model_copy(update={"pod_template_patch": patch})})
    with pytest.raises(RenderError, match="nested too deeply"):
        deployment.render(RenderRequest(one, "models", CONFIG, 1))
