"""Which optional parts the cluster has, found at start and each minute: none of them is required."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass

from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.manifests import RAY_SERVICE

log = logging.getLogger(__name__)

PROBE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Capabilities:
    """API groups of the cluster, each with a version (`apps/v1`)."""

    groups: frozenset[str] = frozenset()

    @property
    def has_kuberay(self) -> bool:
        return RAY_SERVICE.api in self.groups

    @property
    def has_prometheus_operator(self) -> bool:
        return "monitoring.coreos.com/v1" in self.groups

    @property
    def has_keda(self) -> bool:
        return "keda.sh/v1alpha1" in self.groups

    @property
    def has_gateway_api(self) -> bool:
        return "gateway.networking.k8s.io/v1" in self.groups


class Probe:
    """Keeps `current`. `on_change` is called when a group has come or gone."""

    def __init__(self, cluster: Cluster, on_change: Callable[[Capabilities], None]) -> None:
        self._cluster, self._on_change = cluster, on_change
        self.current = Capabilities()

    async def once(self) -> None:
        """Raises ClusterError."""
        found = Capabilities(await self._cluster.api_groups())
        if found != self.current:
            known, self.current = self.current, found
            if known.groups:
                log.info(
                    "API groups have changed: new %s, gone %s",
                    sorted(found.groups - known.groups),
                    sorted(known.groups - found.groups),
                )
            self._on_change(found)

    async def run(self) -> None:
        while True:
            await asyncio.sleep(PROBE_SECONDS)
            try:
                await self.once()
            except ClusterError as error:
                log.warning("could not read the API groups: %s", error)
