"""Models as RayServices: the real KubeRay, a real Ray head and real workers in pods, with the simulated engine.

One platform and one Model, whose life the tests follow in order: each starts from the state that the one before left.
"""

import json
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.cluster.kubectl import Kubectl, Object, is_ending
from tests.cluster.provision import SCRIPT, Provisioned
from tests.cluster.release import Release
from tests.cluster.traffic import Traffic

MODEL = "ray-chat"
NAME = f"model-{MODEL}"
PODS = f"quarterdeck.dev/model={MODEL}"
WORKERS = f"{PODS},ray.io/node-type=worker"
HEADS = f"{PODS},ray.io/node-type=head"
HOST = "10.250.0.1/32"
"""This machine, as the node of shared/cluster sees it."""
START_S = 800
"""A Ray head, a worker and a replica on a machine that is busy. Idle, it takes 25 s."""

pytestmark = pytest.mark.timeout(2400, func_only=True)

ARGS = {"time_to_first_token": "40ms", "inter_token_latency": "15ms"}


@pytest.fixture(scope="module")
def kuberay(cluster: Provisioned, kubectl: Kubectl) -> None:
    """KubeRay's custom resources and operator: shared/cluster's, or what another cluster has.

    Without its init container: shared/cluster's NetworkPolicies admit a pod only once one of its containers runs.
    """
    if cluster.home is not None:
        environ = {**cluster.environ, "ENABLE_INIT_CONTAINER_INJECTION": "false"}
        subprocess.run([SCRIPT, "kuberay"], check=True, capture_output=True, timeout=120, env=environ)
    elif kubectl.get("crd", "rayservices.ray.io") is None:
        pytest.skip("this cluster has no KubeRay")


@pytest.fixture(scope="module")
def release(
    cluster: Provisioned,
    kuberay: None,
    make_release: Callable[..., Release],
    build_images: Callable[..., dict[str, str]],
    namespace: Kubectl,
) -> Release:
    # shared/cluster's KubeRay submits by the proxy of the API server, which is a process of this machine.
    values = {"networkPolicy": {"kuberayFrom": [{"ipBlock": {"cidr": HOST}}]}} if cluster.home is not None else None
    return make_release(values, namespace=namespace, more_images=build_images("ray"))


@pytest.fixture(scope="module")
def model(release: Release) -> Iterator[Release]:
    """The platform, with the Model applied."""
    _apply(release)
    yield release
    release.kubectl.delete("models.quarterdeck.dev", MODEL, wait=True)


TRY = """
import socket, sys
for target in sys.argv[1:]:
    host, _, port = target.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=3).close()
        print("open")
    except TimeoutError:
        print("closed")
"""


def _apply(release: Release, **spec: Any) -> None:
    default: Object = {
        "backend": "RayService",
        "engine": {"type": "sim", "args": ARGS},
        "scaling": {"min": 1, "max": 1},  # requests that pile up on a busy machine start no second one
        "rollout": {"drainSeconds": 30},
    }
    release.apply_model(MODEL, **{**default, **spec})


def _chat(release: Release, **options: Any) -> Any:
    messages: Any = [{"role": "user", "content": "Say something."}]
    return release.client().chat.completions.create(model=MODEL, messages=messages, max_tokens=8, **options)


def _ready_workers(release: Release, count: int) -> list[Object]:
    """Wait until exactly `count` workers are there, and are ready."""

    def until(pods: dict[str, Object]) -> bool:
        return len(pods) == count and all(_is_ready(pod) and not is_ending(pod) for pod in pods.values())

    found = release.kubectl.wait_all("pods", WORKERS, until=until, what=f"{count} ready workers", seconds=START_S)
    return list(found.values())


def _is_ready(pod: Object) -> bool:
    conditions = pod["status"].get("conditions") or ()
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def test_a_model_becomes_a_ray_cluster_with_a_replica_in_a_worker_pod(model: Release) -> None:
    found = model.wait_replicas(MODEL, 1, seconds=START_S)
    assert found["status"]["backend"] == {"kind": "RayService", "name": NAME}
    assert len(model.kubectl.select("pods", HEADS)) == 1
    (worker,) = _ready_workers(model, 1)
    assert worker["spec"]["containers"][0]["name"] == "engine"


def test_it_answers_through_the_gateway_plain_and_streamed(model: Release) -> None:
    assert _chat(model).choices[0].message.content
    pieces = [chunk.choices[0].delta.content for chunk in _chat(model, stream=True) if chunk.choices]
    assert len([piece for piece in pieces if piece]) > 1


def test_the_gateway_reaches_door_and_replicas_and_nothing_of_the_platform_reaches_rays_own_ports(
    model: Release,
) -> None:
    (head,), (worker,) = model.kubectl.select("pods", HEADS), model.kubectl.select("pods", WORKERS)
    ports = {"door": 8011, "GCS": 6379, "dashboard": 8265, "clients": 10001}
    targets = {name: f"{head['status']['podIP']}:{port}" for name, port in ports.items()}
    targets["replica"] = f"{worker['status']['podIP']}:30000"

    def reached(deployment: str) -> set[str]:
        command = ["exec", f"deployment/{deployment}", "--", "python", "-c", TRY, *targets.values()]
        found = model.kubectl(*command).split()
        return {name for name, word in zip(targets, found, strict=True) if word == "open"}

    assert reached(f"{model.name}-gateway") == {"door", "replica"}
    assert reached(f"{model.name}-worker") == set()


def test_more_and_fewer_replicas_change_the_cluster_in_place_and_lose_nothing(
    model: Release, traffic: Callable[..., Traffic]
) -> None:
    clusters = [each["metadata"]["name"] for each in model.kubectl.select("rayclusters.ray.io", PODS)]
    constant = traffic(model, MODEL, rate=10)
    with constant.around("two replicas") as more:
        _apply(model, scaling={"min": 2, "max": 2, "target": 64})
        workers = _ready_workers(model, 2)
    more.assert_no_errors()
    with constant.around("one replica") as fewer:
        _apply(model)
        (left,) = _ready_workers(model, 1)
    fewer.assert_no_errors()
    assert left["metadata"]["name"] in [each["metadata"]["name"] for each in workers]
    assert [each["metadata"]["name"] for each in model.kubectl.select("rayclusters.ray.io", PODS)] == clusters
    status = model.wait_ready(MODEL)["status"]
    assert [(each["from"], each["to"]) for each in status["lastScalings"][:2]] == [(2, 1), (1, 2)]


def test_a_change_of_the_engine_brings_a_new_cluster_and_loses_nothing(
    model: Release, traffic: Callable[..., Traffic]
) -> None:
    (before,) = model.kubectl.select("pods", HEADS)
    with traffic(model, MODEL, rate=10).around("a new cluster") as window:
        _apply(model, engine={"type": "sim", "args": {**ARGS, "max_num_seqs": 32}})
        plan = model.kubectl.wait(
            "models.quarterdeck.dev",
            MODEL,
            until=lambda each: each["status"]["plan"]["edit"] == "NewCluster",
            what="plan",
        )
        model.kubectl.wait_all(
            "pods",
            HEADS,
            until=lambda pods: len(pods) == 1 and before["metadata"]["name"] not in pods,
            what="only the new head",
            seconds=START_S,
        )
    window.assert_no_errors()
    assert plan["status"]["plan"]["extraGPUs"] == 0
    model.wait_replicas(MODEL, 1, seconds=START_S)


def test_what_serve_says_is_in_the_models_status_and_the_old_cluster_serves_on(model: Release) -> None:
    _apply(model, engine={"type": "sim", "args": {"nonsense": 1}})
    found = model.kubectl.wait(
        "models.quarterdeck.dev",
        MODEL,
        until=lambda each: "unknown option 'nonsense'" in json.dumps(each["status"]["conditions"]),
        what="Serve's error",
        seconds=START_S,
    )
    assert found["status"]["state"] == "Serving"
    assert _chat(model).choices[0].message.content
    _apply(model)
    model.kubectl.wait_all("pods", HEADS, until=lambda pods: len(pods) == 1, what="one head", seconds=START_S)
    model.wait_ready(MODEL, seconds=START_S)


def test_a_suspended_model_has_no_pods_and_a_request_to_one_at_zero_brings_it_back(model: Release) -> None:
    _apply(model, suspend=True)
    model.kubectl.wait_all("pods", PODS, until=lambda pods: not pods, what="no pods", seconds=START_S)
    assert model.kubectl.get("rayservices.ray.io", NAME) is None
    _apply(model, scaling={"min": 0, "max": 1, "target": 64, "idleSeconds": 5})
    model.wait_ready(MODEL, seconds=START_S)
    model.kubectl.wait(
        "models.quarterdeck.dev",
        MODEL,
        until=lambda each: each["status"]["state"] == "Zero",
        what="zero",
        seconds=START_S,
    )
    model.kubectl.wait_all("pods", PODS, until=lambda pods: not pods, what="no pods", seconds=START_S)
    assert _chat(model, timeout=START_S).choices[0].message.content


def test_a_deleted_model_leaves_nothing(model: Release) -> None:
    model.kubectl.delete("models.quarterdeck.dev", MODEL, wait=True)
    for kind in ("pods", "rayservices.ray.io", "rayclusters.ray.io", "poddisruptionbudgets", "services"):
        model.kubectl.wait_all(kind, PODS, until=lambda each: not each, what=f"no {kind}", seconds=START_S)
