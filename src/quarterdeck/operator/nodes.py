"""Capacities of the cluster's nodes, where the operator may read them.

With them a status tells accelerators that no node has from those that are in use; without, the scheduler's words do.
"""

import asyncio
import logging
from typing import Any

from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.manifests import Manifest

log = logging.getLogger(__name__)

READ_SECONDS = 60.0
_FORBIDDEN = (401, 403)


class Nodes:
    """Keeps `current`; None: not known."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.current: list[Manifest] | None = None
        self._is_refused = False

    async def run(self) -> None:
        """Read each minute until cancelled."""
        while True:
            await self.once()
            await asyncio.sleep(READ_SECONDS)

    async def once(self) -> None:
        """Read now. What was known stays if the API server does not answer."""
        try:
            self.current = [slim(each) for each in await self._cluster.list_nodes()]
            self._is_refused = False
        except ClusterError as error:
            if error.status not in _FORBIDDEN:
                log.warning("could not list nodes: %s", error)
                return
            self.current = None
            if not self._is_refused:
                log.info("nodes can't be read, so the scheduler's messages tell what they have: %s", error.message)
            self._is_refused = True


def slim(node: Manifest) -> Manifest:
    """What diagnosis reads."""
    metadata, status = node.get("metadata") or {}, node.get("status") or {}
    ready: list[Any] = [each for each in status.get("conditions") or () if each.get("type") == "Ready"]
    return {
        "kind": "Node",
        "metadata": {"name": metadata.get("name", ""), "labels": metadata.get("labels") or {}},
        "spec": {"taints": (node.get("spec") or {}).get("taints") or []},
        "status": {"allocatable": status.get("allocatable") or {}, "conditions": ready},
    }
