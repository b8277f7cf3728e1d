"""HTTP requests to tool servers: bounded in time and bytes, and for URLs that callers give on public addresses only.

A name is checked as it is resolved for the connection, so DNS rebinding has no effect. Redirects are not followed here.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from urllib.parse import urlsplit

from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import HttpConnection, Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin, request_head
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.public_addresses import NotPublicError, PublicResolver, may_be_public
from quarterdeck.resources.tools.servers import ToolServerError

CONNECT_SECONDS = 10.0
MAX_IDLE = 4
"""Connections that are kept for each origin."""

Header = tuple[bytes, bytes]


class HttpAccess:
    """`is_public`: only public addresses are reached. `max_bytes`: of one response's body."""

    def __init__(self, *, is_public: bool, max_bytes: Callable[[], int], proxies: Proxies | None = None) -> None:
        self._is_public = is_public
        self.max_bytes = max_bytes
        self._resolver = PublicResolver() if is_public else None
        self._client = HttpClient(max_idle=MAX_IDLE, proxies=proxies, resolve=self._resolver)

    async def send(self, method: str, url: str, headers: Iterable[Header], body: bytes, timeout: float) -> "HttpAnswer":
        """Send a request and wait for the head of its response. `timeout` bounds all of it, in seconds. The caller
        closes the answer. Raises ToolServerError."""
        parts = urlsplit(url)
        # A proxy resolves names itself: here only what the URL shows can be refused.
        if self._is_public and not may_be_public(parts.hostname or ""):
            raise ToolServerError("The URL leads to a private address.")
        origin = Origin.parse(url)._replace(prefix="")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = request_head(method, origin, path, headers)
        length = b"content-length: %d\r\n" % len(body) if body or method not in ("GET", "HEAD", "DELETE") else b""
        limit = asyncio.get_running_loop().time() + timeout
        timeouts = Timeouts(connect=min(CONNECT_SECONDS, timeout), first_byte=timeout, idle=timeout)
        try:
            connection = await self._client.request(origin, head + length + b"\r\n", body, timeouts, limit)
        except UpstreamError as error:
            raise failed(error) from error
        return HttpAnswer(self._client, origin, connection, self.max_bytes())

    async def close(self) -> None:
        await self._client.close()
        if self._resolver is not None:
            self._resolver.close()


class HttpAnswer:
    """A response whose body is read in pieces, or whole."""

    def __init__(self, client: HttpClient, origin: Origin, connection: HttpConnection, max_bytes: int) -> None:
        self._client = client
        self._origin = origin
        self._connection = connection
        self._max_bytes = max_bytes
        self.status = connection.status

    @property
    def headers(self) -> list[Header]:
        return list(self._connection.headers)

    def header(self, name: bytes) -> bytes:
        return self._connection.header(name) or b""

    async def pieces(self) -> AsyncIterator[bytes]:
        """Raises ToolServerError, also for a body that is too large."""
        size = 0
        try:
            while piece := await self._connection.read():
                size += len(piece)
                if size > self._max_bytes:
                    raise ToolServerError(
                        f"The server's answer is larger than {self._max_bytes} bytes.", status=self.status
                    )
                yield piece
        except UpstreamError as error:
            raise failed(error) from error

    async def whole(self) -> bytes:
        """Raises ToolServerError."""
        return b"".join([piece async for piece in self.pieces()])

    def close(self) -> None:
        """Idempotent. A response that was not read to its end is stopped."""
        self._client.release(self._origin, self._connection)


def failed(error: UpstreamError) -> ToolServerError:
    """In words for a caller, who must not learn more of the network than that it did not work."""
    if isinstance(error.__cause__, NotPublicError):
        return ToolServerError("The host has no public address.")
    if error.timed_out:
        return ToolServerError("The server did not answer in time.", status=504)
    if error.answered:
        return ToolServerError("The server's answer was broken off.", status=502)
    return ToolServerError("The server could not be reached.", status=502)
