"""Events of the API server about our objects: what happened, shown by `kubectl describe`.

An event is written when its cause appears, not each time it is seen; the same one again within an hour is
left out. Losing an event is harmless, so a write that fails is logged and forgotten.
"""

import asyncio
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, Literal

from quarterdeck.operator.cluster import Cluster, ClusterError
from quarterdeck.operator.manifests import EVENT, Manifest, name_of, uid_of

log = logging.getLogger(__name__)

SILENT_SECONDS = 3600.0
"""Within which the same event is not written again. The API server keeps events for an hour."""
MAX_KNOWN = 10_000
COMPONENT = "quarterdeck-operator"


class EventRecorder:
    """`spawn` runs a write in the background."""

    def __init__(
        self,
        cluster: Cluster,
        namespace: str,
        identity: str,
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster, self._namespace, self._identity = cluster, namespace, identity
        self._spawn, self._clock = spawn, clock
        self._known: OrderedDict[tuple[str, str], float] = OrderedDict()

    def emit(
        self,
        about: Manifest,
        kind: Literal["Normal", "Warning"],
        reason: str,
        message: str,
        *,
        key: str | None = None,
    ) -> bool:
        """Write an event about an object. `key` identifies its cause (default: reason and message). Returns whether it
        is written now."""
        cause = (uid_of(about) or name_of(about), key if key is not None else f"{reason}: {message}")
        now = self._clock()
        written = self._known.get(cause)
        if written is not None and now - written < SILENT_SECONDS:
            return False
        self._known[cause] = now
        self._known.move_to_end(cause)
        while len(self._known) > MAX_KNOWN:
            self._known.popitem(last=False)
        self._spawn(self._write(self._event(about, kind, reason, message)))
        return True

    def forget(self, about: Manifest, key: str) -> None:
        """The cause is gone: if it comes back, it is an event again."""
        self._known.pop((uid_of(about) or name_of(about), key), None)

    def _event(self, about: Manifest, kind: str, reason: str, message: str) -> Manifest:
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{name_of(about)}.{secrets.token_hex(8)}", "namespace": self._namespace},
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "involvedObject": {
                "apiVersion": about["apiVersion"],
                "kind": about["kind"],
                "name": name_of(about),
                "namespace": self._namespace,
                "uid": uid_of(about),
                "resourceVersion": about["metadata"].get("resourceVersion", ""),
            },
            "source": {"component": COMPONENT},
            "reportingComponent": COMPONENT,
            "reportingInstance": self._identity[:128],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
        }

    async def _write(self, event: Manifest) -> None:
        try:
            await self._cluster.create(EVENT, self._namespace, event)
        except (ClusterError, asyncio.CancelledError) as error:
            log.warning("could not write an event (%s: %s): %s", event["reason"], event["message"], error)
            if isinstance(error, asyncio.CancelledError):
                raise
