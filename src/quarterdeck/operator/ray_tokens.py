"""The token of each Model's Ray cluster, in a Secret of the Model's own.

Who has a cluster's token runs code on it, and the pods of all Ray clusters reach one another: no two Models share a
token. It is made once; the operator may read and create Secrets, not list or watch them.
"""

import base64
import logging
import secrets
import time
from collections.abc import Callable

from quarterdeck.kube.names import APP_MANAGED_BY, APP_PART_OF, MANAGED_BY, MODEL_LABEL, PART_OF
from quarterdeck.operator.apply import ForeignObjectError
from quarterdeck.operator.cluster import Cluster
from quarterdeck.operator.manifests import SECRET, Manifest, controller_uid
from quarterdeck.operator.render.ray_pods import TOKEN_KEY, token_secret
from quarterdeck.operator.render.request import RenderRequest

log = logging.getLogger(__name__)

CHECK_SECONDS = 300.0
"""Between two looks whether a Model's Secret is there: how long one that was deleted is missing."""


class RayTokens:
    """Makes what is missing before a RayService is applied."""

    def __init__(self, cluster: Cluster, namespace: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._namespace, self._clock = cluster, namespace, clock
        self._checked: dict[str, float] = {}
        """By uid of the Model."""

    async def prepare(self, request: RenderRequest) -> None:
        """Raises ForeignObjectError, or ClusterError for what may succeed later."""
        if request.config.ray.token_secret is not None:
            return
        uid, now = request.model.metadata.uid, self._clock()
        if now - self._checked.get(uid, now - CHECK_SECONDS) < CHECK_SECONDS:
            return
        manifest = self._manifest(request)
        found = await self._cluster.get(SECRET, self._namespace, manifest["metadata"]["name"])
        if found is None:
            log.info("creating Secret '%s'", manifest["metadata"]["name"])
            await self._cluster.create(SECRET, self._namespace, manifest)
        elif controller_uid(found) != uid:
            raise ForeignObjectError(manifest)
        self._checked = {each: at for each, at in self._checked.items() if now - at < CHECK_SECONDS} | {uid: now}

    def _manifest(self, request: RenderRequest) -> Manifest:
        token = secrets.token_urlsafe(48).encode()
        return {
            "apiVersion": SECRET.api,
            "kind": SECRET.name,
            "metadata": {
                "name": token_secret(request),
                "namespace": self._namespace,
                "labels": {
                    MODEL_LABEL: request.model.name,
                    APP_MANAGED_BY: MANAGED_BY,
                    APP_PART_OF: PART_OF,
                },
                "ownerReferences": [request.model.owner_reference()],
            },
            "type": "Opaque",
            "data": {TOKEN_KEY: base64.b64encode(token).decode()},
        }
