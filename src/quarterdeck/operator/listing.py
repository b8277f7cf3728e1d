"""Lists all objects at the start and now and then, which finds what watches have missed."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Container

from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.manifests import (
    CONFIG_MAP,
    CUSTOM,
    DEPLOYMENT,
    DISRUPTION_BUDGET,
    ENDPOINT_SLICE,
    EVENT,
    POD,
    RAY_CLUSTER,
    RAY_SERVICE,
    REPLICA_SET,
    SERVICE,
    VOLUME_CLAIM,
    Kind,
    Manifest,
)

log = logging.getLogger(__name__)

EVERY_SECONDS = 180.0
_OWN = (DEPLOYMENT, REPLICA_SET, SERVICE, POD, DISRUPTION_BUDGET, VOLUME_CLAIM, CONFIG_MAP, ENDPOINT_SLICE, EVENT)


class Listing:
    """`concerns` says which objects the operator keeps; `groups` and `has_kuberay` what the cluster has. `on_missed` is
    called when a watch is found to report nothing."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        cache: ObjectCache,
        concerns: Callable[[Manifest], bool],
        *,
        has_kuberay: Callable[[], bool],
        groups: Callable[[], Container[str]],
        on_missed: Callable[[], None],
        on_corrections: Callable[[int], None],
    ) -> None:
        self._cluster, self._namespace, self._cache, self._concerns = cluster, namespace, cache, concerns
        self._has_kuberay, self._groups = has_kuberay, groups
        self._on_missed, self._on_corrections = on_missed, on_corrections
        self._heard = Counter[str]()
        """Events of watches since the last list, by kind."""
        self.is_done = False
        """Whether everything was listed once."""

    def heard(self, kind: str) -> None:
        """A watch has reported an object of this kind."""
        self._heard[kind] += 1

    def kinds(self) -> list[Kind]:
        """The kinds to follow, of those that the cluster has."""
        kinds = [*CUSTOM, *_OWN, *((RAY_SERVICE, RAY_CLUSTER) if self._has_kuberay() else ())]
        groups = self._groups()
        return [kind for kind in kinds if not kind.group or kind.api in groups]

    async def run(self) -> None:
        """List until cancelled."""
        while True:
            await asyncio.sleep(EVERY_SECONDS)
            try:
                await self.once()
            except ClusterError as error:
                log.warning("could not list the namespace's objects: %s", error)

    async def once(self) -> None:
        """Raises ClusterError."""
        missed: list[str] = []
        for kind in self.kinds():
            if kind == EVENT:
                continue
            known = self._cache.keys(kind.name)
            listed = await self._cluster.list_all(kind, self._namespace)
            corrections = self._cache.correct(kind.name, filter(self._concerns, listed), known)
            if self.is_done and corrections:
                self._on_corrections(corrections)
                if not self._heard[kind.name]:  # else an event may just be on its way
                    missed.append(kind.name)
        self._heard.clear()
        self.is_done = True
        if missed:
            log.warning("the watch has missed changes of %s, starting it again", ", ".join(missed))
            self._on_missed()
