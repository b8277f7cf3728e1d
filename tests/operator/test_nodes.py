"""Reading the cluster's nodes, with and without the right."""

from typing import Any

from quarterdeck.operator.cluster import ClusterError
from quarterdeck.operator.nodes import Nodes

NODE = {
    "metadata": {"name": "n", "labels": {"gpu": "l4"}, "managedFields": [1]},
    "spec": {"taints": [{"key": "k"}], "podCIDR": "x"},
    "status": {
        "allocatable": {"nvidia.com/gpu": "2"},
        "images": ["large"],
        "conditions": [{"type": "DiskPressure"}, {"type": "Ready", "status": "True"}],
    },
}


class Cluster:
    """The API server, as far as nodes go."""

    def __init__(self) -> None:
        self.answer: list[Any] | ClusterError = [NODE]

    async def list_nodes(self) -> list[Any]:
        if isinstance(self.answer, ClusterError):
            raise self.answer
        return self.answer


async def test_nodes_are_kept_without_what_nothing_reads() -> None:
    cluster = Cluster()
    nodes = Nodes(cluster)  # type: ignore[arg-type]
    assert nodes.current is None
    await nodes.once()
    assert nodes.current is not None
    (node,) = nodes.current
    assert node["status"] == {
        "allocatable": {"nvidia.com/gpu": "2"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    assert node["metadata"] == {"name": "n", "labels": {"gpu": "l4"}} and node["spec"] == {"taints": [{"key": "k"}]}


async def test_without_the_right_nodes_are_unknown_and_an_outage_keeps_what_is_known() -> None:
    cluster = Cluster()
    nodes = Nodes(cluster)  # type: ignore[arg-type]
    await nodes.once()
    cluster.answer = ClusterError(503, "Unavailable", "away")
    await nodes.once()
    assert nodes.current is not None
    cluster.answer = ClusterError(403, "Forbidden", "no")
    await nodes.once()
    assert nodes.current is None
