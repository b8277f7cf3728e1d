"""Which prompts are mirrored, in a ConfigMap: an object may be deleted while no operator runs, and a finalizer would
keep it, and its namespace, until one does."""

import json
from collections.abc import Callable

from quarterdeck.kube.names import APP_MANAGED_BY, APP_PART_OF, MANAGED_BY, PART_OF
from quarterdeck.operator.cluster import Cluster
from quarterdeck.operator.manifests import CONFIG_MAP, Manifest
from quarterdeck.operator.publish import Owner

KEY = "prompts.json"


class PromptRecord:
    """Names of the platform's prompts by those of their objects. `owner`: what the ConfigMap belongs to."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, owner: Callable[[], Owner | None]) -> None:
        self._cluster, self._namespace, self._name, self._owner = cluster, namespace, name, owner
        self._names: dict[str, str] | None = None

    async def read(self) -> dict[str, str]:
        """Object to prompt. Raises ClusterError."""
        if self._names is None:
            found = await self._cluster.get(CONFIG_MAP, self._namespace, self._name)
            self._names = _decode(((found or {}).get("data") or {}).get(KEY, "{}"))
        return dict(self._names)

    async def write(self, names: dict[str, str]) -> None:
        """Replace the record, if it differs. Raises ClusterError."""
        if names == await self.read():
            return
        metadata: Manifest = {
            "name": self._name,
            "namespace": self._namespace,
            "labels": {APP_MANAGED_BY: MANAGED_BY, APP_PART_OF: PART_OF},
        }
        if (owner := self._owner()) is not None:
            metadata["ownerReferences"] = [owner.reference()]
        data = {KEY: json.dumps(names, sort_keys=True)}
        manifest = {"apiVersion": CONFIG_MAP.api, "kind": CONFIG_MAP.name, "metadata": metadata, "data": data}
        await self._cluster.apply(manifest, self._namespace)
        self._names = dict(names)

    def forget(self) -> None:
        """Read it again: another operator may have led meanwhile."""
        self._names = None


def _decode(text: str) -> dict[str, str]:
    """Damaged by hand: as if nothing was mirrored, so that nothing is archived."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return {str(key): str(value) for key, value in found.items()} if isinstance(found, dict) else {}
