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
from typing import Any, NamedTuple, cast
from urllib.parse import urlsplit

import httptools

from quarterdeck.net.write_batching import BatchedTransport, WriteBatches

HIGH_WATER = 256 * 1024
"""Bytes held of a response whose reader is slow, framing included; past it the engine's socket is left unread."""
MAX_HEAD_BYTES = HIGH_WATER
"""Bytes of status line and headers, or of trailers; a server that never ends them is broken."""
FOREVER = float("inf")


class UpstreamError(Exception):
    """The exchange failed.

    `sent`: the other side may have seen the request. `answered`: it had begun to answer. `status`: with what, if that
    is known. `over`: the time of the whole exchange was up, whoever was slow.
    """

    def __init__(
        self,
        message: str,
        *,
        sent: bool,
        answered: bool = False,
        status: int = 0,
        timed_out: bool = False,
        over: bool = False,
    ) -> None:
        super().__init__(message)
        self.sent, self.answered, self.status, self.timed_out, self.over = sent, answered, status, timed_out, over


class Origin(NamedTuple):  # a key of each look-up in the pool, and a tuple's hash is computed in C
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
    """One keep-alive connection, one exchange at a time.

    Its parser lives as long as it does, and puts headers and the body's chunks away without a call of ours: an engine
    may send each token in a chunk of its own.
    """

    __slots__ = (
        "_awaited",
        "_body_until_close",
        "_chunks",
        "_failure",
        "_headers",
        "_keep_alive",
        "_limit",
        "_loop",
        "_parser",
        "_paused",
        "_size",
        "_states_length",
        "_transport",
        "_waiter",
        "_writes",
        "deadline",
        "done",
        "has_heard",
        "header",
        "idle_timeout",
        "is_reusable",
        "listener",
        "on_body",
        "on_header",
        "on_message_begin",
        "status",
        "uses",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, writes: WriteBatches) -> None:
        self._loop = loop
        self._writes = writes
        self._transport: BatchedTransport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._chunks: list[bytes] = []
        self._headers: dict[bytes, bytes] = {}
        self._awaited: list[None] = []  # one for each answer that may yet begin
        self.uses = 0
        self.on_body = self._chunks.append
        self.on_header = self._headers.setdefault  # a trailer takes no header's place
        self.on_message_begin = self._awaited.pop  # where none is awaited that raises, and parsing ends
        self.header = self._headers.get
        """The first value of a header, its name in lower case; None where it is not there."""
        self._size = 0
        self._failure: UpstreamError | None = None
        self._paused = self._keep_alive = self._states_length = self._body_until_close = False
        self.status = 0
        self.done = True
        self.is_reusable = False
        """Whether its exchange is complete and another may follow, as far as is known here."""
        self.deadline: float | None = None
        self.has_heard = False
        """Something has come since somebody looked at the time."""
        self.listener: Callable[[], None] | None = None
        """Is told at once of whatever comes, in place of whoever waits in `read`. It must not raise."""
        self._parser: Any = httptools.HttpResponseParser(self)

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._writes.wrap(cast(asyncio.Transport, transport))  # uvloop's is no subclass of it

    def data_received(self, data: bytes) -> None:
        if self.done:  # bytes nobody asked for: the connection is out of step
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break_off(f"the engine's answer is not HTTP: {error}")
        else:
            if not self.done:
                self._size += len(data)
                self.has_heard = True
                if self._size > HIGH_WATER:
                    self._hold_back()
                elif self._states_length or not self._chunks:  # not yet what anybody waits for
                    return
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = self._parser = None
        self.is_reusable = False
        if self.done:
            return
        if self._body_until_close and exc is None:
            self.done = True
        else:
            self._fail("the engine closed the connection", answered=self.status != 0)
        self._wake()

    # What httptools calls

    def on_headers_complete(self) -> None:
        parser = self._parser
        self.status = parser.get_status_code()
        self._keep_alive = parser.should_keep_alive()
        if self.status != 200 or not self._keep_alive or self.header(b"content-type") is None:
            self._lower_names()  # nearly all servers write them so; else nothing hangs on the few that are not
        self._states_length = self.header(b"content-length") is not None
        if not self._keep_alive and not self._states_length:
            self._body_until_close = b"chunked" not in self.header(b"transfer-encoding", b"")

    def on_message_complete(self) -> None:
        if 100 <= self.status < 200:  # an interim answer; the real one follows
            self._headers.clear()
            self.status = 0
            self._awaited.append(None)
            return
        self.done = True
        self.is_reusable = self._keep_alive and not self._paused
        self.deadline = None

    # What the client calls

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(self, request: bytes, timeouts: Timeouts, limit: float = FOREVER) -> "asyncio.Future[None]":
        """Begin an exchange, to be over when the loop's time is `limit`.

        What it returns is done when the head is there and with it the first of the body, or all of it where its length
        is stated; it raises UpstreamError.
        """
        self._chunks.clear()  # the rest is as it was: only after a sound exchange comes another
        self._headers.clear()
        self._size = self.status = 0
        self.done = self.is_reusable = False
        self.uses += 1
        transport = self._transport
        if transport is None or transport.is_closing():
            raise UpstreamError("the connection is closed", sent=False)
        loop = self._loop
        self.idle_timeout = timeouts.idle
        self._limit = limit
        self.deadline = min(loop.time() + timeouts.first_byte, limit)
        self.has_heard = False
        self._awaited.append(None)
        transport.write(request)
        self._waiter = waiter = loop.create_future()
        return waiter

    async def read(self) -> bytes:
        """All that has arrived since the last call; b"" at the end. Raises UpstreamError, after what came before it."""
        while (piece := self.take()) is None:
            self._waiter = self._loop.create_future()
            await self._waiter
        return piece

    def take(self) -> bytes | None:
        """The same without waiting; None: nothing has come yet."""
        chunks = self._chunks
        if not chunks:
            if self.done:
                return b""
            if self._failure is not None:
                raise self._failure
            return None
        data = b"".join(chunks)  # of one it is that one
        chunks.clear()
        self._size = 0
        if self._paused:
            self._resume()
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
                why = f"the engine's answer exceeds {limit} bytes"
                raise UpstreamError(why, sent=True, answered=True, status=self.status)
        return b"".join(pieces)

    def is_late(self, now: float) -> bool:
        """Whether its time is up at `now`, the loop's. Asked now and then: a piece only says that it has come."""
        if self.deadline is None:
            return False
        if self.has_heard:
            self.has_heard = False
            self.deadline = min(now + self.idle_timeout, self._limit)
        return self.deadline < now

    def expire(self) -> None:
        """The deadline has passed."""
        what = "went silent" if self.status else "did not begin to answer in time"
        over = self._loop.time() >= self._limit
        self._fail(f"the engine {what}", answered=self.status != 0, timed_out=True, over=over)
        self.close()
        self._wake()

    def close(self) -> None:
        """Hang up now. An engine that is generating stops."""
        self.deadline = None
        self.is_reusable = self._body_until_close = False  # an end that we make is not the body's
        if self._transport is not None:
            self._transport.abort()

    def _hold_back(self) -> None:
        if not self._chunks:
            self._break_off(f"the engine's headers exceed {MAX_HEAD_BYTES} bytes")
        elif not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
            self.deadline = None  # the reader is slow, not the engine

    def _resume(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._paused = False
        if not self.done:  # what came last was heard now, as the engine could not say more
            self.deadline, self.has_heard = self._limit, True
        self._transport.resume_reading()

    def _lower_names(self) -> None:
        headers = list(self._headers.items())
        self._headers.clear()
        for name, value in headers:
            self._headers.setdefault(name.lower(), value)

    def _break_off(self, why: str) -> None:
        self._fail(why, answered=True)
        self.close()

    def _fail(self, why: str, *, answered: bool, timed_out: bool = False, over: bool = False) -> None:
        if self._failure is None:
            self._failure = UpstreamError(
                why, sent=True, answered=answered, status=self.status, timed_out=timed_out, over=over
            )

    def _wake(self) -> None:
        if self.listener is not None:
            self.listener()
        elif (waiter := self._waiter) is not None and not waiter.done():
            if self._failure is None or self._chunks or self.done:
                waiter.set_result(None)
            else:
                waiter.set_exception(self._failure)


class HttpClient:
    """Connections to any number of origins, kept and reused.

    `max_idle` bounds the idle connections of one origin; how many are in use is bounded by admission.
    """

    def __init__(self, *, max_idle: int = 256, sweep_seconds: float = 0.25) -> None:
        self._max_idle = max_idle
        self._sweep_seconds = sweep_seconds
        self._writes = WriteBatches()
        self._idle: dict[Origin, list[Connection]] = {}
        self._busy: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._tls: ssl.SSLContext | None = None
        self._is_closed = False

    async def request(
        self, origin: Origin, head: bytes, body: bytes, timeouts: Timeouts, limit: float = FOREVER
    ) -> Connection:
        """Send and wait until an answer has begun: for status and headers and the first of the body, or all of it where
        its length is stated. `head` ends with the blank line; `limit` is the loop's time at which the exchange must be
        over.

        Give the connection back with `release`, whatever happened. Raises UpstreamError. A kept connection that the
        engine closed just then is replaced once, without the caller's notice: the engine had not begun to answer.
        """
        data = head + body
        while True:
            idle = self._idle.get(origin)
            connection = idle.pop() if idle else await self._connect(origin, timeouts.connect, limit)
            self._busy.add(connection)
            try:
                await connection.send(data, timeouts, limit)
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
        self._busy.remove(connection)
        if connection.is_reusable and len(idle := self._idle.setdefault(origin, [])) < self._max_idle:
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
                    lambda: Connection(loop, self._writes),
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
        if self._sweeper is None:
            self._sweeper = loop.call_later(self._sweep_seconds, self._sweep)
        return connection

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for connection in [c for c in self._busy if c.is_late(now)]:
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
