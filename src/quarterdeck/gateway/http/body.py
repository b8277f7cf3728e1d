"""A request's body, bounded in size. That it comes in time is the business of `callers`."""

import asyncio
from typing import Protocol

from starlette.types import Message, Receive

from quarterdeck.errors import RequestTooLargeError
from quarterdeck.gateway.http.callers import Caller

DRAIN_FACTOR = 16
"""Of a body that is too large, this many times the limit is still read and dropped: a client that is cut off while it
writes sees a broken connection and not the 413. Who sends more than that is cut off."""


class ClientGoneError(Exception):
    """The caller hung up before the body was whole."""


class Body(Protocol):
    """Where a request's body comes from, and after it the word that its caller hung up."""

    async def read(self, limit: int) -> bytes:
        """All of it. Raises RequestTooLargeError and ClientGoneError."""
        ...

    def watch(self, caller: Caller) -> None:
        """From now on tell the caller when it hangs up. The body has been read."""
        ...

    def close(self) -> None:
        """Stop watching."""
        ...


class AsgiBody:
    """Out of `receive`, which has to be waited on for the news that nobody is there any more."""

    def __init__(self, receive: Receive, content_length: int | None) -> None:
        self._receive = receive
        self._content_length = content_length
        self._watcher: asyncio.Task[None] | None = None

    async def read(self, limit: int) -> bytes:
        return await read_body(self._receive, self._content_length, limit)

    def watch(self, caller: Caller) -> None:
        self._watcher = asyncio.get_running_loop().create_task(self._listen(caller))

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()

    async def _listen(self, caller: Caller) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass  # a server may say again that the body is over
        caller.hang_up()


async def read_body(receive: Receive, content_length: int | None, limit: int) -> bytes:
    """Raises RequestTooLargeError, with `connection: close` where the rest was not read, and ClientGoneError."""
    if content_length is not None and content_length > limit:
        if content_length > limit * DRAIN_FACTOR or not await _drain(receive, content_length):
            raise _too_large(limit, unread=True)
        raise _too_large(limit, unread=False)
    message = await _next(receive)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise _too_large(limit, unread=False)
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await _next(receive)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            parts.clear()  # up to sixteen times as much may follow
            is_over = not message.get("more_body", False) or await _drain(receive, limit * DRAIN_FACTOR)
            raise _too_large(limit, unread=not is_over)
    return b"".join(parts)


async def _drain(receive: Receive, most: int) -> bool:
    """Read and drop; whether that was all of it."""
    size = 0
    while size <= most:
        message = await _next(receive)
        size += len(message.get("body", b""))
        if not message.get("more_body", False):
            return True
    return False


async def _next(receive: Receive) -> Message:
    message = await receive()
    if message["type"] == "http.disconnect":
        raise ClientGoneError
    return message


def _too_large(limit: int, *, unread: bool) -> RequestTooLargeError:
    return RequestTooLargeError(
        f"The request's body is larger than {limit} bytes, the most that is taken here.",
        headers={"connection": "close"} if unread else None,
    )
