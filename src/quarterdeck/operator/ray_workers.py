"""Gives a running Ray cluster as many workers as a Model has replicas.

KubeRay leaves that to autoscalers. Ray's own one needs a Kubernetes token in the head's pod; this one is the operator.
A worker ends only when Serve has no replica on it any more, which the engine door beside the head tells.
"""

import logging
from typing import Protocol

import httpx

from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.http_answers import fetch
from quarterdeck.operator.manifests import Manifest, is_deleting, labels_of
from quarterdeck.operator.observed import Observed
from quarterdeck.operator.render import rayservice
from quarterdeck.operator.render.ray_pods import DOOR_PORT
from quarterdeck.operator.render.request import RenderRequest

log = logging.getLogger(__name__)

DOOR_SECONDS = 3.0
STEADY_SECONDS = 60.0
SURPLUS_SECONDS = 1.0
"""Between two looks while a worker waits for its replica to end."""


class Doors(Protocol):
    """The engine doors beside the heads."""

    async def in_use(self, address: str) -> frozenset[str] | None:
        """Addresses of the pods with a replica in any state; None: the door does not answer."""
        ...


class EngineDoors:
    """Asks doors over HTTP."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client

    async def in_use(self, address: str) -> frozenset[str] | None:
        host = f"[{address}]" if ":" in address else address
        try:
            answer = await fetch(self._client, "GET", f"http://{host}:{DOOR_PORT}/nodes", seconds=DOOR_SECONDS)
            return frozenset(map(str, answer.json()["in_use"]))
        except (httpx.HTTPError, ValueError, KeyError, TypeError) as error:
            log.warning("engine door %s does not answer: %s", address, error or type(error).__name__)
            return None


class RayWorkers:
    """The follow-up of the RayService backend."""

    def __init__(self, cluster: Cluster, namespace: str, doors: Doors) -> None:
        self._cluster, self._namespace, self._doors = cluster, namespace, doors

    async def follow(self, request: RenderRequest, seen: Observed) -> float:
        """Scale the running cluster. Raises ClusterError for what may succeed later."""
        surplus = rayservice.surplus(request, seen.others)
        in_use = await self._in_use(seen.pods) if surplus else None
        for patch in rayservice.scaling_patches(request, seen.others, seen.pods, in_use):
            log.info("scaling the workers of RayCluster '%s'", patch.name)
            try:
                await self._cluster.merge(patch.kind, self._namespace, patch.name, patch.change)
            except ClusterError as error:
                if error.status not in (404, 409):  # it is gone, or has changed: the next reconcile sees it
                    raise
                return SURPLUS_SECONDS
        return SURPLUS_SECONDS if surplus else STEADY_SECONDS

    async def _in_use(self, pods: tuple[Manifest, ...]) -> frozenset[str] | None:
        """Of all clusters together. None if one door does not answer."""
        found: frozenset[str] = frozenset()
        for pod in pods:
            address = (pod.get("status") or {}).get("podIP")
            if labels_of(pod).get(rayservice.NODE_TYPE) != "head" or is_deleting(pod) or not address:
                continue
            in_use = await self._doors.in_use(address)
            if in_use is None:
                return None
            found |= in_use
        return found
