"""One HTTP/1.1 connection of the client: httptools parses, asyncio reads and writes.

A response is read in pieces as it arrives. Timeouts need no timer per token: a connection has a deadline, and the
client's sweep checks all connections.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import httptools

from quarterdeck.net.proxies import Proxy
from quarterdeck.net.write_batching import BatchedTransport, WriteBatches

HIGH_WATER = 256 * 1024
"""Bytes of a response held for a slow reader, framing included. Beyond it, reading from the socket is paused."""
MAX_HEAD_BYTES = HIGH_WATER
"""Bytes of status line and headers, or of trailers."""
FOREVER = float("inf")
"""A limit that is never reached."""


class UpstreamError(Exception):
    """A request failed.

    `sent`: the server may have seen the request. `answered`: its response had begun. `status`: the response's status,
    0 if unknown. `timed_out`: a timeout expired. `at_limit`: the limit of the whole request. `is_local`: for a lack of
    this process (descriptors, ports, memory); it says nothing of the server.
    """

    def __init__(
        self,
        message: str,
        *,
        sent: bool,
        answered: bool = False,
        status: int = 0,
        timed_out: bool = False,
        at_limit: bool = False,
        is_local: bool = False,
    ) -> None:
        super().__init__(message)
        self.sent = sent
        self.answered = answered
        self.status = status
        self.timed_out = timed_out
        self.at_limit = at_limit
        self.is_local = is_local


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds to connect, until the first byte of the response, and between two pieces of it."""

    connect: float
    first_byte: float
    idle: float
    whole: "Timeouts | None" = None
    """For responses that are sent only when they are complete. None: these."""


class HttpConnection(asyncio.Protocol):
    """A keep-alive connection with one request at a time.

    The parser stores headers and body chunks by calling methods of built-in containers, without a Python function of
    ours: an engine may send each token in its own chunk.
    """

    __slots__ = (
        "_body_until_close",
        "_chunks",
        "_expected",
        "_failure",
        "_headers",
        "_is_paused",
        "_keep_alive",
        "_limit",
        "_loop",
        "_parser",
        "_size",
        "_states_length",
        "_transport",
        "_waiter",
        "_writes",
        "deadline",
        "done",
        "has_received",
        "header",
        "idle_timeout",
        "is_reusable",
        "listener",
        "on_body",
        "on_header",
        "on_message_begin",
        "proxy",
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
        self._expected: list[None] = []  # one item for each response that may begin
        self.uses = 0
        self.on_body = self._chunks.append
        self.on_header = self._headers.setdefault  # a trailer doesn't replace a header
        self.on_message_begin = self._expected.pop  # raises if none is expected, which ends parsing
        self.header = self._headers.get
        """The first value of a header by its name in lower case, or None."""
        self._size = 0
        self._failure: UpstreamError | None = None
        self._is_paused = self._keep_alive = self._states_length = self._body_until_close = False
        self.status = 0
        self.done = True
        self.is_reusable = False
        """Whether the response is complete and another request may follow."""
        self.deadline: float | None = None
        """The loop's time at which the connection times out. None: nothing is awaited from the server."""
        self.has_received = False
        """Whether data has arrived since `is_late` was called last."""
        self.proxy: Proxy | None = None
        """The proxy that requests are sent to in absolute form."""
        self.listener: Callable[[], None] | None = None
        """Called as soon as anything arrives, instead of waking `read`. It must not raise."""
        self._parser: Any = httptools.HttpResponseParser(self)

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = self._writes.wrap(cast(asyncio.Transport, transport))  # uvloop's is not a subclass

    def data_received(self, data: bytes) -> None:
        if self.done:  # unsolicited bytes: the connection can't be reused
            self.close()
            return
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._abort(f"invalid HTTP response: {error}")
        else:
            if not self.done:
                self._size += len(data)
                self.has_received = True
                if self._size > HIGH_WATER:
                    self._pause()
                elif self._states_length or not self._chunks:  # nothing that `read` returns yet
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
            self._fail("the server closed the connection", answered=self.status != 0)
        self._wake()

    # httptools' callbacks

    def on_headers_complete(self) -> None:
        parser = self._parser
        self.status = parser.get_status_code()
        self._keep_alive = parser.should_keep_alive()
        if self.status != 200 or not self._keep_alive or self.header(b"content-type") is None:
            self._lower_names()  # servers mostly send lower case; for these responses it matters
        self._states_length = self.header(b"content-length") is not None
        if not self._keep_alive and not self._states_length:
            self._body_until_close = b"chunked" not in self.header(b"transfer-encoding", b"")

    def on_message_complete(self) -> None:
        if 100 <= self.status < 200:  # an interim response; the final one follows
            self._headers.clear()
            self.status = 0
            self._expected.append(None)
            return
        self.done = True
        self.is_reusable = self._keep_alive and not self._is_paused
        self.deadline = None

    # For the client

    @property
    def socket(self) -> Any:
        """The socket, or None."""
        return None if self._transport is None else self._transport.get_extra_info("socket")

    @property
    def headers(self) -> Iterable[tuple[bytes, bytes]]:
        """The response's headers, each name in lower case and once."""
        self._lower_names()
        return self._headers.items()

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    def send(
        self, request: bytes, timeouts: Timeouts, limit: float = FOREVER, rest: bytes = b""
    ) -> "asyncio.Future[None]":
        """Send a request, and the `rest` of it; its response must be complete at `limit`, the loop's time.

        The future is done when the head has arrived and the first of the body, or all of it where its length is stated.
        Raises UpstreamError, as does the future.
        """
        self._chunks.clear()  # all other state is as after a complete response
        self._headers.clear()
        self._size = self.status = 0
        self.done = self.is_reusable = False
        self.uses += 1
        transport = self._transport
        if transport is None or transport.is_closing():
            raise UpstreamError("connection is closed", sent=False)
        loop = self._loop
        self.idle_timeout = timeouts.idle
        self._limit = limit
        deadline = loop.time() + timeouts.first_byte
        self.deadline = deadline if deadline < limit else limit
        self.has_received = False
        self._expected.append(None)
        transport.write(request)
        if rest:
            transport.write(rest)
        self._waiter = waiter = loop.create_future()
        return waiter

    async def read(self) -> bytes:
        """Wait for data and return all that has arrived since the last call; b"" at the end. Raises UpstreamError, once
        what arrived before the failure has been read."""
        while (piece := self.take()) is None:
            self._waiter = self._loop.create_future()
            await self._waiter
        return piece

    def take(self) -> bytes | None:
        """`read` without waiting. None: nothing has arrived."""
        chunks = self._chunks
        if not chunks:
            if self.done:
                return b""
            if self._failure is not None:
                raise self._failure
            return None
        data = b"".join(chunks)  # joining a single chunk returns it without a copy
        chunks.clear()
        self._size = 0
        if self._is_paused:
            self._resume()
        return data

    async def read_all(self, limit: int) -> bytes:
        """The rest of the body. Raises UpstreamError, also if it exceeds `limit` bytes."""
        whole = await self.read()
        if self.done and not self._chunks:
            return whole
        pieces, size = [whole], len(whole)
        while piece := await self.read():
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                why = f"response exceeds {limit} bytes"
                raise UpstreamError(why, sent=True, answered=True, status=self.status)
        return b"".join(pieces)

    def is_late(self, now: float) -> bool:
        """Whether the deadline has passed at `now`, the loop's time. Data that arrived since the last call extends it,
        here and not as it arrives: that would read the clock for each piece."""
        if self.deadline is None:
            return False
        if self.has_received:
            self.has_received = False
            self.deadline = min(now + self.idle_timeout, self._limit)
        return self.deadline < now

    def expire(self) -> None:
        """Fail the request: its deadline has passed."""
        what = "reading the response" if self.status else "waiting for the response"
        at_limit = self._loop.time() >= self._limit
        self._fail(f"timed out {what}", answered=self.status != 0, timed_out=True, at_limit=at_limit)
        self.close()
        self._wake()

    def close(self) -> None:
        """Close now. An engine that is generating stops."""
        self.deadline = None
        self.is_reusable = self._body_until_close = False  # closing it here is not the end of the body
        if self._transport is not None:
            self._transport.abort()

    def _pause(self) -> None:
        if not self._chunks:
            self._abort(f"response headers exceed {MAX_HEAD_BYTES} bytes")
        elif not self._is_paused and self._transport is not None:
            self._is_paused = True
            self._transport.pause_reading()
            self.deadline = None  # the reader is slow, not the server

    def _resume(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._is_paused = False
        if not self.done:  # the server could not send: its idle timeout starts now
            self.deadline, self.has_received = self._limit, True
        self._transport.resume_reading()

    def _lower_names(self) -> None:
        headers = list(self._headers.items())
        self._headers.clear()
        for name, value in headers:
            self._headers.setdefault(name.lower(), value)

    def _abort(self, why: str) -> None:
        self._fail(why, answered=True)
        self.close()

    def _fail(self, why: str, *, answered: bool, timed_out: bool = False, at_limit: bool = False) -> None:
        if self._failure is None:
            self._failure = UpstreamError(
                why, sent=True, answered=answered, status=self.status, timed_out=timed_out, at_limit=at_limit
            )

    def _wake(self) -> None:
        if self.listener is not None:
            self.listener()
        elif (waiter := self._waiter) is not None and not waiter.done():
            if self._failure is None or self._chunks or self.done:
                waiter.set_result(None)
            else:
                waiter.set_exception(self._failure)
