"""One operator of several acts: it holds a Lease of the API server.

`decide` is pure. Times in a Lease are another machine's clock, so they are never compared with ours: a holder counts as
gone when its Lease has not changed for its duration since we first saw it so.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.manifests import LEASE, Manifest

log = logging.getLogger(__name__)

LEASE_SECONDS = 10
"""After a leader's last sign, another may follow so many seconds later. A fail-over takes < 13 s."""
RENEW_SECONDS = 2.5
STEP_DOWN_SECONDS = 7.0
"""Without a renewal for so long, the leader stops acting: before another may start."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A Lease's version, and when (monotonic seconds) it was first seen."""

    version: str
    at: float


def decide(lease: Manifest | None, identity: str, sighting: Sighting | None, now: float) -> Literal["take", "wait"]:
    """Whether to write ourselves into the Lease (to renew, too), or to wait."""
    if lease is None:
        return "take"
    spec = lease.get("spec") or {}
    holder = spec.get("holderIdentity")
    if not holder or holder == identity:
        return "take"
    if sighting is None or sighting.version != lease["metadata"].get("resourceVersion"):
        return "wait"
    return "take" if now - sighting.at > (spec.get("leaseDurationSeconds") or LEASE_SECONDS) else "wait"


class Leader:
    """Holds the Lease `name`. `on_change(is_leader)` is called when that changes."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        name: str,
        identity: str,
        on_change: Callable[[bool], None],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._namespace, self._name, self._identity = cluster, namespace, name, identity
        self._on_change, self._clock = on_change, clock
        self._sighting: Sighting | None = None
        self._renewed_at = 0.0
        self.is_leader = False
        self.holder = ""

    async def run(self) -> None:
        """Take part until cancelled; then give the Lease back."""
        try:
            while True:
                await self._step()
                await asyncio.sleep(RENEW_SECONDS if self.is_leader else 1.0)
        finally:
            await self._release()

    async def _step(self) -> None:
        try:
            async with asyncio.timeout(RENEW_SECONDS * 2):
                await self._try()
        except (ClusterError, TimeoutError) as error:
            log.warning("could not reach the lease '%s': %s", self._name, error or "timed out")
        if self.is_leader and self._clock() - self._renewed_at > STEP_DOWN_SECONDS:
            log.error("the lease '%s' was not renewed for %.0f s: stepping down", self._name, STEP_DOWN_SECONDS)
            self._set(False)

    async def _try(self) -> None:
        started = self._clock()
        lease = await self._cluster.get(LEASE, self._namespace, self._name)
        if lease is not None:
            self.holder = (lease.get("spec") or {}).get("holderIdentity") or ""
            version = lease["metadata"].get("resourceVersion", "")
            if self._sighting is None or self._sighting.version != version:
                self._sighting = Sighting(version, started)
        if decide(lease, self._identity, self._sighting, started) == "wait":
            self._set(False)
            return
        try:
            if lease is None:
                await self._cluster.create(LEASE, self._namespace, self._written(None), attempts=1)
            else:
                await self._cluster.replace(LEASE, self._namespace, self._written(lease), attempts=1)
        except ClusterError as error:
            if error.status != 409:
                raise
            self._set(False)  # another one was faster
            return
        self._renewed_at, self.holder = started, self._identity
        self._set(True)

    def _written(self, lease: Manifest | None) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict((lease or {}).get("spec") or {})
        if spec.get("holderIdentity") != self._identity:
            spec["leaseTransitions"] = spec.get("leaseTransitions", 0) + (1 if lease else 0)
            spec["acquireTime"] = now
        spec |= {"holderIdentity": self._identity, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now}
        metadata = {"name": self._name, "namespace": self._namespace}
        if lease is not None:
            metadata["resourceVersion"] = lease["metadata"]["resourceVersion"]
        return {"apiVersion": LEASE.api, "kind": LEASE.name, "metadata": metadata, "spec": spec}

    async def _release(self) -> None:
        if not self.is_leader:
            return
        self._set(False)
        try:
            async with asyncio.timeout(3):
                for _ in range(3):
                    if await self._is_given_back():
                        return
        except (ClusterError, TimeoutError) as error:
            log.warning("could not give the lease '%s' back, it expires: %s", self._name, error or "timed out")

    async def _is_given_back(self) -> bool:
        """False if a renewal of ours, still on its way, came in between."""
        lease = await self._cluster.get(LEASE, self._namespace, self._name)
        if lease is None or (lease.get("spec") or {}).get("holderIdentity") != self._identity:
            return True
        lease["spec"]["holderIdentity"] = ""
        try:
            await self._cluster.replace(LEASE, self._namespace, lease, attempts=1)
        except ClusterError as error:
            if error.status != 409:
                raise
            return False
        return True

    def _set(self, is_leader: bool) -> None:
        if is_leader != self.is_leader:
            self.is_leader = is_leader
            log.info("%s", "this operator leads" if is_leader else "this operator does not lead any more")
            self._on_change(is_leader)
