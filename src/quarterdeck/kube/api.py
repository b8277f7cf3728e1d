"""A small asynchronous client of the Kubernetes API for processes that only read it: get, list, watch.

Gateway and worker follow a few objects of their namespace. The official client and httpx would cost them more memory
and start-up time than all that they follow, so this stands on the engine client's HTTP (docs/adr/0005-own-http-client).
The operator, which writes, uses the official one. What is read is decoded into structs of the caller's, so that
`managedFields` and the like are never built.
"""

import ssl
from collections.abc import AsyncIterator, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import urlencode

import msgspec

from quarterdeck.kube.access import ClusterAccess
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import HttpConnection, Timeouts, UpstreamError
from quarterdeck.net.http_origin import request_head

T = TypeVar("T")

PAGE = 250
"""Objects in one answer of a list."""
MAX_ANSWER_BYTES = 32 * 1024 * 1024
MAX_LINE_BYTES = 8 * 1024 * 1024
"""Of one event of a watch. etcd takes objects of 1.5 MiB; JSON's escapes and managedFields may double it."""
MAX_OBJECTS = 20_000
"""Of one list."""
WATCH_SECONDS = 45.0
"""After so long the server ends a watch, and the next one continues it. It bounds how long a server that has vanished
goes unnoticed; a resumed watch costs the server next to nothing."""
GRACE_SECONDS = 10.0
TIMEOUTS = Timeouts(connect=5.0, first_byte=15.0, idle=15.0)
KEEP_ALIVE = (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3))
MAX_RETRY_AFTER = 30.0


class KubeError(Exception):
    """The API server refused a request, could not be reached, or answered with something else than its API."""

    def __init__(self, message: str, *, status: int = 0, retry_after: float = 0.0) -> None:
        """`status` 0: there was no answer."""
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after

    @property
    def is_gone(self) -> bool:
        """The resourceVersion or the place in a list is too old: list again."""
        return self.status == 410


class Metadata(msgspec.Struct, frozen=True, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None


class _ListMetadata(msgspec.Struct, frozen=True, rename={"resource_version": "resourceVersion", "next": "continue"}):
    resource_version: str = ""
    next: str | None = None


class Page(msgspec.Struct, Generic[T], frozen=True):
    """An answer to a list."""

    metadata: _ListMetadata
    items: list[T] | None = None


class _EventHead(msgspec.Struct, frozen=True):
    type: str
    object: msgspec.Raw


class _Bookmark(msgspec.Struct, frozen=True):
    metadata: Metadata


class _Status(msgspec.Struct, frozen=True):
    message: str = ""
    code: int = 0


class Event(msgspec.Struct, Generic[T], frozen=True):
    """A change. `object` is None for a bookmark, which only says how far the watch has come."""

    type: str
    """ADDED, MODIFIED, DELETED or BOOKMARK."""
    version: str
    object: T | None


class KubeApi:
    """Requests to one API server. All methods raise KubeError."""

    def __init__(self, access: ClusterAccess, *, watch_seconds: float = WATCH_SECONDS) -> None:
        self._access = access
        self._watch_seconds = watch_seconds
        self._client: HttpClient | None = None
        self._stamp = (0, 0)

    @property
    def namespace(self) -> str:
        return self._access.namespace

    async def get(self, path: str, type: type[T], query: Mapping[str, str] | None = None) -> T:
        """One object. `path` begins with a slash; `type` is a msgspec.Struct."""
        client, connection = await self._send(path, query or {}, TIMEOUTS)
        try:
            body = await connection.read_all(MAX_ANSWER_BYTES)
        except UpstreamError as error:
            raise KubeError(f"reading {path}: {error}") from error
        finally:
            client.release(self._access.origin, connection)
        _raise_for_status(connection, body)
        return _decoded(body, type, path)

    async def list(self, path: str, type: type[T], query: Mapping[str, str] | None = None) -> tuple[list[T], str]:
        """All objects and the resourceVersion from which to watch."""
        found: list[T] = []
        wanted = {**(query or {}), "limit": str(PAGE)}
        while True:
            page: Page[T] = await self.get(path, Page[type], wanted)  # type: ignore[valid-type]  # mypy knows no types at run time
            found += page.items or ()
            if len(found) > MAX_OBJECTS:
                raise KubeError(f"{path} has more than {MAX_OBJECTS} objects")
            if not page.metadata.next:
                return found, page.metadata.resource_version
            wanted["continue"] = page.metadata.next

    async def watch(
        self, path: str, type: type[T], version: str, query: Mapping[str, str] | None = None
    ) -> AsyncIterator[Event[T]]:
        """Changes since `version`, until the server ends the watch; then it is begun again from the last event's
        version. Raises KubeError with `is_gone` where the version is too old."""
        wanted = {
            **(query or {}),
            **{"watch": "1", "allowWatchBookmarks": "true", "resourceVersion": version},
            "timeoutSeconds": str(max(1, round(self._watch_seconds))),
        }
        silence = self._watch_seconds + GRACE_SECONDS
        client, connection = await self._send(path, wanted, Timeouts(5.0, silence, silence))
        try:
            if connection.status != 200:
                _raise_for_status(connection, await connection.read_all(MAX_ANSWER_BYTES))
            async for line in _lines(connection):
                yield _event(line, type, path)
        except UpstreamError as error:
            raise KubeError(f"watching {path}: {error}") from error
        finally:
            client.release(self._access.origin, connection)

    async def close(self) -> None:
        """Close all connections. Requests in progress fail."""
        if self._client is not None:
            await self._client.close()

    async def _send(self, path: str, query: Mapping[str, str], timeouts: Timeouts) -> tuple[HttpClient, HttpConnection]:
        origin = self._access.origin
        try:
            client = self._client_now()
            headers = [(b"accept", b"application/json"), (b"user-agent", b"quarterdeck"), (b"content-length", b"0")]
            if (authorization := self._access.authorization()) is not None:
                headers.append((b"authorization", authorization.encode()))
        except (OSError, ValueError, ssl.SSLError) as error:
            raise KubeError(f"credentials of the Kubernetes API can't be read: {error}") from error
        target = f"{path}?{urlencode(query)}" if query else path
        try:
            head = request_head("GET", origin, target, headers) + b"\r\n"
            return client, await client.request(origin, head, b"", timeouts)
        except UpstreamError as error:
            raise KubeError(f"the Kubernetes API at {self._access.url} does not answer: {error}") from error

    def _client_now(self) -> HttpClient:
        """A new one where the CA was replaced; requests of the former one go on."""
        stamp = self._access.stamp()
        if self._client is None or stamp != self._stamp:
            self._client = HttpClient(tls=self._access.tls(), keep_alive=KEEP_ALIVE)
            self._stamp = stamp
        return self._client


async def _lines(connection: HttpConnection) -> AsyncIterator[bytes]:
    """The lines of a body. One that has no end, because the connection was cut, is dropped: the watch continues after
    the last whole one."""
    rest: list[bytes] = []
    size = 0
    while piece := await connection.read():
        first, *others = piece.split(b"\n")
        rest.append(first)
        size += len(first)
        if size > MAX_LINE_BYTES:
            raise KubeError(f"an event of a watch has more than {MAX_LINE_BYTES} bytes")
        if not others:
            continue
        whole = [b"".join(rest), *others[:-1]]
        rest, size = [others[-1]], len(others[-1])
        for line in whole:
            if line.strip():
                yield line


def _event(line: bytes, type: type[T], path: str) -> Event[T]:
    head = _decoded(line, _EventHead, path)
    if head.type == "ERROR":
        status = _decoded(head.object, _Status, path)
        raise KubeError(status.message or "the watch failed", status=status.code or 500)
    version = _decoded(head.object, _Bookmark, path).metadata.resource_version
    if head.type == "BOOKMARK":
        return Event(head.type, version, None)
    return Event(head.type, version, _decoded(head.object, type, path))


def _decoded(body: bytes | msgspec.Raw, type: type[T], path: str) -> T:
    try:
        return msgspec.json.decode(body, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise KubeError(f"the answer to {path} is not what the Kubernetes API sends: {error}") from error


def _raise_for_status(connection: HttpConnection, body: bytes) -> None:
    status = connection.status
    if status < 300:
        return
    try:
        message = msgspec.json.decode(body, type=_Status).message
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        message = ""
    after: Any = connection.header(b"retry-after") or b""
    seconds = min(float(after), MAX_RETRY_AFTER) if after.isdigit() else 0.0
    raise KubeError(
        f"status {status}: {message[:500]}" if message else f"status {status}", status=status, retry_after=seconds
    )
