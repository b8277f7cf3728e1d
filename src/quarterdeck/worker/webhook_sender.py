"""Posts one delivery. Redirects are not followed, responses are not read, and the whole takes a bounded time."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin, request_head
from quarterdeck.net.proxies import Proxies
from quarterdeck.net.public_addresses import NotPublicError, PublicResolver, may_be_public

MAX_RETRY_AFTER = 3600.0
"""Seconds. A receiver may not postpone an event until it is too old to be sent."""


class WebhookSendError(Exception):
    """There was no response."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A receiver's response."""

    status: int
    retry_after: float | None = None
    """Seconds."""


class WebhookSender:
    """`allows_private`: whether private addresses may be reached. Each delivery has a connection of its own."""

    def __init__(self, *, proxies: Proxies | None = None, allows_private: Callable[[], bool] = lambda: False) -> None:
        self._allows_private = allows_private
        self._resolver = PublicResolver(allows_private)
        self._client = HttpClient(max_idle=0, proxies=proxies, resolve=self._resolver)

    async def post(self, url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Answer:
        """Post JSON. `timeout` bounds all of it, in seconds. Raises WebhookSendError."""
        parts = urlsplit(url)
        # The proxy, if there is one, resolves names itself: here only what the URL shows can be refused.
        if not self._allows_private() and not may_be_public(parts.hostname or ""):
            raise WebhookSendError("the URL leads to a private address")
        origin = Origin.parse(url)._replace(prefix="")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        sent = {
            "content-type": "application/json",
            "content-length": str(len(body)),
            "user-agent": "quarterdeck-webhooks",
            "connection": "close",
            **headers,
        }
        head = request_head("POST", origin, path, ((name.encode(), value.encode()) for name, value in sent.items()))
        limit = asyncio.get_running_loop().time() + timeout
        timeouts = Timeouts(connect=timeout, first_byte=timeout, idle=timeout)
        try:
            connection = await self._client.request(origin, head + b"\r\n", body, timeouts, limit)
        except UpstreamError as error:
            if error.status:  # a body that never ended, or was broken: the status is what counts
                return Answer(error.status)
            raise WebhookSendError(_reason(error)) from error
        answer = Answer(connection.status, _seconds(connection.header(b"retry-after")))
        self._client.release(origin, connection)
        return answer

    async def close(self) -> None:
        await self._client.close()
        self._resolver.close()


def _reason(error: UpstreamError) -> str:
    cause = error.__cause__
    return str(cause) if isinstance(cause, NotPublicError) else str(error)


def _seconds(value: bytes | None) -> float | None:
    """Retry-After in seconds; a date is ignored."""
    text = (value or b"").strip()
    return min(float(text), MAX_RETRY_AFTER) if text.isdigit() and len(text) < 10 else None
