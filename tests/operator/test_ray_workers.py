"""Workers of a running Ray cluster follow the number of replicas."""

from typing import Any, cast

import httpx
import pytest

from quarterdeck.kube.resources.model import Model
from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.manifests import Kind, Manifest
from quarterdeck.operator.observed import Observed
from quarterdeck.operator.ray_workers import STEADY_SECONDS, SURPLUS_SECONDS, EngineDoors, RayWorkers
from quarterdeck.operator.render.request import RenderRequest
from quarterdeck.operator.settings import OperatorConfig


class FakeCluster:
    """Records patches, or refuses them."""

    def __init__(self, error: ClusterError | None = None) -> None:
        self.error = error
        self.patches: list[tuple[str, Any]] = []

    async def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        if self.error is not None:
            raise self.error
        (group,) = change["spec"]["workerGroupSpecs"]
        self.patches.append((name, (group["replicas"], group["scaleStrategy"]["workersToDelete"])))
        return change


class FakeDoors:
    def __init__(self, in_use: frozenset[str] | None) -> None:
        self.answer = in_use
        self.asked: list[str] = []

    async def in_use(self, address: str) -> frozenset[str] | None:
        self.asked.append(address)
        return self.answer


def _request(replicas: int) -> RenderRequest:
    metadata = {"name": "chat", "namespace": "ns", "uid": "u"}
    body = {"apiVersion": "quarterdeck.dev/v1alpha1", "kind": "Model", "metadata": metadata}
    return RenderRequest(Model.parse({**body, "spec": {"engine": {"type": "sim"}}}), "ns", OperatorConfig(), replicas)


def _pod(name: str, kind: str, address: str) -> Manifest:
    labels = {"ray.io/node-type": kind, "ray.io/cluster": "model-chat-x1"}
    return {"kind": "Pod", "metadata": {"name": name, "labels": labels}, "status": {"podIP": address}}


def _seen(replicas: int) -> Observed:
    cluster = {
        "kind": "RayCluster",
        "metadata": {"name": "model-chat-x1", "resourceVersion": "7", "ownerReferences": [{"name": "model-chat"}]},
        "spec": {"workerGroupSpecs": [{"replicas": replicas}]},
    }
    pods = (_pod("h", "head", "10.0.0.9"), _pod("a", "worker", "10.0.0.1"), _pod("b", "worker", "10.0.0.2"))
    return Observed((), pods, (cluster,))


async def _follow(cluster: FakeCluster, doors: FakeDoors, replicas: int, running: int) -> float:
    return await RayWorkers(cast(Cluster, cluster), "ns", doors).follow(_request(replicas), _seen(running))


async def test_a_steady_cluster_costs_no_call() -> None:
    cluster, doors = FakeCluster(), FakeDoors(frozenset())
    assert await _follow(cluster, doors, 2, 2) == STEADY_SECONDS
    assert (cluster.patches, doors.asked) == ([], [])


async def test_more_replicas_need_no_door() -> None:
    cluster, doors = FakeCluster(), FakeDoors(None)
    await _follow(cluster, doors, 3, 2)
    assert cluster.patches == [("model-chat-x1", (3, []))]
    assert doors.asked == []


async def test_a_worker_that_serve_has_left_ends_by_name() -> None:
    cluster, doors = FakeCluster(), FakeDoors(frozenset({"10.0.0.1"}))
    assert await _follow(cluster, doors, 1, 2) == SURPLUS_SECONDS
    assert cluster.patches == [("model-chat-x1", (1, ["b"]))]
    assert doors.asked == ["10.0.0.9"]


@pytest.mark.parametrize("in_use", [None, frozenset({"10.0.0.1", "10.0.0.2"})], ids=["door away", "both in use"])
async def test_no_worker_with_a_replica_ends(in_use: frozenset[str] | None) -> None:
    cluster = FakeCluster()
    assert await _follow(cluster, FakeDoors(in_use), 1, 2) == SURPLUS_SECONDS
    assert cluster.patches == []


async def test_a_conflict_is_tried_again_and_other_refusals_are_raised() -> None:
    conflict = FakeCluster(ClusterError(409, "Conflict", "changed"))
    assert await _follow(conflict, FakeDoors(frozenset()), 1, 2) == SURPLUS_SECONDS
    with pytest.raises(ClusterError):
        await _follow(FakeCluster(ClusterError(403, "Forbidden", "no")), FakeDoors(frozenset()), 1, 2)


async def test_a_door_is_asked_at_its_pod_and_may_be_away() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url == "http://10.0.0.9:8011/nodes":
            return httpx.Response(200, json={"in_use": ["10.0.0.1"]})
        return httpx.Response(500)

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as client:
        doors = EngineDoors(client)
        assert await doors.in_use("10.0.0.9") == {"10.0.0.1"}
        assert await doors.in_use("10.0.0.8") is None
        assert await doors.in_use("fd00::1") is None
