"""The addresses of Ray's own metrics, for Prometheus' HTTP service discovery. Pure.

Each node's agent serves them, with Serve's, at a port that Ray picks when it starts.
"""

from collections.abc import Iterable, Mapping
from typing import Any


def scrape_targets(nodes: Iterable[Mapping[str, Any]], host: str | None) -> list[dict[str, Any]]:
    """One group per living node of `ray.nodes()`. `host`: where the agents listen instead of at the nodes' addresses.

    A node whose agent serves no metrics has port 0.
    """
    return [
        {
            "targets": [f"{host or node['NodeManagerAddress']}:{port}"],
            "labels": {"ray_node": node["NodeID"][:12]},
        }
        for node in nodes
        if node.get("Alive") and (port := node.get("MetricsExportPort"))
    ]
