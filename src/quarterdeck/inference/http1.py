"""A small HTTP/1.1 client: what the pipeline needs to talk to engines, and no more.

httptools parses, asyncio carries, a pool keeps connections. A general client costs several times the rest of the
gateway (docs/adr/0005-own-http-client.md). A response is read piece by piece as it arrives; whoever does not read it to
its end closes it, and the engine sees the connection go.

Time-outs cost no timer a token: each connection carries a deadline and one sweep looks at all of them.
"""

import asyncio
import ssl
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

import httptools

Headers = list[tuple[bytes, bytes]]

HIGH_WATER = 256 * 1024
"""Bytes held of a response whose reader is slow; past it the engine's socket is left unread."""
MAX_HEAD_BYTES = 256 * 1024
"""Bytes of status line and headers; a server that never ends them is broken."""


FOREVER = float("inf")


class UpstreamError(Exception):
    """The exchange failed.

    `sent`: the other side may have seen the request. `answered`: it had begun to answer. `over`: the time of the whole
    exchange was up, whoever was slow.
    """

    def __init__(
        self, message: str, *, sent: bool, answered: bool = False, timed_out: bool = False, over: bool = False
    ) -> None:
        super().__init__(message)
        self.sent, self.answered, self.timed_out, self.over = sent, answered, timed_out, over


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a server listens: scheme, host and port of a URL, and the path its routes begin with."""

    host: str
    port: int
    tls: bool
    prefix: str = ""

    @classmethod
    def parse(cls, url: str) -> "Origin":
        parts = urlsplit(url)
        tls = parts.scheme == "https"
        return cls(parts.hostname or "", parts.port or (443 if tls else 80), tls, parts.path.rstrip("/"))

    @property
    def authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == (443 if self.tls else 80) else f"{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds: to connect, to the answer's first byte, between two pieces."""

    connect: float
    first_byte: float
    idle: float


class Connection(asyncio.Protocol):
    """One keep-alive connection, one exchange at a time."""

    __slots__ = (
        "_body_until_close",
        "_chunks",
        "_failure",
        "_head_size",
        "_keep_alive",
        "_limit",
        "_loop",
        "_parser",
        "_paused",
        "_size",
        "_transport",
        "_waiter",
        "deadline",
        "done",
        "headers",
        "idle_timeout",
        "listener",
        "status",
        "uses",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser: Any = None
        self._waiter: asyncio.Future[None] | None = None
        self._failure: UpstreamError | None = None
        self.uses = 0
        self._reset()

    def _reset(self) -> None:
        self._chunks: list[bytes] = []
        self._size = 0
        self._head_size = 0
        self._paused = False
        self._keep_alive = True
        self._body_until_close = False
        self.headers: Headers = []
        self.status = 0
        self.done = False
        self.deadline: float | None = None
        self.idle_timeout = 0.0
        self._limit = FOREVER
        self.listener: Callable[[], None] | None = None
        """Is told at once of whatever comes, in place of whoever waits in `read`. It must not raise."""

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if self._parser is None or self.done:  # bytes nobody asked for: the connection is out of step
            self.close()
            return
        if self.deadline is not None:
            self.deadline = min(self._loop.time() + self.idle_timeout, self._limit)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break_off(f"the engine's answer is not HTTP: {error}")
        if self.status == 0:
            self._head_size += len(data)
            if self._head_size > MAX_HEAD_BYTES:
                self._break_off(f"the engine's headers exceed {MAX_HEAD_BYTES} bytes")
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._parser is None or self.done:
            return
        if self._body_until_close and exc is None:
            self.done = True
        else:
            self._fail(UpstreamError("the engine closed the connection", sent=True, answered=self.status != 0))
        self._wake()

    # What httptools calls

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status == 0:  # else it is a trailer, which says nothing to us
            self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        if self.done:  # a second answer right behind the first: the connection is out of step
            self._keep_alive = False
            return
        parser = self._parser
        self.status = parser.get_status_code()
        self._keep_alive = parser.should_keep_alive()
        if not self._keep_alive and self.header(b"content-length") is None:
            self._body_until_close = b"chunked" not in (self.header(b"transfer-encoding") or b"")

    def on_body(self, body: bytes) -> None:
        if self.done:
            return
        self._chunks.append(body)
        self._size += len(body)
        if self._size > HIGH_WATER and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
            self.deadline = None  # the reader is slow, not the engine

    def on_message_complete(self) -> None:
        if 100 <= self.status < 200:  # an interim answer; the real one follows
            self.headers, self.status = [], 0
            return
        self.done = True
        self.deadline = None

    # What the client calls

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    @property
    def is_reusable(self) -> bool:
        return self.done and self._keep_alive and self.is_open and not self._paused

    def header(self, name: bytes) -> bytes | None:
        """The first value of a header, its name in lower case."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def send(self, request: bytes, timeouts: Timeouts, limit: float = FOREVER) -> None:
        """Begin an exchange, to be over when the loop's time is `limit`."""
        self._reset()
        self._failure = None
        self._parser = httptools.HttpResponseParser(self)
        self.uses += 1
        self.idle_timeout = timeouts.idle
        self._limit = limit
        self.deadline = min(self._loop.time() + timeouts.first_byte, limit)
        if self._transport is None or self._transport.is_closing():
            raise UpstreamError("the connection is closed", sent=False)
        self._transport.write(request)

    async def answer(self) -> None:
        """Wait for status and headers. Raises UpstreamError."""
        while self.status == 0 and not self.done:
            await self._more()

    async def read(self) -> bytes:
        """All that has arrived since the last call; b"" at the end. Raises UpstreamError, after what came before it."""
        while (piece := self.take()) is None:
            await self._more()
        return piece

    def take(self) -> bytes | None:
        """The same without waiting; None: nothing has come yet."""
        chunks = self._chunks
        if not chunks:
            if self.done:
                return b""
            self._raise_failure()
            return None
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self._chunks = []
        self._size = 0
        if self._paused and self._transport is not None and not self._transport.is_closing():
            self._paused = False
            if not self.done:
                self.deadline = min(self._loop.time() + self.idle_timeout, self._limit)
            self._transport.resume_reading()
        return data

    async def read_all(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamError, also past `limit` bytes."""
        whole = await self.read()
        if self.done and not self._chunks:
            return whole
        pieces, size = [whole], len(whole)
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                raise UpstreamError(f"the engine's answer exceeds {limit} bytes", sent=True, answered=True)
        return b"".join(pieces)

    def expire(self) -> None:
        """The deadline has passed."""
        what = "went silent" if self.status else "did not begin to answer in time"
        over = self._loop.time() >= self._limit
        self._fail(UpstreamError(f"the engine {what}", sent=True, answered=self.status != 0, timed_out=True, over=over))
        self.close()
        self._wake()

    def close(self) -> None:
        """Hang up now. An engine that is generating stops."""
        self.deadline = None
        if self._transport is not None:
            self._transport.abort()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._transport is None:
            raise UpstreamError("the engine closed the connection", sent=True, answered=self.status != 0)

    async def _more(self) -> None:
        self._raise_failure()
        self._waiter = self._loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _break_off(self, why: str) -> None:
        self._fail(UpstreamError(why, sent=True, answered=True))
        self.close()

    def _fail(self, failure: UpstreamError) -> None:
        if self._failure is None:
            self._failure = failure

    def _wake(self) -> None:
        if self.listener is not None:
            self.listener()
        elif self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class HttpClient:
    """Connections to any number of origins, kept and reused.

    `max_idle` bounds the idle connections of one origin; how many are in use is bounded by admission.
    """

    def __init__(self, *, max_idle: int = 256, sweep_seconds: float = 0.25) -> None:
        self._max_idle = max_idle
        self._sweep_seconds = sweep_seconds
        self._idle: dict[Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None
        self._is_closed = False

    async def request(
        self, origin: Origin, head: bytes, body: bytes, timeouts: Timeouts, limit: float = FOREVER
    ) -> Connection:
        """Send and wait for the answer's status and headers. `head` ends with the blank line; `limit` is the loop's
        time at which the exchange must be over.

        Give the connection back with `release`, whatever happened. Raises UpstreamError. A kept connection that the
        engine closed just then is replaced once, without the caller's notice: the engine had not begun to answer.
        """
        data = head + body
        while True:
            connection = self._kept(origin) or await self._connect(origin, timeouts.connect, limit)
            try:
                connection.send(data, timeouts, limit)
                await connection.answer()
            except UpstreamError as error:
                self.release(origin, connection)
                if connection.uses > 1 and not error.answered and not error.timed_out:
                    continue
                raise
            except BaseException:  # cancelled: the engine must see the connection go
                self.release(origin, connection)
                raise
            return connection

    def release(self, origin: Origin, connection: Connection) -> None:
        """Keep the connection if its exchange is complete, else close it. Repeatable."""
        if connection not in self._busy:
            return
        self._busy.discard(connection)
        connection.deadline = None
        idle = self._idle.setdefault(origin, [])
        if connection.is_reusable and len(idle) < self._max_idle:
            idle.append(connection)
        else:
            connection.close()

    async def close(self) -> None:
        """Close all connections, also those in use. Requests under way fail."""
        self._is_closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in [*self._busy, *(c for idle in self._idle.values() for c in idle)]:
            connection.close()
        self._idle.clear()
        await asyncio.sleep(0)

    def _kept(self, origin: Origin) -> Connection | None:
        """A connection that waits for its next exchange, if there is one."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.is_open:
                self._busy.add(connection)
                return connection
        return None

    async def _connect(self, origin: Origin, timeout: float, limit: float) -> Connection:
        if self._is_closed:
            raise UpstreamError("the client is closed", sent=False)
        loop = asyncio.get_running_loop()
        timeout = max(0.0, min(timeout, limit - loop.time()))
        if origin.tls and self._tls is None:
            self._tls = ssl.create_default_context()
        try:
            async with asyncio.timeout(timeout):
                _, connection = await loop.create_connection(
                    lambda: Connection(loop),
                    origin.host,
                    origin.port,
                    ssl=self._tls if origin.tls else None,
                )
        except TimeoutError as error:
            over = loop.time() >= limit
            raise UpstreamError(
                "the engine did not accept the connection in time", sent=False, timed_out=True, over=over
            ) from error
        except (OSError, UnicodeError) as error:  # refused, unreachable, no such name, a certificate not to be trusted
            reason = getattr(error, "strerror", None) or error
            raise UpstreamError(f"the engine can't be reached: {reason}", sent=False) from error
        self._busy.add(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._sweep_seconds, self._sweep)
        return connection

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [c for c in self._busy if c.deadline is not None and c.deadline < now]:
            connection.expire()
        for origin, idle in tuple(self._idle.items()):  # what the other side has closed, or a replica that is no more
            self._idle[origin] = [connection for connection in idle if connection.is_open]
            if not self._idle[origin]:
                del self._idle[origin]
        self._sweeper = loop.call_later(self._sweep_seconds, self._sweep) if self._busy or self._idle else None


def request_head(method: str, origin: Origin, path: str, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The request line and the headers that stay the same; `content-length` and the blank line are the caller's."""
    lines = b"".join(b"%b: %b\r\n" % header for header in headers)
    return f"{method} {origin.prefix}{path} HTTP/1.1\r\nhost: {origin.authority}\r\n".encode() + lines
