"""ASGI without a framework: its types, a request's body read within a bound, a whole response sent.

For every process that serves HTTP: gateway, worker, engine door, simulator.
"""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

from quarterdeck.errors import RequestTooLargeError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]
Header = tuple[bytes, bytes]

DRAIN_FACTOR = 16
"""A body that is too large is still read and dropped up to this many times the limit: a client whose connection is
closed while it writes sees a broken connection instead of the 413. Beyond that the connection is closed."""


class ClientGoneError(Exception):
    """The client closed the connection before its request was complete."""


async def read_body(receive: Receive, limit: int, content_length: int | None = None) -> bytes:
    """The whole body of a request. `limit` is in bytes.

    Raises RequestTooLargeError, with `connection: close` where the rest was not read, and ClientGoneError.
    """
    if content_length is not None and content_length > limit:
        await _refuse_too_large(receive, limit, content_length)
    message = await _next(receive)
    body: bytes = message.get("body", b"")
    if not message.get("more_body", False):
        if len(body) > limit:
            raise too_large(limit, unread=False)
        return body
    parts, size = [body], len(body)
    while message.get("more_body", False):
        message = await _next(receive)
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            parts.clear()  # up to sixteen times as much may follow
            is_read = not message.get("more_body", False) or await _drain(receive, limit * DRAIN_FACTOR)
            raise too_large(limit, unread=not is_read)
    return b"".join(parts)


async def send_response(send: Send, status: int, body: bytes, headers: Sequence[Header] = ()) -> None:
    """A whole response; `headers` lack the content-length."""
    headers = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def too_large(limit: int, *, unread: bool) -> RequestTooLargeError:
    """`unread`: a part of the body is still in the connection, which has to be closed for that."""
    return RequestTooLargeError(
        f"The request body is larger than the maximum of {limit} bytes.",
        headers={"connection": "close"} if unread else None,
    )


async def _refuse_too_large(receive: Receive, limit: int, content_length: int) -> None:
    """Always raises RequestTooLargeError, after reading and dropping a body that is not far too large."""
    is_read = content_length <= limit * DRAIN_FACTOR and await _drain(receive, content_length)
    raise too_large(limit, unread=not is_read)


async def _drain(receive: Receive, limit: int) -> bool:
    """Read and drop at most about `limit` bytes. Returns whether the body ended within them."""
    size = 0
    while size <= limit:
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
