"""The SDK's HTTP client on the platform's own: its guards, its bounds, its proxies."""

from collections.abc import AsyncIterator, Mapping

import httpx2

from quarterdeck.resources.tools.http_access import HttpAccess, HttpAnswer
from quarterdeck.resources.tools.servers import ToolServerError

_OWN = frozenset({b"host", b"content-length", b"transfer-encoding", b"connection", b"accept-encoding"})


class ServerFailedError(httpx2.TransportError):
    """A ToolServerError on its way through the SDK."""


class AccessTransport(httpx2.AsyncBaseTransport):
    """`headers` are sent with each request to the server's own origin, and to no other. `timeout`: of one response, in
    seconds. The last failure is kept, because the SDK reports some of them as a closed connection."""

    def __init__(self, access: HttpAccess, url: str, headers: Mapping[str, str], timeout: float) -> None:
        self._access = access
        self._origin = _origin(httpx2.URL(url))
        self._headers = [(name.encode(), value.encode()) for name, value in headers.items()]
        self._timeout = timeout
        self.failure: ToolServerError | None = None

    async def handle_async_request(self, outgoing: httpx2.Request) -> httpx2.Response:
        if _origin(outgoing.url) != self._origin:
            raise ServerFailedError("The server leads to another host.")
        own = {name for name, _ in self._headers}
        sent = [(name.lower(), value) for name, value in outgoing.headers.raw]
        headers = [(name, value) for name, value in sent if name not in _OWN and name not in own]
        try:
            body = await outgoing.aread()
            answer = await self._access.send(
                outgoing.method, str(outgoing.url), [*headers, *self._headers], body, self._timeout
            )
        except ToolServerError as error:
            self.failure = error
            raise ServerFailedError(error.message) from error
        if answer.status >= 300 and answer.status != 405:
            self.failure = ToolServerError(f"The server answered with status {answer.status}.", status=answer.status)
        return httpx2.Response(answer.status, headers=answer.headers, stream=_Body(answer, self), request=outgoing)


class _Body(httpx2.AsyncByteStream):
    def __init__(self, answer: HttpAnswer, transport: AccessTransport) -> None:
        self._answer = answer
        self._transport = transport

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            async for piece in self._answer.pieces():
                yield piece
        except ToolServerError as error:
            self._transport.failure = error
            raise ServerFailedError(error.message) from error

    async def aclose(self) -> None:
        self._answer.close()


def _origin(url: httpx2.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port
