"""The API server as the operator uses it: the official client's connections and credentials, plain dicts, threads.

Calls are bounded in number and time. Those that the server defers (429, 503 with Retry-After) or that fail on the way
are repeated with growing pauses: every write here is idempotent. What still fails is raised, and the object's reconcile
is repeated later by the work queue.
"""

import asyncio
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Self

import urllib3
from kubernetes import config as kubernetes_config
from kubernetes.client import ApiClient, Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from quarterdeck.kube import nesting
from quarterdeck.kube.names import MANAGER_OPERATOR
from quarterdeck.operator.manifests import LEASE, Kind, Manifest, kind_of, name_of

log = logging.getLogger(__name__)

CONCURRENCY = 8
"""Calls at once: within the API server's share of a service account, and enough for 300 Models in seconds."""
CONNECT_SECONDS = 3.0
READ_SECONDS = 20.0
ATTEMPTS = 5
"""Of one call. With the pauses below about 15 s; afterwards the work queue takes over."""
PAUSE_SECONDS = 0.5
"""Before the second attempt; doubled for each further one, with jitter."""
MAX_PAUSE_SECONDS = 30.0
"""Most that a Retry-After is followed."""
_TRANSIENT = frozenset({408, 429, 500, 502, 503, 504})
_APPLY = "application/apply-patch+yaml"
_MERGE = "application/merge-patch+json"


class ClusterError(Exception):
    """The API server refused a call, or did not answer (`status` 0)."""

    def __init__(self, status: int, reason: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status} {reason}: {message}" if status else message)
        self.status, self.reason, self.message, self.retry_after = status, reason, message, retry_after

    @property
    def is_transient(self) -> bool:
        return self.status == 0 or self.status in _TRANSIENT

    @property
    def is_rejection(self) -> bool:
        """Whether the object itself was refused, so that a repetition is refused as well."""
        return self.status in (400, 422) or (self.status == 500 and "failed to create typed patch" in self.message)


class Cluster:
    """`on_call(verb, kind, status, seconds)` is called in the event loop after each attempt."""

    def __init__(
        self,
        client: ApiClient,
        *,
        on_call: Callable[[str, str, int, float], None] = lambda verb, kind, status, seconds: None,
        concurrency: int = CONCURRENCY,
        pause_seconds: float = PAUSE_SECONDS,
    ) -> None:
        self._client = client
        self._on_call = on_call
        self._pause_seconds = pause_seconds
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="api")
        # The lease must be renewed in time while other calls wait for a slow API server.
        self._lease_threads = ThreadPoolExecutor(2, thread_name_prefix="lease")

    @classmethod
    def connect(cls, **options: Any) -> Self:
        """Use the pod's service account, or else KUBECONFIG. Raises ValueError if there is neither."""
        configuration = Configuration()
        try:
            kubernetes_config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except ConfigException:
            try:
                kubernetes_config.load_kube_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
            except ConfigException as error:
                raise ValueError(f"no service account and no kubeconfig: {error}") from None
        configuration.retries = urllib3.Retry(0, redirect=2)
        configuration.connection_pool_maxsize = options.get("concurrency", CONCURRENCY) + 4
        return cls(ApiClient(configuration), **options)

    async def get(self, kind: Kind, namespace: str, name: str) -> Manifest | None:
        """Return the object; None if it does not exist."""
        try:
            return await self._call("get", kind, "GET", kind.path(namespace, name))
        except ClusterError as error:
            if error.status == 404:
                return None
            raise

    async def list_all(self, kind: Kind, namespace: str, *, selector: str = "") -> list[Manifest]:
        """Return all objects, in pages. The items lack apiVersion and kind on the wire; they are added here."""
        found: list[Manifest] = []
        page = ""
        while True:
            query = [("limit", "500")]
            if selector:
                query.append(("labelSelector", selector))
            if page:
                query.append(("continue", page))
            answer = await self._call("list", kind, "GET", kind.path(namespace), query=query)
            for item in answer.get("items") or ():
                item["apiVersion"], item["kind"] = kind.api, kind.name
                found.append(item)
            page = (answer.get("metadata") or {}).get("continue", "")
            if not page:
                return found

    async def apply(
        self,
        manifest: Manifest,
        namespace: str,
        *,
        status: bool = False,
        dry_run: bool = False,
        manager: str = MANAGER_OPERATOR,
    ) -> Manifest:
        """Apply server-side and return the object as it is then. `status`: apply the status subresource.

        Forced: a field that was changed by hand is taken back; fields that are not in `manifest` stay.
        """
        kind = kind_of(manifest)
        query = [("fieldManager", manager), ("force", "true")]
        if dry_run:
            query.append(("dryRun", "All"))
        path = kind.path(namespace, name_of(manifest), "status" if status else None)
        return await self._call("apply", kind, "PATCH", path, query=query, body=manifest, content_type=_APPLY)

    async def merge(self, kind: Kind, namespace: str, name: str, change: Manifest) -> Manifest:
        """Change fields of an object by a JSON merge patch."""
        query = [("fieldManager", MANAGER_OPERATOR)]
        path = kind.path(namespace, name)
        return await self._call("patch", kind, "PATCH", path, query=query, body=change, content_type=_MERGE)

    async def create(self, kind: Kind, namespace: str, manifest: Manifest, *, attempts: int = ATTEMPTS) -> Manifest:
        query = [("fieldManager", MANAGER_OPERATOR)]
        path = kind.path(namespace)
        return await self._call("create", kind, "POST", path, query=query, body=manifest, attempts=attempts)

    async def replace(self, kind: Kind, namespace: str, manifest: Manifest, *, attempts: int = ATTEMPTS) -> Manifest:
        """Replace an object. Raises ClusterError 409 if it has changed since `manifest` was read."""
        query = [("fieldManager", MANAGER_OPERATOR)]
        path = kind.path(namespace, name_of(manifest))
        return await self._call("update", kind, "PUT", path, query=query, body=manifest, attempts=attempts)

    async def delete(self, kind: Kind, namespace: str, name: str, *, uid: str | None = None) -> None:
        """Delete an object and what it owns; not an error if it does not exist, or is another one (`uid`) by now."""
        body: Manifest = {"propagationPolicy": "Background"}
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self._call("delete", kind, "DELETE", kind.path(namespace, name), body=body)
        except ClusterError as error:
            if error.status not in (404, 409):
                raise

    async def api_groups(self) -> frozenset[str]:
        """Return the API groups with their versions (`apps/v1`) that the server offers."""
        answer = await self._call("list", Kind("v1", "APIGroup", ""), "GET", "/apis")
        return frozenset(
            version["groupVersion"] for group in answer.get("groups") or () for version in group.get("versions") or ()
        )

    async def list_nodes(self) -> list[Manifest]:
        """Return the cluster's nodes, in pages. Raises ClusterError 403 without a ClusterRole for it."""
        found: list[Manifest] = []
        page = ""
        while True:
            query = [("limit", "500"), *([("continue", page)] if page else [])]
            answer = await self._call("list", Kind("v1", "Node", "nodes"), "GET", "/api/v1/nodes", query=query)
            found += answer.get("items") or ()
            page = (answer.get("metadata") or {}).get("continue", "")
            if not page:
                return found

    def close(self) -> None:
        for threads in (self._threads, self._lease_threads):
            threads.shutdown(wait=False, cancel_futures=True)

    async def _call(
        self,
        verb: str,
        kind: Kind,
        method: str,
        path: str,
        *,
        query: list[tuple[str, str]] | None = None,
        body: Manifest | None = None,
        content_type: str = "application/json",
        attempts: int = ATTEMPTS,
    ) -> Manifest:
        loop = asyncio.get_running_loop()
        threads = self._lease_threads if kind == LEASE else self._threads
        for attempt in range(1, attempts + 1):
            started = time.monotonic()
            try:
                send = partial(self._send, method, path, query or [], body, content_type)
                answer = await loop.run_in_executor(threads, send)
            except ClusterError as error:
                self._on_call(verb, kind.name, error.status, time.monotonic() - started)
                if not error.is_transient or error.is_rejection or attempt == attempts:
                    raise
                await asyncio.sleep(self._pause(attempt, error.retry_after))
            else:
                self._on_call(verb, kind.name, 200, time.monotonic() - started)
                return answer
        raise AssertionError("unreachable")

    def _pause(self, attempt: int, retry_after: float | None) -> float:
        pause: float = self._pause_seconds * 2 ** (attempt - 1) * (0.75 + random.random() / 2)  # noqa: S311
        return min(max(pause, retry_after or 0.0), MAX_PAUSE_SECONDS)

    def _send(
        self, method: str, path: str, query: list[tuple[str, str]], body: Manifest | None, content_type: str
    ) -> Manifest:
        """One attempt, in a thread. Raises ClusterError."""
        headers = {"Accept": "application/json", "Content-Type": content_type}
        try:
            prepared = self._client.param_serialize(
                method, path, query_params=query, header_params=headers, body=body, auth_settings=["BearerToken"]
            )
            response = self._client.call_api(*prepared, _request_timeout=(CONNECT_SECONDS, READ_SECONDS))
            data = response.read()  # type: ignore[no-untyped-call]
        except (urllib3.exceptions.HTTPError, ApiException, OSError) as error:
            raise ClusterError(0, "Unavailable", f"no answer from the API server: {error}") from None
        if response.status >= 400:
            raise _error_of(response.status, response.reason, data, response.headers.get("Retry-After"))
        try:
            answer: Manifest = nesting.loads(data)
        except ValueError:
            raise ClusterError(0, "Unavailable", "the API server answered without JSON") from None
        return answer


def _error_of(status: int, reason: str | None, data: bytes, stated: str | None) -> ClusterError:
    reason, message = str(reason or ""), ""
    try:
        answer = nesting.loads(data)
        if isinstance(answer, dict):
            reason, message = str(answer.get("reason") or reason), str(answer.get("message") or "")
    except ValueError:
        message = data[:500].decode("utf-8", "replace")
    try:
        retry_after = max(0.0, float(stated)) if stated else None
    except ValueError:  # a date
        retry_after = None
    return ClusterError(status, reason, message or reason, retry_after)
