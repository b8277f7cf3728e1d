"""Opens a tunnel through a forward proxy (HTTP's CONNECT), before TLS begins inside it."""

import asyncio
import re
from typing import cast

from quarterdeck.net.http_connection import UpstreamError
from quarterdeck.net.http_origin import Origin
from quarterdeck.net.proxies import Proxy

MAX_HEAD_BYTES = 64 * 1024
_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3})[ \r]")


class Tunnel(asyncio.Protocol):
    """The protocol of a connection to a proxy until the tunnel is open; then TLS takes its transport over."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._head = b""
        self._opened: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._opened.done():
            return
        self._head += data
        end = self._head.find(b"\r\n\r\n")
        if end >= 0:
            self._opened.set_result(self._head)
        elif len(self._head) > MAX_HEAD_BYTES:
            self._opened.set_result(b"")

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._opened.done():
            self._opened.set_result(b"")

    async def open(self, origin: Origin, proxy: Proxy) -> None:
        """Ask for the tunnel. Raises UpstreamError if the proxy refuses it."""
        if self._transport is None:
            raise UpstreamError("the proxy closed the connection", sent=False)
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        target = f"{host}:{origin.port}".encode()
        self._transport.write(b"CONNECT %b HTTP/1.1\r\nhost: %b\r\n%b\r\n" % (target, target, proxy.header))
        head = await self._opened
        found = _STATUS.match(head)
        if found is None or (status := int(found[1])) >= 300:
            why = "closed the connection" if found is None else f"refused the tunnel with status {status}"
            raise UpstreamError(f"the proxy {why}", sent=False)
