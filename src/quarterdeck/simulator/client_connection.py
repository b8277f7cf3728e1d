"""One HTTP exchange, over ASGI: body in, answer or stream out, and the ways in which a connection goes wrong."""

import asyncio
import socket
import struct
from collections.abc import Iterable
from typing import Any, cast

from quarterdeck.net.asgi import Header, Receive, Scope, Send
from quarterdeck.simulator.errors import Refusal, unsupported_media_type

TRANSPORT = "quarterdeck.transport"
"""The ASGI extension under which `server.py` gives the connection's transport."""

JSON = b"application/json"


class ClientGone(Exception):
    """The client closed the connection before its answer was whole."""


class ConnectionFault(ConnectionError):
    """In process, without a connection to cut, a cut is this."""


class Exchange:
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
        self.extra: list[Header] = []
        self.started = False
        self.ended = False
        self.gone = False

    def header(self, name: bytes) -> str | None:
        for key, value in self._headers:
            if key == name:
                return value.decode("latin-1")
        return None

    async def body(self, limit: int) -> bytes:
        """The whole body, again if asked again. Raises Refusal above the limit, ClientGone where it ends early."""
        if self._body is not None:
            return self._body
        kind = (self.header(b"content-type") or "").partition(";")[0].strip().lower()
        if kind != "application/json":
            raise unsupported_media_type()
        parts: list[bytes] = []
        length = 0
        while True:
            message = await self._receive()
            if message["type"] != "http.request":
                raise ClientGone
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > limit:
                raise Refusal("Request body too large", status=413, type="Request Entity Too Large")
            if not message.get("more_body"):
                self._body = parts[0] if len(parts) == 1 else b"".join(parts)
                return self._body

    async def answer(
        self, body: bytes, *, status: int = 200, headers: Iterable[Header] = (), kind: bytes = JSON
    ) -> None:
        length = (b"content-length", str(len(body)).encode())
        await self._start(status, [(b"content-type", kind), length, *headers])
        await self._end(body)

    async def answer_short(self, body: bytes, missing: int, kind: bytes = JSON) -> None:
        """A content-length that says more than comes; then the connection closes."""
        length = (b"content-length", str(len(body) + missing).encode())
        await self._start(200, [(b"content-type", kind), length])
        await self._send({"type": "http.response.body", "body": body, "more_body": True})
        await self.cut()

    async def answer_half(self, body: bytes, *, reset: bool, kind: bytes = JSON) -> None:
        """A right content-length, half of the body, and the connection closes."""
        await self._start(200, [(b"content-type", kind), (b"content-length", str(len(body)).encode())])
        await self._send({"type": "http.response.body", "body": body[: len(body) // 2], "more_body": True})
        await self.cut(reset=reset)

    async def open_stream(self) -> None:
        await self._start(200, [(b"content-type", b"text/event-stream; charset=utf-8")])

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end_stream(self, data: bytes = b"") -> None:
        await self._end(data)

    async def cut(self, *, reset: bool = False, half: bytes = b"") -> None:
        """Close the connection where it is; `half` is the beginning of a chunk whose rest never comes."""
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
        self.ended = True
        await self.lost()

    async def lost(self) -> None:
        """Return once the connection is closed."""
        self.ended = True
        self.close()
        while (await self._receive())["type"] != "http.disconnect":
            pass

    def watch(self) -> None:
        """From here on, a client that goes away cancels this task."""
        if self._watcher is None:
            task = asyncio.current_task()
            if task is not None:
                self._watcher = asyncio.get_running_loop().create_task(self._watch(task))

    def close(self) -> None:
        if self._watcher is not None:
            self._watcher.cancel()
            self._watcher = None

    async def _watch(self, task: asyncio.Task[Any]) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.ended:
            self.gone = True
            task.cancel()

    async def _start(self, status: int, headers: list[Header]) -> None:
        self.started = True
        await self._send({"type": "http.response.start", "status": status, "headers": [*headers, *self.extra]})

    async def _end(self, body: bytes) -> None:
        self.ended = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})
