"""Models with GPUs on simulated nodes (kwok): the real scheduler places them; nothing runs behind their pods."""

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.cluster.kubectl import Kubectl, Object, condition_of, is_current, is_ending
from tests.cluster.operator_process import OperatorProcess
from tests.cluster.provision import SCRIPT, Provisioned

pytestmark = pytest.mark.usefixtures("crds")

PRODUCTS = {"h100": "NVIDIA-H100-80GB-HBM3", "l4": "NVIDIA-L4", "a100": "NVIDIA-A100-SXM4-80GB", "a10": "NVIDIA-A10"}
GPUS = {"h100": 8, "l4": 8, "a100": 6, "a10": 2}
"""Of the node with the product."""
PRODUCT = "nvidia.com/gpu.product"
OURS = "quarterdeck.dev/test"
TAINT = {"key": "kwok.x-k8s.io/node", "operator": "Exists", "effect": "NoSchedule"}
WAIT_S = 240


def _node(name: str, product: str, gpus: int, owner: str) -> Object:
    resources = {"cpu": "64", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": str(gpus)}
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"type": "kwok", PRODUCT: product, OURS: owner}},
        "spec": {"taints": [{"key": TAINT["key"], "value": "fake", "effect": TAINT["effect"]}]},
        "status": {"allocatable": resources, "capacity": resources},
    }


@pytest.fixture(scope="module")
def nodes(cluster: Provisioned, kubectl: Kubectl, namespace: Kubectl) -> Iterator[dict[str, str]]:
    """One node of each product, for this namespace alone. Name of the node by profile."""
    if cluster.home is None:
        pytest.skip("kwok and KubeRay are shared/cluster's")
    environ = {**cluster.environ, "ENABLE_INIT_CONTAINER_INJECTION": "false"}
    for what in ("kwok", "kuberay"):
        subprocess.run([SCRIPT, what], check=True, capture_output=True, timeout=120, env=environ)
    owner = namespace.namespace
    names = {profile: f"{owner}-{profile}" for profile in PRODUCTS}
    for profile, product in PRODUCTS.items():
        kubectl("create", "-f", "-", input=yaml.safe_dump(_node(names[profile], product, GPUS[profile], owner)))
    yield names
    kubectl("delete", "nodes", "--selector", f"{OURS}={owner}")


@pytest.fixture(scope="module")
def operator(
    cluster: Provisioned, namespace: Kubectl, nodes: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Kubectl]:
    """An operator whose profiles are these nodes'. Yields the namespace's kubectl."""
    folder: Path = tmp_path_factory.mktemp("operator")
    accelerators = {
        profile: {"nodeSelector": {PRODUCT: product, OURS: namespace.namespace}, "tolerations": [TAINT]}
        for profile, product in PRODUCTS.items()
    }
    config = {"images": {"vllm": "localhost/none:1", "ray": "localhost/none:1"}, "accelerators": accelerators}
    process = OperatorProcess(cluster.environ, namespace.namespace, folder, config).start().wait_ready()
    yield namespace
    namespace("delete", "models", "--all")
    namespace.wait_all("pods", "quarterdeck.dev/model", until=lambda pods: not pods, what="no pods", seconds=WAIT_S)
    process.kill()


def _model(name: str, backend: str, **spec: Any) -> Object:
    return {
        "apiVersion": "quarterdeck.dev/v1alpha1",
        "kind": "Model",
        "metadata": {"name": name},
        "spec": {
            "source": {"uri": "hf://org/model"},
            "backend": backend,
            "rollout": {"drainSeconds": 0},
            **spec,
        },
    }


def _engines(operator: Kubectl, name: str, count: int) -> list[Object]:
    """The pods with the container `engine`, once `count` of them run."""

    def until(pods: dict[str, Object]) -> bool:
        return sum(_is_engine(pod) and pod["status"].get("phase") == "Running" for pod in pods.values()) == count

    found = operator.wait_all("pods", f"quarterdeck.dev/model={name}", until=until, what="engines run", seconds=WAIT_S)
    return [pod for pod in found.values() if _is_engine(pod)]


def _is_engine(pod: Object) -> bool:
    return bool(pod["spec"]["containers"][0]["name"] == "engine")


@pytest.mark.parametrize("backend", ["Deployment", "RayService"])
@pytest.mark.parametrize(("profile", "gpus"), [("h100", 4), ("l4", 1)])
def test_a_replica_lands_on_a_node_of_its_product_with_its_number_of_gpus(
    operator: Kubectl, nodes: dict[str, str], backend: str, profile: str, gpus: int
) -> None:
    name = f"{profile}-{backend.lower()}"
    resources = {"accelerator": profile, "tensorParallel": gpus}
    operator.apply(_model(name, backend, resources=resources, scaling={"min": 2, "max": 2}))
    engines = _engines(operator, name, 2)
    for pod in engines:
        assert pod["spec"]["nodeName"] == nodes[profile]
        (limits,) = (each["resources"]["limits"] for each in pod["spec"]["containers"])
        assert limits["nvidia.com/gpu"] == str(gpus)
    heads = operator.select("pods", f"quarterdeck.dev/model={name},ray.io/node-type=head")
    assert [head["spec"].get("nodeName") in nodes.values() for head in heads] == [False] * len(heads)
    plan = operator.wait(
        "models", name, until=lambda each: each is not None and each["status"].get("plan"), what="a plan"
    )
    assert plan is not None
    assert plan["status"]["plan"]["gpus"] == gpus
    operator.delete("models", name)


def test_a_canary_needs_the_gpus_of_its_plan_and_no_more(operator: Kubectl, nodes: dict[str, str]) -> None:
    """Two replicas and a candidate, of two GPUs each, fill the node: the promotion starts no fourth engine."""
    canary = {"steps": [{"weight": 50, "pauseSeconds": 1}]}
    spec = {"resources": {"accelerator": "a100", "tensorParallel": 2}, "scaling": {"min": 2, "max": 2}}
    spec["rollout"] = {"drainSeconds": 0, "canary": canary}
    operator.apply(_model("full", "Deployment", **spec))
    _engines(operator, "full", 2)
    operator.wait_condition("models", "full", "Ready")

    def has_ended(each: Object | None) -> bool:
        ready = condition_of(each, "Ready") or {}
        is_over = not ((each or {}).get("status") or {}).get("canary")
        return is_current(each) and is_over and ready.get("reason") == "Ready"

    with operator.history("pods", "quarterdeck.dev/model=full") as moments, operator.history("models", "") as models:
        operator.apply(_model("full", "Deployment", engine={"args": {"max_num_seqs": 8}}, **spec))
        operator.wait("models", "full", until=has_ended, what="the canary's end", seconds=WAIT_S)
    assert max(sum(not is_ending(pod) for pod in pods.values()) for pods in moments) == 3
    statuses = [found["full"]["status"] for found in models]
    during = [each["plan"] for each in statuses if (each.get("canary") or {}).get("phase") in ("Running", "Promoting")]
    assert {(plan["edit"], plan["extraGPUs"]) for plan in during} == {("NewCluster", 2)}
    engines = _engines(operator, "full", 2)
    assert all("--max-num-seqs=8" in " ".join(pod["spec"]["containers"][0]["args"]) for pod in engines)
    operator.delete("models", "full")


def test_a_drained_node_keeps_one_replica_ready_until_another_node_has_it(
    operator: Kubectl, kubectl: Kubectl, nodes: dict[str, str]
) -> None:
    spare = f"{nodes['a10']}-spare"
    scaling = {"min": 2, "max": 2}
    operator.apply(_model("moved", "Deployment", resources={"accelerator": "a10", "gpus": 1}, scaling=scaling))
    assert {pod["spec"]["nodeName"] for pod in _engines(operator, "moved", 2)} == {nodes["a10"]}
    operator.wait_condition("models", "moved", "Ready")
    owner = operator.namespace
    kubectl("create", "-f", "-", input=yaml.safe_dump(_node(spare, PRODUCTS["a10"], 2, owner)))

    def have_moved(pods: dict[str, Object]) -> bool:
        return len(pods) == 2 and all(_is_ready(pod) and pod["spec"]["nodeName"] == spare for pod in pods.values())

    with operator.history("pods", "quarterdeck.dev/model=moved") as moments:
        kubectl("drain", nodes["a10"], "--delete-emptydir-data", "--ignore-daemonsets", f"--timeout={WAIT_S}s")
        operator.wait_all("pods", "quarterdeck.dev/model=moved", have_moved, "both on the other node", seconds=WAIT_S)
    ready = [sum(map(_is_ready, pods.values())) for pods in moments]
    assert min(ready[ready.index(2) :]) >= 1, "the disruption budget lets one go at a time"
    operator.delete("models", "moved")


def _is_ready(pod: Object) -> bool:
    return (condition_of(pod, "Ready") or {}).get("status") == "True" and not is_ending(pod)


def test_the_gpus_that_a_new_ray_cluster_needs_besides_are_in_the_status(operator: Kubectl) -> None:
    resources = {"accelerator": "h100", "tensorParallel": 2}
    scaling = {"min": 2, "max": 2}
    operator.apply(_model("twice", "RayService", resources=resources, scaling=scaling))
    _engines(operator, "twice", 2)
    operator.apply(
        _model("twice", "RayService", resources=resources, scaling=scaling, engine={"args": {"max_num_seqs": 8}})
    )

    def until(each: Object | None) -> bool:
        plan = (each or {}).get("status", {}).get("plan") or {}
        return bool(plan.get("edit") == "NewCluster" and plan.get("extraGPUs") == 4)

    operator.wait("models", "twice", until=until, what="4 more GPUs planned", seconds=WAIT_S)
    operator.delete("models", "twice")
