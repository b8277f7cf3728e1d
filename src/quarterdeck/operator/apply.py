"""Carries out a plan, and remembers with what the API server answered."""

import logging

from quarterdeck.operator.cache import ObjectCache
from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.manifests import (
    Key,
    Manifest,
    controller_uid,
    key_of,
    kind_of,
    uid_of,
)
from quarterdeck.operator.plan import Plan, is_subset, view_hash

log = logging.getLogger(__name__)


class ForeignObjectError(Exception):
    """An object has the name that the operator needs and has another owner; it is left alone."""

    def __init__(self, manifest: Manifest) -> None:
        kind, name = key_of(manifest)
        super().__init__(f"{kind} '{name}' exists and is not owned by this object; rename it or delete it")


class RejectedError(Exception):
    """The API server refused an object; it will refuse it again until the spec changes."""

    def __init__(self, manifest: Manifest, error: ClusterError) -> None:
        kind, name = key_of(manifest)
        super().__init__(f"{kind} '{name}' was refused: {error.message}")
        self.kind, self.name, self.error = kind, name, error


class Applier:
    """Applies and deletes objects of one namespace. `settled` is `make_plan`'s."""

    def __init__(self, cluster: Cluster, cache: ObjectCache, namespace: str) -> None:
        self._cluster, self._cache, self._namespace = cluster, cache, namespace
        self.settled: dict[Key, str] = {}

    async def carry_out(self, plan: Plan, owner_uid: str, *, adopt: bool = False) -> None:
        """Apply, then delete. `adopt`: take over objects of the same name that others have made.

        Raises ForeignObjectError, RejectedError, or ClusterError for anything that may succeed later.
        """
        for manifest in plan.apply:
            await self._apply(manifest, owner_uid, adopt=adopt)
        for manifest in plan.delete:
            kind, name = key_of(manifest)
            log.info("deleting %s '%s'", kind, name)
            await self._cluster.delete(kind_of(manifest), self._namespace, name, uid=uid_of(manifest))
            self.settled.pop(key_of(manifest), None)

    async def _apply(self, manifest: Manifest, owner_uid: str, *, adopt: bool) -> None:
        kind, name = key_of(manifest)
        if not adopt and self._cache.get(kind, name) is None:
            # Applying would silently take over an object of the same name with another owner.
            live = await self._cluster.get(kind_of(manifest), self._namespace, name)
            if live is not None and controller_uid(live) != owner_uid:
                raise ForeignObjectError(manifest)
        log.info("applying %s '%s'", kind, name)
        try:
            answer = await self._cluster.apply(manifest, self._namespace)
        except ClusterError as error:
            if error.is_rejection or error.status == 403:
                raise RejectedError(manifest, error) from error
            raise
        if is_subset(manifest, answer):
            self.settled.pop(key_of(manifest), None)
        else:
            self.settled[key_of(manifest)] = view_hash(manifest, answer)
        self._cache.put(answer, is_own=True)

    def forget(self, manifest: Manifest) -> None:
        """An object is gone."""
        self.settled.pop(key_of(manifest), None)
