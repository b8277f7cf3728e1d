"""uvicorn, and the bounds it does not have with httptools.

* A request's head is bounded in bytes and in time: httptools keeps a header of any length. Trailers are bounded, too,
  and are no headers: uvicorn would add them to those that a request came with.
* A malformed request is answered with the envelope, as everything else is.
* A connection can be dropped with what is not yet sent (`callers.ABORT`); closing it would wait for the client.
* A signal is handed to us, and a graceful end is an end with status 0.
"""

import asyncio
from typing import Any

import msgspec
from uvicorn._types import ASGI3Application
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from quarterdeck.errors import APIError, BadRequestError, RequestTimeoutError, envelope
from quarterdeck.gateway.http.wire import ABORT

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together. 64 KiB: eight times what nginx takes; nobody's key or cookie is longer."""
HEAD_SECONDS = 20.0
"""From the connection, or from a request's first byte, to the end of its headers."""
KEEP_ALIVE_SECONDS = 75
"""An idle connection. Longer than a load balancer's 60 s: who closes first decides who sees a broken request."""

_REASONS = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_bytes = 0
        self._piece = 0
        self._framing = 0
        """Bytes since the last piece of a body that were none of it."""
        self._is_in_head = True
        self._has_begun = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head_timer()
        self._hang_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._piece = len(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            # A piece is at most 256 KiB, so one that holds the head's end, and body after it, is let through once.
            if self._head_bytes - len(data) > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())
                return
        else:
            self._framing += len(data)
        super().data_received(data)
        if self._framing > MAX_HEAD_BYTES:  # trailers; its answer may be out already, so nothing can be said
            self._abort()
        elif self._is_in_head and (self._head_bytes or self._has_begun):  # most heads come whole: they need no timer
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())
            elif self._head_timer is None:
                self._await_head()

    def on_message_begin(self) -> None:
        self._is_in_head = self._has_begun = True
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"call": self._abort}}

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._end_head_timer()
        if self._is_head_too_large():
            self._refuse(_head_too_large())
            return
        super().on_headers_complete()
        self.headers = []  # for trailers, at which nobody looks

    def _is_head_too_large(self) -> bool:
        """Of a head that is whole; it can only be so where as many bytes have come."""
        if self._head_bytes <= MAX_HEAD_BYTES and self._piece <= MAX_HEAD_BYTES:
            return False
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES

    def on_message_complete(self) -> None:
        if not self.transport.is_closing():
            super().on_message_complete()
        self._end_message()

    def _end_message(self) -> None:
        self._is_in_head, self._has_begun = True, False
        self._head_bytes = self._framing = 0

    def on_body(self, body: bytes) -> None:
        self._framing = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            self._refuse(BadRequestError(msg, code="invalid_http"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def _hang_up(self) -> None:
        """Tell the request under way that its caller is gone. uvicorn tells the one that came last, which on a
        pipelined connection is another: it waits for its turn."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _abort(self) -> None:
        self._hang_up()
        self.transport.abort()

    def _await_head(self) -> None:
        self._head_timer = self.loop.call_later(HEAD_SECONDS, self._head_is_late)

    def _head_is_late(self) -> None:
        self._head_timer = None
        if not self._is_in_head or self.transport.is_closing():
            return
        if self._head_bytes or self._has_begun:
            self._refuse(RequestTimeoutError("The request's headers did not come in time."))
        else:
            self.transport.close()

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: APIError) -> None:
        """Before there is a request: an answer written by hand, and the end of the connection."""
        if self._running is not None and not self._running.response_complete:
            self._abort()  # an earlier answer is under way on this connection: nothing may be written into it
            return
        body = msgspec.json.encode(envelope(error))
        head = b"HTTP/1.1 %d %b\r\ncontent-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
        self.transport.write(head % (error.status, _REASONS[error.status], len(body)) + body)
        self.transport.close()


def _head_too_large() -> BadRequestError:
    error = BadRequestError(
        f"The request's headers are larger than {MAX_HEAD_BYTES} bytes.", code="request_headers_too_large"
    )
    error.status = 431
    return error
