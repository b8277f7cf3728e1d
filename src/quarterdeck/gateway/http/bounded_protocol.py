"""uvicorn's httptools protocol with the bounds that it lacks.

* A request's head is bounded in bytes and in time: httptools keeps a header of any length. Trailers are bounded as
  well, and not taken for headers: uvicorn would add them to those of the request.
* A malformed request is answered with OpenAI's error object, like any other error.
* An offer to upgrade the connection (h2c, websocket) is ignored, as RFC 9110 allows: the request is served over
  HTTP/1.1. httptools skips the body of such a request and leaves its bytes to the caller, who would parse them as the
  next request. CONNECT is refused.
* A client of HTTP/1.0 is sent no chunks.
* A body in a transfer coding other than `chunked` is refused: llhttp would hand it out still encoded.
* A connection can be closed without sending what is buffered (`asgi_exchange.ABORT`); a normal close would wait for the
  client.
* A hang-up reaches the request being served. uvicorn reports it to the latest one, which on a pipelined connection may
  still wait for its turn.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import httptools
from uvicorn._types import ASGI3Application, ASGIReceiveCallable, ASGISendCallable, ASGISendEvent, Scope
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from quarterdeck.errors import APIError, BadRequestError, RequestTimeoutError
from quarterdeck.gateway.http import error_responses
from quarterdeck.gateway.http.asgi_exchange import ABORT

MAX_HEAD_BYTES = 64 * 1024
"""Request line and headers together. 64 KiB: eight times nginx's default, more than any key or cookie needs."""
HEAD_SECONDS = 20.0
"""From the connection, or from a request's first byte, to the end of its headers. And for the rest of a body whose
request was answered before it arrived."""


class BoundedProtocol(HttpToolsProtocol):
    """One connection."""

    def __init__(self, head_seconds: float, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._head_seconds = head_seconds
        self._head_bytes = 0
        self._piece = 0
        """Bytes of the piece being parsed."""
        self._framing = 0
        """Bytes received since the last piece of a body, that are not of the body."""
        self._is_in_head = True
        self._has_begun = False
        self._is_offering = False
        """The request whose head was just parsed offers an upgrade. Its head is parsed again without the offer."""
        self._head_timer: asyncio.TimerHandle | None = None
        self._running: RequestResponseCycle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        super().connection_made(transport)
        self._start_head_timer()

    def connection_lost(self, exc: Exception | None) -> None:
        self._end_head_timer()
        self._hang_up()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._piece = size = len(data)
        if self._is_in_head:
            before = self._head_bytes
            self._head_bytes = before + size
            # A piece has at most 256 KiB, so one with the end of a head and a body after it may pass once.
            if before > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())
                return
        else:
            self._framing += size
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._parse_on(data, offer)
        except httptools.HttpParserError:
            self.send_400_response("Invalid HTTP request received.")
        if self._framing > MAX_HEAD_BYTES:  # trailers; the answer may have been sent, so there is no error to send
            self._abort()
        elif self._is_in_head and (self._head_bytes or self._has_begun):  # most heads come whole and need no timer
            if self._head_bytes > MAX_HEAD_BYTES:
                self._refuse(_head_too_large())
            elif self._head_timer is None:
                self._start_head_timer()
        elif not self._is_in_head and self._head_timer is None and not self._is_answering():
            self._start_head_timer()  # a body that is dropped, because its request was answered before it arrived

    def _parse_on(self, data: bytes, offer: httptools.HttpParserUpgrade) -> None:
        """Parse the head again without the offer, and what follows it."""
        pieces: list[bytes | memoryview] = self._without_offer(data, offer)
        while pieces:
            piece = pieces.pop()
            try:
                self.parser.feed_data(piece)
            except httptools.HttpParserUpgrade as another:
                pieces += self._without_offer(piece, another)
            except httptools.HttpParserError:
                self.send_400_response("Invalid HTTP request received.")
                return

    def _without_offer(self, data: bytes | memoryview, offer: httptools.HttpParserUpgrade) -> list[bytes | memoryview]:
        """What is to be parsed, the last piece first. Nothing if the connection is closing."""
        self._is_offering = False
        if self.transport.is_closing():
            return []
        # A memoryview: a piece may hold thousands of small requests.
        pieces: list[bytes | memoryview] = [memoryview(data)[offer.args[0] :], self._head_without_offer()]
        self._replace_parser()
        return pieces

    def _set_offer_aside(self) -> None:
        """The head is complete and offers an upgrade. What the parser reports from here to HttpParserUpgrade is not
        true: it takes the request for one without a body."""
        self._is_offering = True
        if self.parser.get_method() == b"CONNECT":
            self._refuse(BadRequestError("The method CONNECT is not supported.", code="invalid_http"))

    def _replace_parser(self) -> None:
        """After an offer with `connection: close` the parser reads nothing more."""
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does

    def _head_without_offer(self) -> bytes:
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def on_message_begin(self) -> None:
        self._is_in_head = self._has_begun = True
        super().on_message_begin()
        self.scope["extensions"] = {ABORT: {"call": self._abort, "drain": self.flow.drain}}

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            self._set_offer_aside()
            return
        self._is_in_head = False
        self._end_head_timer()
        if self._is_head_too_large():
            self._refuse(_head_too_large())
            return
        if not _is_framing_supported(self.headers, self.parser.get_http_version()):
            self._refuse(_unsupported_transfer_encoding())
            return
        super().on_headers_complete()
        self.headers = []  # for trailers, which are ignored

    def _is_head_too_large(self) -> bool:
        """Of a complete head; only possible when as many bytes have arrived."""
        if self._head_bytes <= MAX_HEAD_BYTES and self._piece <= MAX_HEAD_BYTES:
            return False
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES

    def on_message_complete(self) -> None:
        if self._is_offering:
            return
        if not self.transport.is_closing():
            super().on_message_complete()
        self._end_message()

    def _end_message(self) -> None:
        self._is_in_head, self._has_begun = True, False
        self._head_bytes = self._framing = 0
        if self._head_timer is not None:
            self._end_head_timer()

    def on_body(self, body: bytes) -> None:
        self._framing = 0
        if not self.transport.is_closing():
            super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            self._refuse(BadRequestError(msg, code="invalid_http"))

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        is_chunk_free = cycle.scope["http_version"] != "1.1"
        super()._start_asgi_task(cycle, _without_chunks(cycle, app) if is_chunk_free else app)

    def _is_answering(self) -> bool:
        """Whether a request is being served: nothing else may be written until its answer is complete."""
        return self._running is not None and not self._running.response_complete

    def _hang_up(self) -> None:
        """Report to the request being served that its client is gone."""
        if self._running is not None and not self._running.response_complete:
            self._running.disconnected = True
            self._running.message_event.set()

    def _abort(self) -> None:
        self._hang_up()
        self.transport.abort()

    def _start_head_timer(self) -> None:
        self._head_timer = self.loop.call_later(self._head_seconds, self._head_timed_out)

    def _head_timed_out(self) -> None:
        self._head_timer = None
        if self.transport.is_closing():
            return
        if not self._is_in_head:
            self._abort()
        elif self._head_bytes or self._has_begun:
            self._refuse(RequestTimeoutError("The request headers were not received in time."))
        else:
            self.transport.close()

    def _end_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, error: APIError) -> None:
        """Answer what never became a request, and close the connection."""
        if self._is_awaiting_body():
            self._hang_up()  # its request gets no other answer
        elif self._is_answering():
            self._abort()
            return
        headers = self._refusal_headers(self.headers or [])
        self.transport.write(STATUS_LINE[error.status] + error_responses.closing(error, headers))
        self.transport.close()
        self._refused(error)

    def _is_awaiting_body(self) -> bool:
        """Whether the request being served waits for the body that is being parsed."""
        running = self._running
        return running is not None and running is self.cycle and running.more_body and not running.response_started

    def _refusal_headers(self, headers: list[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        """Further headers of the answer to what never became a request; `headers` are those that were parsed of it."""
        return ()

    def _refused(self, error: APIError) -> None:
        """Called for what never became a request, once it is answered."""


def _without_chunks(cycle: RequestResponseCycle, app: ASGI3Application) -> ASGI3Application:
    """For a client of HTTP/1.0, which does not know chunks: a body without a length ends with the connection."""

    async def respond(scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        is_measured = False

        async def send_unchunked(message: ASGISendEvent) -> None:
            nonlocal is_measured
            if message["type"] == "http.response.start":
                is_measured = any(name.lower() == b"content-length" for name, _ in message.get("headers", ()))
                if not is_measured:
                    cycle.chunked_encoding = False
            elif message["type"] == "http.response.body" and not is_measured:
                cycle.expected_content_length = len(message.get("body", b""))
            await send(message)

        await app(scope, receive, send_unchunked)

    return respond


def _head_too_large() -> BadRequestError:
    error = BadRequestError(
        f"The request headers are larger than the maximum of {MAX_HEAD_BYTES} bytes.", code="request_headers_too_large"
    )
    error.status = 431
    return error


def _is_framing_supported(headers: list[tuple[bytes, bytes]], version: str) -> bool:
    """`chunked` alone, once, which HTTP/1.0 does not know."""
    codings = [value.strip().lower() for name, value in headers if name == b"transfer-encoding"]
    return not codings or (codings == [b"chunked"] and version == "1.1")


def _unsupported_transfer_encoding() -> BadRequestError:
    return BadRequestError(
        "The request's Transfer-Encoding is not supported. Send chunked, or a Content-Length.",
        code="unsupported_transfer_encoding",
    )
