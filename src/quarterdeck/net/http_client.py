"""A small HTTP/1.1 client with a connection pool, for calls to engines.

A general-purpose client costs several times as much as the rest of the gateway (docs/adr/0005-own-http-client.md). A
response that is not read to its end is released by closing its connection, which tells an engine to stop.
"""

import asyncio
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable, Sequence

from quarterdeck.net.descriptors import is_own_lack
from quarterdeck.net.http_connection import FOREVER, HttpConnection, Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin
from quarterdeck.net.proxies import Proxies, Proxy, ProxyError
from quarterdeck.net.proxy_tunnel import Tunnel
from quarterdeck.net.write_batching import WriteBatches

KEEP_ALIVE = (("TCP_KEEPIDLE", 30), ("TCP_KEEPINTVL", 10), ("TCP_KEEPCNT", 3))
"""A server that has vanished from the network is noticed after a minute, though nothing is expected from it before its
answer is complete."""


LARGE_BYTES = 64 * 1024
"""A larger body is written apart from its head."""

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]
"""The addresses of a host and port, to be tried in this order. Raises OSError."""


class HttpClient:
    """A pool of connections to any number of origins.

    `max_idle` limits the idle connections of one origin, `max_connections` all of them together. Deadlines are checked
    every `sweep_seconds`. `resolve` replaces the system's resolver, for connections that don't go through a proxy.
    """

    def __init__(
        self,
        *,
        max_idle: int = 256,
        max_connections: int = sys.maxsize,
        sweep_seconds: float = 0.25,
        proxies: Proxies | None = None,
        resolve: Resolve | None = None,
        tls: ssl.SSLContext | None = None,
        keep_alive: Sequence[tuple[str, int]] = KEEP_ALIVE,
    ) -> None:
        """`tls`: for https. None: the system's authorities."""
        self._resolve = resolve
        self._max_idle = max_idle
        self._max_connections = max_connections
        self._connecting = 0
        self._sweep_seconds = sweep_seconds
        self._proxies = proxies or None
        self._writes = WriteBatches()
        self._idle: dict[Origin, list[HttpConnection]] = {}
        self._busy: set[HttpConnection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._tls = tls
        self._keep_alive = keep_alive
        self._is_closed = False

    async def request(
        self, origin: Origin, head: bytes, body: bytes, timeouts: Timeouts, limit: float = FOREVER
    ) -> HttpConnection:
        """Send a request and wait for its response: the head and the first of the body, or all of it where its length
        is stated. `head` ends with the blank line; the response must be complete at `limit`, the loop's time.

        The caller must `release` the connection. Raises UpstreamError. If the server closes a reused connection before
        it responds, the request is sent again on another one.
        """
        rest = b""
        if len(body) > LARGE_BYTES:  # held until the response begins: not a second time
            rest, body = body, b""
        data = head + body
        while True:
            idle = self._idle.get(origin)
            connection = idle.pop() if idle else await self._connect(origin, timeouts.connect, limit)
            self._busy.add(connection)
            try:
                if connection.proxy is not None:
                    data = _for_proxy(head, origin, connection.proxy) + body
                await connection.send(data, timeouts, limit, rest)
            except UpstreamError as error:
                self.release(origin, connection)
                if connection.uses > 1 and not error.answered and not error.timed_out:
                    continue
                raise
            except BaseException:  # cancelled: closing the connection stops the engine
                self.release(origin, connection)
                raise
            return connection

    async def reach(self, origin: Origin, timeout: float) -> None:
        """Check that a connection can be opened; it is closed again. Raises UpstreamError."""
        if not any(connection.is_open for connection in self._idle.get(origin, ())):
            (await self._connect(origin, timeout, FOREVER)).close()

    def release(self, origin: Origin, connection: HttpConnection) -> None:
        """Keep the connection if its response is complete, else close it. Idempotent."""
        if connection not in self._busy:
            return
        self._busy.remove(connection)
        if connection.is_reusable and len(idle := self._idle.setdefault(origin, [])) < self._max_idle:
            idle.append(connection)
        else:
            connection.close()

    async def close(self) -> None:
        """Close all connections. Requests in progress fail."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in [*self._busy, *(c for idle in self._idle.values() for c in idle)]:
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)

    async def _connect(self, origin: Origin, timeout: float, limit: float) -> HttpConnection:
        if self._is_closed:
            raise UpstreamError("client is closed", sent=False)
        loop = asyncio.get_running_loop()
        timeout = max(0.0, min(timeout, limit - loop.time()))
        if len(self._busy) + self._connecting + sum(map(len, self._idle.values())) >= self._max_connections:
            await self._make_room()
        self._connecting += 1
        try:
            async with asyncio.timeout(timeout):
                try:
                    connection = await self._open(origin)
                except OSError as error:
                    if not is_own_lack(error) or not self._close_idle():
                        raise
                    await asyncio.sleep(0)  # they are closed at the end of this turn
                    connection = await self._open(origin)
        except TimeoutError as error:
            at_limit = loop.time() >= limit
            raise UpstreamError("timed out connecting", sent=False, timed_out=True, at_limit=at_limit) from error
        except (OSError, UnicodeError) as error:  # refused, unreachable, unknown host, untrusted certificate
            reason = getattr(error, "strerror", None) or error
            is_local = isinstance(error, OSError) and is_own_lack(error)
            through = " through the proxy" if self._proxy_of(origin) is not None else ""
            raise UpstreamError(f"connection{through} failed: {reason}", sent=False, is_local=is_local) from error
        finally:
            self._connecting -= 1
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._sweep_seconds, self._sweep)
        return connection

    async def _open(self, origin: Origin) -> HttpConnection:
        loop = asyncio.get_running_loop()
        proxy = self._proxy_of(origin)
        if (origin.tls or (proxy is not None and proxy.tls)) and self._tls is None:
            self._tls = ssl.create_default_context()
        if proxy is not None:
            connection = await self._open_through(proxy, origin)
        elif self._resolve is not None:
            connection = await self._open_resolved(origin, await self._resolve(origin.host, origin.port))
        else:
            _, connection = await loop.create_connection(
                lambda: HttpConnection(loop, self._writes),
                origin.host,
                origin.port,
                ssl=self._tls if origin.tls else None,
            )
        _probe_silence(connection, self._keep_alive)
        return connection

    async def _open_resolved(self, origin: Origin, addresses: Sequence[str]) -> HttpConnection:
        """A connection to the first of these addresses that accepts it. Raises OSError."""
        loop = asyncio.get_running_loop()
        failure: OSError = OSError("the host has no address")
        for address in addresses:
            try:
                _, connection = await loop.create_connection(
                    lambda: HttpConnection(loop, self._writes),
                    address,
                    origin.port,
                    ssl=self._tls if origin.tls else None,
                    server_hostname=origin.host if origin.tls else None,
                )
                return connection
            except OSError as error:
                failure = error
        raise failure

    async def _make_room(self) -> None:
        """At the bound: close the idle connections of all origins. Raises UpstreamError where none is idle."""
        if not self._close_idle():
            raise UpstreamError(f"all {self._max_connections} connections are in use", sent=False, is_local=True)
        await asyncio.sleep(0)

    def _close_idle(self) -> bool:
        """Close every idle connection. Returns whether there was one."""
        idle = [connection for each in self._idle.values() for connection in each]
        self._idle.clear()
        for connection in idle:
            connection.close()
        return bool(idle)

    def _proxy_of(self, origin: Origin) -> Proxy | None:
        if self._proxies is None:
            return None
        try:
            return self._proxies.of(origin)
        except ProxyError as error:
            raise UpstreamError(str(error), sent=False) from error

    async def _open_through(self, proxy: Proxy, origin: Origin) -> HttpConnection:
        """A connection to the proxy that requests go over in absolute form, or a tunnel through it for TLS."""
        loop = asyncio.get_running_loop()
        connection = HttpConnection(loop, self._writes)
        tls = self._tls if proxy.tls else None
        if not origin.tls:
            await loop.create_connection(lambda: connection, proxy.host, proxy.port, ssl=tls)
            connection.proxy = proxy
            return connection
        transport, tunnel = await loop.create_connection(Tunnel, proxy.host, proxy.port, ssl=tls)
        try:
            await tunnel.open(origin, proxy)
            secured = await loop.start_tls(transport, connection, self._tls, server_hostname=origin.host)  # type: ignore[arg-type]  # made above
        except BaseException:
            transport.abort()
            raise
        if secured is None:  # closed meanwhile
            raise UpstreamError("the proxy closed the tunnel", sent=False)
        connection.connection_made(secured)
        return connection

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [c for c in self._busy if c.is_late(now)]:
            connection.expire()
        for origin, idle in tuple(self._idle.items()):  # closed by the server, or of a replica that is gone
            self._idle[origin] = [connection for connection in idle if connection.is_open]
            if not self._idle[origin]:
                del self._idle[origin]
        self._sweeper = loop.call_later(self._sweep_seconds, self._sweep) if self._busy or self._idle else None


def _for_proxy(head: bytes, origin: Origin, proxy: Proxy) -> bytes:
    """A request in the absolute form that a proxy expects."""
    method, _, rest = head.partition(b" ")
    line, _, headers = rest.partition(b"\r\n")
    return b"%b http://%b%b\r\n%b%b" % (method, origin.authority.encode(), line, proxy.header, headers)


def _probe_silence(connection: HttpConnection, settings: Sequence[tuple[str, int]]) -> None:
    """Let the operating system probe the server while it is silent."""
    if (sock := connection.socket) is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in settings:
            if hasattr(socket, name):  # not on every system
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
