"""The HTTP session of the watches: kopf's own one, except that it cuts what is nested too deeply to be parsed."""

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import aiohttp
import kopf

from quarterdeck.kube.nesting import bounded

LOGIN_SECONDS = 2.0
"""Least time between two logins. kopf logs in again as often as the API server refuses its credentials."""


class Login:
    """kopf's login handler: the credentials of the official client. Runs in kopf's event loop."""

    def __init__(self) -> None:
        self._next_at = 0.0

    async def log_in(self, **arguments: Any) -> kopf.AiohttpSession | None:
        await asyncio.sleep(self._next_at - time.monotonic())
        self._next_at = time.monotonic() + LOGIN_SECONDS
        found = await asyncio.to_thread(kopf.login_via_client, **arguments)
        if found is None:
            return None
        return kopf.AiohttpSession(
            server=found.server,
            default_namespace=found.default_namespace,
            priority=found.priority,
            expiration=found.expiration,
            aiohttp_session=session(found),
        )


def session(credentials: kopf.ConnectionInfo) -> aiohttp.ClientSession:
    """A session with these credentials, as kopf makes it. Must be called in an event loop."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0, ssl=credentials.as_ssl_context()),
        headers=credentials.as_http_headers(),
        proxy=credentials.proxy_url,
        trust_env=credentials.trust_env,
        response_class=BoundedResponse,
    )


class BoundedResponse(aiohttp.ClientResponse):
    """An answer that is one JSON document (a list) or a line for each event (a watch)."""

    async def start(self, connection: Any) -> "BoundedResponse":
        await super().start(connection)
        self.content = BoundedLines(self.content)  # type: ignore[assignment]
        return self

    async def json(
        self,
        *,
        encoding: str | None = None,
        loads: Callable[[str], Any] = json.loads,
        content_type: str | None = "application/json",
    ) -> Any:
        return await super().json(
            encoding=encoding, loads=lambda text: loads(bounded(text.encode()).decode()), content_type=content_type
        )


class BoundedLines:
    """A stream whose lines, as `iter_chunked` returns them, are cut. Other calls go to the stream."""

    def __init__(self, stream: aiohttp.StreamReader) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def iter_chunked(self, size: int) -> AsyncIterator[bytes]:
        """Whole lines, and at the end what is left."""
        rest = bytearray()
        async for chunk in self._stream.iter_chunked(size):
            rest += chunk
            end = rest.rfind(b"\n", max(len(rest) - len(chunk), 0)) + 1
            if end:
                yield b"".join(map(bounded, bytes(rest[:end]).splitlines(keepends=True)))
                del rest[:end]
        if rest:
            yield bounded(bytes(rest))
