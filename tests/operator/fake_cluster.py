"""An API server in memory, at the edge of the operator: objects, server-side apply of one manager, and faults.

It stands in for `Cluster` where a test needs thousands of reconciles or a failure at an exact call; what the real one
does is tested in tests/cluster.
"""

import copy
import itertools
from collections.abc import Callable
from typing import Any

from quarterdeck.kube.names import MANAGER_OPERATOR
from quarterdeck.operator.cluster import ClusterError
from quarterdeck.operator.manifests import Key, Kind, Manifest, key_of, kind_of, name_of


class FakeCluster:
    """`before` is called with the verb and the manifest (or name) before each write; it may raise."""

    def __init__(self, before: Callable[[str, Key], None] = lambda verb, key: None) -> None:
        self.objects: dict[Key, Manifest] = {}
        self.writes: list[tuple[str, Key]] = []
        self.before = before
        self._versions = itertools.count(1000)

    def add(self, manifest: Manifest) -> Manifest:
        """Put an object there, as someone else."""
        found = copy.deepcopy(manifest)
        found["metadata"].setdefault("uid", f"uid-{name_of(manifest)}")
        found["metadata"].setdefault("generation", 1)
        found["metadata"]["resourceVersion"] = str(next(self._versions))
        self.objects[key_of(found)] = found
        return found

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        return copy.deepcopy(self.objects.get(Key(kind.name, name)))

    async def list_all(self, kind: Kind, namespace: str, *, selector: str = "") -> list[Manifest]:
        return [copy.deepcopy(each) for key, each in self.objects.items() if key.kind == kind.name]

    async def apply(
        self,
        manifest: Manifest,
        namespace: str,
        *,
        status: bool = False,
        dry_run: bool = False,
        manager: str = MANAGER_OPERATOR,
    ) -> Manifest:
        key = key_of(manifest)
        kind_of(manifest)
        verb = "status" if status else "apply"
        self.before(verb, key)
        self.writes.append((verb, key))
        live = self.objects.get(key)
        if status:
            if live is None:
                raise ClusterError(404, "NotFound", "not found")
            others = live.get("status", {}) if manager != MANAGER_OPERATOR else {}
            self.objects[key] = live = {**live, "status": {**others, **copy.deepcopy(manifest["status"])}}
        elif live is None:
            return copy.deepcopy(self.add(manifest))
        else:
            changed = {k: v for k, v in copy.deepcopy(manifest).items() if k not in ("metadata", "status")}
            metadata = {**live["metadata"], **copy.deepcopy(manifest["metadata"])}
            metadata["generation"] += live.get("spec") != manifest.get("spec")
            self.objects[key] = live = {**live, **changed, "metadata": metadata}
        live["metadata"]["resourceVersion"] = str(next(self._versions))
        return copy.deepcopy(live)

    async def create(self, kind: Kind, namespace: str, manifest: Manifest, *, attempts: int = 1) -> Manifest:
        self.before("create", key_of(manifest))
        if key_of(manifest) in self.objects:
            raise ClusterError(409, "AlreadyExists", "exists")
        if kind.name != "Event":
            self.writes.append(("create", key_of(manifest)))
        return copy.deepcopy(self.add(manifest))

    async def replace(self, kind: Kind, namespace: str, manifest: Manifest, *, attempts: int = 1) -> Manifest:
        key = key_of(manifest)
        self.before("update", key)
        live = self.objects.get(key)
        if live is None or live["metadata"]["resourceVersion"] != manifest["metadata"].get("resourceVersion"):
            raise ClusterError(409, "Conflict", "the object has been modified")
        self.writes.append(("update", key))
        return copy.deepcopy(self.add(manifest))

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str | None = None) -> None:
        self.before("delete", Key(kind.name, name))
        self.writes.append(("delete", Key(kind.name, name)))
        self.objects.pop(Key(kind.name, name), None)

    def ready(self, name: str, replicas: int | None = None) -> None:
        """Let a Deployment have all its pods ready."""
        found: dict[str, Any] = self.objects[Key("Deployment", name)]
        count = found["spec"]["replicas"] if replicas is None else replicas
        found["status"] = {
            "observedGeneration": found["metadata"]["generation"],
            "replicas": count,
            "updatedReplicas": count,
            "readyReplicas": count,
        }
        found["metadata"]["resourceVersion"] = str(next(self._versions))
