"""Copies API keys of external endpoints into the one Secret that gateways mount.

The operator may read single Secrets, not list or watch them: they are read again from time to time.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from quarterdeck.kube.compile.conversion import EndpointKey
from quarterdeck.kube.names import APP_MANAGED_BY, APP_PART_OF, MANAGED_BY, PART_OF
from quarterdeck.operator.cluster import Cluster
from quarterdeck.operator.manifests import SECRET, Manifest

log = logging.getLogger(__name__)

READ_SECONDS = 60.0
"""Between two reads of the same keys: how long a replaced key goes unnoticed."""


class EndpointKeys:
    """Keeps the Secret `target` of one namespace."""

    def __init__(
        self, cluster: Cluster, namespace: str, target: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._cluster, self._namespace, self._target, self._clock = cluster, namespace, target, clock
        self._copied: dict[str, str] | None = None
        """What the target holds; None: it has not been read."""
        self._keys: tuple[EndpointKey, ...] = ()
        self._read_at = 0.0
        self.missing: frozenset[EndpointKey] = frozenset()
        """Keys that do not exist."""

    async def copy(self, keys: Sequence[EndpointKey], owner: dict[str, Any] | None) -> None:
        """Bring the Secret up to date. Raises ClusterError."""
        wanted = tuple(keys)
        if wanted == self._keys and (not wanted or self._clock() - self._read_at < READ_SECONDS):
            return
        names = sorted({key.secret for key in wanted})
        secrets = await asyncio.gather(*(self._cluster.get(SECRET, self._namespace, name) for name in names))
        data = {name: (secret or {}).get("data") or {} for name, secret in zip(names, secrets, strict=True)}
        found = {key.file: data[key.secret][key.key] for key in wanted if key.key in data[key.secret]}
        self.missing = frozenset(key for key in wanted if key.file not in found)
        if self._copied is None:
            target = await self._cluster.get(SECRET, self._namespace, self._target)
            self._copied = dict((target or {}).get("data") or {})
        if found != self._copied:
            log.info("applying Secret '%s' with %d keys", self._target, len(found))
            await self._cluster.apply(self._manifest(found, owner), self._namespace)
            self._copied = found
        self._keys, self._read_at = wanted, self._clock()

    def _manifest(self, data: dict[str, str], owner: dict[str, Any] | None) -> Manifest:
        metadata: Manifest = {
            "name": self._target,
            "namespace": self._namespace,
            "labels": {APP_MANAGED_BY: MANAGED_BY, APP_PART_OF: PART_OF},
        }
        if owner is not None:
            metadata["ownerReferences"] = [owner]
        return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": data}
