"""One HTTP request and its response on the client's ASGI connection, including the ways in which a connection fails."""

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import Any, cast

from quarterdeck.net.asgi import Header, Receive, Scope, Send
from quarterdeck.simulator.errors import VLLMError, unsupported_media_type

TRANSPORT = "quarterdeck.transport"
"""The ASGI extension under which `server.py` provides the connection's transport."""

JSON = b"application/json"


class ClientDisconnected(Exception):
    """The client closed the connection before its response was complete."""


class ConnectionFault(ConnectionError):
    """Raised instead of closing the connection when the app runs in process, without one."""


class ClientConnection:
    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self._headers: Iterable[Header] = scope["headers"]
        self._receive = receive
        self._send = send
        self._transport = cast(
            asyncio.Transport | None, (scope.get("extensions") or {}).get(TRANSPORT, {}).get("transport")
        )
        self._watcher: asyncio.Task[None] | None = None
        self._body: bytes | None = None
        self.extra_headers: list[Header] = []
        self.is_started = False
        self.is_ended = False
        self.is_disconnected = False

    def header(self, name: bytes) -> str | None:
        for key, value in self._headers:
            if key == name:
                return value.decode("latin-1")
        return None

    async def body(self, limit: int, media_type: str = "application/json") -> bytes:
        """Return the request body, which must be of this type; repeated calls return the same bytes.

        Raises VLLMError above `limit` bytes, ClientDisconnected when the body ends early.
        """
        if self._body is not None:
            return self._body
        kind = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        if kind != media_type:
            raise unsupported_media_type(media_type)
        parts: list[bytes] = []
        length = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientDisconnected
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > limit:
                raise VLLMError("Request body too large", status=413, type="Request Entity Too Large")
            if not message.get("more_body"):
                self._body = parts[0] if len(parts) == 1 else b"".join(parts)
                return self._body

    async def respond(
        self, body: bytes, *, status: int = 200, headers: Iterable[Header] = (), kind: bytes = JSON
    ) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, [(b"content-type", kind), length, *headers])
        await self._end(body)

    async def respond_short(self, body: bytes, missing: int, kind: bytes = JSON) -> None:
        """Send a content-length that is `missing` bytes too large, the body, and close the connection."""
        length = (b"content-length", str(len(body) + missing).encode())
        await self._start(200, [(b"content-type", kind), length])
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        await self.cut()

    async def respond_half(self, body: bytes, *, reset: bool, kind: bytes = JSON) -> None:
        """Send the correct content-length, half of the body, and close the connection."""
        await self._start(200, [(b"content-type", kind), (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await self.cut(reset=reset)

    async def open_stream(
        self, kind: bytes = b"text/event-stream; charset=utf-8", headers: Iterable[Header] = ()
    ) -> None:
        await self._start(200, [(b"content-type", kind), *headers])

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self, data: bytes = b"") -> None:
        await self._end(data)

    async def cut(self, *, reset: bool = False, half: bytes = b"") -> None:
        """Close the connection now, after `half`: the first half of an HTTP chunk whose rest is never sent."""
        if self._transport is None:
            raise ConnectionFault("reset" if reset else "cut")
        if half:
            self._transport.write(b"%x\r\n" % (2 * len(half)) + half)
        if reset:
            raw = self._transport.get_extra_info("socket")
            if raw is not None and raw.family in (socket.AF_INET, socket.AF_INET6):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()
        else:
            self._transport.close()
        self.is_ended = True
        await self.wait_closed()

    async def wait_closed(self) -> None:
        """Return once the connection is closed."""
        self.is_ended = True
        self.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def cancel_on_disconnect(self) -> None:
        """From here on, cancel the current task when the client disconnects."""
        if self._watcher is None:
            task = asyncio.current_task()
            if task is not None:
                self._watcher = asyncio.get_running_loop().create_task(self._watch(task))

    def close(self) -> None:
        """Stop watching for a disconnect."""
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.is_ended:
            self.is_disconnected = True
            task.cancel()

    async def _start(self, status: int, headers: list[Header]) -> None:
        self.is_started = True
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *self.extra_headers]})

    async def _end(self, body: bytes) -> None:
        self.is_ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
