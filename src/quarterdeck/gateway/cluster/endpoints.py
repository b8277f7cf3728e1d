"""Endpoints in a cluster: EndpointSlices, joined with the operator's index of engines.

An `EndpointSource`. Slices of role `engine` list engines themselves; each address in a slice of role `door` is an
engine door that is polled. While the API server is away the endpoints that are known stay: breakers find the dead ones.
They are also saved in the state folder, so that a container that is restarted meanwhile still has them.
"""

import asyncio
import logging
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from quarterdeck.gateway.cluster import slices
from quarterdeck.gateway.cluster.slices import Address, EndpointSlice, Entries
from quarterdeck.inference.endpoints.endpoint import Endpoint, EndpointSpec
from quarterdeck.inference.endpoints.sources import Index, PolledEndpoints, indexed, joined, updated
from quarterdeck.kube.api import KubeApi
from quarterdeck.kube.compiled import EngineIndex
from quarterdeck.kube.follower import ObjectFollower
from quarterdeck.kube.names import ROLE_DOOR, ROLE_ENGINE, ROLE_LABEL, ROLE_REPLICA
from quarterdeck.kube.saved import read_saved, save
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.tasks import keep_running
from quarterdeck.settings.live import Live
from quarterdeck.settings.source import in_thread

log = logging.getLogger(__name__)

SETTLE_SECONDS = 0.03
"""A pod that moves from one slice to another is in none for some milliseconds: changes are taken together."""
MAX_TOOK = 0.05
SHARE = 10
"""Of the time between two rebuilds, one takes at most this part: 600 pods take some ten milliseconds, in which no
request is served, and a rollout of many Models changes slices for minutes."""
SAVE_SECONDS = 5.0
"""Between two writes to the state folder."""


class ClusterEndpoints:
    """Follows the slices of one namespace. `run` must run."""

    def __init__(
        self, api: KubeApi, engines: Live[EngineIndex], client: HttpClient, *, saved: Path | None = None
    ) -> None:
        """`saved`: a file for the slices; its folder exists."""
        self._client = client
        self._saved = saved
        self._entries = Entries(engines.current)
        self._endpoints: list[Endpoint] = []
        self._absent: list[Endpoint] = []
        """Stand for the models that no pod answers for, unless a door lists endpoints of theirs."""
        self._own_index: Index = {}
        self._doors: dict[str, tuple[Address, PolledEndpoints, asyncio.Task[None]]] = {}
        self._replica_hosts: Mapping[str, frozenset[str]] = {}
        self._refused: frozenset[str] = frozenset()
        """URLs of doors that list what is no pod of their Model."""
        self.index: Index = {}
        self.unavailable: Mapping[str, str] = {}
        self.statuses: Mapping[str, ModelStatus] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._took = 0.0
        """Seconds of the last rebuild."""
        self._is_unsaved = asyncio.Event()
        self._is_known = False
        self._follower = ObjectFollower(
            api,
            f"/apis/discovery.k8s.io/v1/namespaces/{api.namespace}/endpointslices",
            EndpointSlice,
            what="EndpointSlices",
            query={"labelSelector": f"{ROLE_LABEL} in ({ROLE_ENGINE},{ROLE_DOOR},{ROLE_REPLICA})"},
            on_change=self._on_change,
        )
        engines.subscribe(self._follow_index)

    def all(self) -> Sequence[Endpoint]:
        listed = [endpoint for _, polled, _ in self._doors.values() for endpoint in polled.all()]
        models = {endpoint.spec.model for endpoint in listed}
        return [*self._endpoints, *listed, *(each for each in self._absent if each.spec.model not in models)]

    async def run(self) -> None:
        """Follow until cancelled."""
        if self._saved is not None and not self._follower.is_synced:
            found = await in_thread(partial(read_saved, self._saved, list[EndpointSlice]))
            self._follower.seed(found or ())
            self._is_known = found is not None
        self._rebuild()
        saving = asyncio.create_task(self._save())
        try:
            await self._follower.run()
        finally:
            saving.cancel()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            for _, _, task in self._doors.values():
                task.cancel()
            self._doors.clear()

    @property
    def waiting(self) -> str | None:
        """Why no endpoints are known yet. None: they are."""
        if self._follower.is_synced or self._is_known:
            return None
        return f"waiting for EndpointSlices: {self._follower.error or 'not listed yet'}"

    @property
    def stale(self) -> str | None:
        """Why changes may not arrive. None: the slices are followed."""
        return self._follower.error

    def _follow_index(self, index: EngineIndex) -> None:
        self._entries = Entries(index)
        self._rebuild()

    def _on_change(self) -> None:
        if self._timer is None:
            wait = max(SETTLE_SECONDS, SHARE * self._took)
            self._timer = asyncio.get_running_loop().call_later(wait, self._on_settled)

    def _on_settled(self) -> None:
        self._timer = None
        self._rebuild()
        self._is_unsaved.set()

    def _rebuild(self) -> None:
        """Replace the set by what slices and index say now."""
        began = time.perf_counter()
        found = self._follower.objects.values()
        entries = self._entries
        specs = slices.engine_specs(found, entries)
        doors = slices.doors(found)
        self._replica_hosts = slices.replica_hosts(found)
        self._refused &= doors.keys()
        self._follow_doors(doors)
        self._absent = updated(self._absent, slices.placeholders(entries, {spec.model for spec in specs}))
        self._endpoints = updated(self._endpoints, specs)
        self._own_index = indexed(self._endpoints, self._own_index)
        self.unavailable = slices.unavailable(entries)
        self._join()
        self._took = min(time.perf_counter() - began, MAX_TOOK)

    def _join(self) -> None:
        parts = [self._own_index, *(polled.index for _, polled, _ in self._doors.values())]
        index = joined(parts, self.index)
        if index != self.index:
            self.index = index

    def _follow_doors(self, doors: Mapping[str, Address]) -> None:
        for url in self._doors.keys() - doors.keys():
            _, _, task = self._doors.pop(url)
            task.cancel()
        for url, door in doors.items():
            if (known := self._doors.get(url)) is not None and known[0].owner == door.owner:
                self._doors[url] = (door, known[1], known[2])
                continue
            if known is not None:
                known[2].cancel()
            polled = PolledEndpoints(url, self._client, translate=partial(self._of_door, url), on_change=self._join)
            task = asyncio.get_running_loop().create_task(keep_running(f"engine door {url}", polled.run))
            self._doors[url] = (door, polled, task)

    def _of_door(self, url: str, listed: EndpointSpec) -> EndpointSpec | None:
        if (known := self._doors.get(url)) is None or (entry := self._entries.of(known[0].owner)) is None:
            return None
        if slices.is_foreign(listed, self._replica_hosts.get(known[0].owner.object)):
            if url not in self._refused:
                self._refused |= {url}
                log.warning("engine door %s lists %.200r, which is no pod of its model; left out", url, listed.url)
            return None
        return slices.of_door(listed, known[0], entry)

    async def _save(self) -> None:
        """Save the slices when they have changed."""
        while (path := self._saved) is not None:
            await self._is_unsaved.wait()
            self._is_unsaved.clear()
            await in_thread(partial(save, path, list(self._follower.objects.values())))
            await asyncio.sleep(SAVE_SECONDS)
