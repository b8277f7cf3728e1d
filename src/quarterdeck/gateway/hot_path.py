"""Requests to models, in front of FastAPI: read, authenticate, call the pipeline, send.

Taken off before routing because this is what is done a thousand times a second, and a framework's request costs more
than all of it. Everything else goes on to `app`. The same object is also FastAPI's route for these paths
(`routes/inference`), which is how another method there becomes a 405.
"""

import asyncio
import logging
from typing import Protocol

from starlette.types import ASGIApp, Receive, Scope, Send

from quarterdeck.errors import APIError, BadRequestError, RequestTimeoutError, ServiceUnavailableError
from quarterdeck.gateway import responses
from quarterdeck.gateway.access import CLIENT_CLOSED_REQUEST, AccessLog, Exchange, printable
from quarterdeck.gateway.body import ClientGoneError, read_body
from quarterdeck.gateway.callers import Caller, Callers
from quarterdeck.gateway.middleware import Authenticates
from quarterdeck.inference.calls import Head, Operation, Reply, Stream
from quarterdeck.inference.directory import Directory
from quarterdeck.protocol import sse
from quarterdeck.settings.config import GatewayConfig

log = logging.getLogger(__name__)

MIB = 1024 * 1024

_OPERATIONS = {operation.value: operation for operation in Operation}


class Pipeline(Protocol):
    """What is needed of `inference.pipeline.Pipeline`."""

    directory: Directory

    async def call(self, head: Head, body: bytes) -> Reply: ...


class _RequestHead:
    """What is read of a request's headers, in one pass."""

    __slots__ = ("authorization", "client_id", "content_encoding", "content_length", "forwarded")

    def __init__(self, headers: list[tuple[bytes, bytes]], forward: frozenset[bytes]) -> None:
        self.authorization: bytes | None = None
        self.client_id: bytes | None = None
        self.content_length: int | None = None
        self.content_encoding = b""
        self.forwarded: tuple[tuple[bytes, bytes], ...] = ()
        keys = 0
        for name, value in headers:
            if name == b"authorization":
                keys += 1
                self.authorization = value
            elif name == b"content-length":
                self.content_length = int(value) if value.isdigit() else None
            elif name == b"x-client-request-id":
                self.client_id = value
            elif name == b"content-encoding":
                self.content_encoding = value
            elif name in forward:
                self.forwarded += ((name, value),)
        if keys > 1:  # a proxy before us may have read the other one
            self.authorization = None


class HotPath:
    """ASGI. Errors of the pipeline become envelopes; a caller who hangs up, cancels."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        pipeline: Pipeline,
        authenticator: Authenticates,
        access: AccessLog,
        callers: Callers,
    ) -> None:
        self._app = app
        self._pipeline = pipeline
        self._authenticator = authenticator
        self._access = access
        self._callers = callers
        self._gateway: GatewayConfig | None = None
        self._forward: frozenset[bytes] = frozenset()
        self.is_draining = False
        """Set on SIGTERM: what is under way may end, nothing new begins."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            operation = _OPERATIONS.get(scope["path"])
            if operation is not None:
                await self._serve(operation, scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _serve(self, operation: Operation, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._access.open("POST", operation.value, operation.value)
        caller = self._callers.enter(scope)
        try:
            await self._guarded(caller, exchange, operation, scope, receive, send)
        except asyncio.CancelledError:
            if not caller.was_stopped():
                raise
            await self._part(caller, exchange, send)
        finally:
            self._callers.leave(caller)
            exchange.status = exchange.status or CLIENT_CLOSED_REQUEST
            self._access.close(exchange)

    async def _guarded(
        self, caller: Caller, exchange: Exchange, operation: Operation, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """Answer, with an envelope where there is no answer."""
        try:
            await self._answer(caller, exchange, operation, scope, receive, send)
        except APIError as error:
            await self._refuse(caller, exchange, error, send)
        except ClientGoneError:
            return
        except Exception:
            # The door: whatever nobody below expected is logged with its trace and told as a 500.
            log.exception("unhandled error")
            if caller.is_answered:
                caller.abort()
            else:
                await self._refuse(caller, exchange, responses.unhandled(exchange.request_id), send)

    async def _answer(
        self, caller: Caller, exchange: Exchange, operation: Operation, scope: Scope, receive: Receive, send: Send
    ) -> None:
        gateway = self._settings()
        request = _RequestHead(scope["headers"], self._forward)
        if request.client_id is not None:
            exchange.client_request_id = printable(request.client_id)
        principal = await self._authenticator.authenticate(request.authorization)
        exchange.key = principal.key
        if self.is_draining or len(self._callers) > gateway.max_in_flight:
            raise _not_now(is_draining=self.is_draining)
        if request.content_encoding not in (b"", b"identity"):
            raise BadRequestError("A compressed body is not taken.", code="unsupported_content_encoding")
        loop = asyncio.get_running_loop()
        caller.deadline = loop.time() + gateway.client_body_timeout_seconds
        body = await read_body(receive, request.content_length, gateway.max_body_mb * MIB)
        caller.deadline = 0.0
        caller.watch(receive)
        head = Head(exchange.request_id, operation, principal, exchange.started, request.forwarded)
        reply = await self._pipeline.call(head, body)
        if reply.stream is not None:
            await self._stream(caller, exchange, reply, reply.stream, send, gateway.client_write_timeout_seconds)
            return
        caller.release()  # it is settled: whoever hangs up now changes nothing
        exchange.status = reply.status
        headers = [*reply.headers, (b"content-length", b"%d" % len(reply.body)), *exchange.headers()]
        caller.deadline = loop.time() + gateway.client_write_timeout_seconds
        caller.is_answered = True
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        await send({"type": "http.response.body", "body": reply.body})

    async def _stream(
        self, caller: Caller, exchange: Exchange, reply: Reply, stream: Stream, send: Send, seconds: float
    ) -> None:
        """Piece by piece, as fast as the caller takes them: `send` returns when there is room again."""
        time = asyncio.get_running_loop().time
        exchange.status = reply.status
        headers = [*reply.headers, *exchange.headers()]
        caller.is_answered = True
        try:
            caller.deadline = time() + seconds
            await send({"type": "http.response.start", "status": reply.status, "headers": headers})
            caller.deadline = 0.0
            async for piece in stream:
                caller.deadline = time() + seconds
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                caller.deadline = 0.0
        finally:
            await stream.aclose()
        caller.release()
        caller.deadline = time() + seconds
        await send({"type": "http.response.body", "body": b""})

    async def _part(self, caller: Caller, exchange: Exchange, send: Send) -> None:
        """The request was stopped: say so to a caller who can still hear it."""
        if caller.reason == "gone":
            return
        if not caller.is_answered:
            error: APIError = _not_now(is_draining=True)
            if caller.reason == "slow":
                headers = {"connection": "close"}
                error = RequestTimeoutError("The request's body did not come in time.", headers=headers)
            await self._refuse(caller, exchange, error, send)
        elif caller.deadline:  # stopped while it was written to: it reads nothing, so there is no way to tell it
            caller.abort()
        else:
            event = sse.error_event(_not_now(is_draining=True))
            await send({"type": "http.response.body", "body": event})

    async def _refuse(self, caller: Caller, exchange: Exchange, error: APIError, send: Send) -> None:
        headers, body = responses.encode(error)
        headers += exchange.headers()
        exchange.status = error.status
        caller.is_answered = True
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    def _settings(self) -> GatewayConfig:
        gateway = self._pipeline.directory.config.gateway
        if gateway is not self._gateway:
            self._gateway = gateway
            self._forward = frozenset(name.encode("ascii") for name in gateway.forward_headers)
        return gateway


def _not_now(*, is_draining: bool) -> ServiceUnavailableError:
    if is_draining:
        # The connection goes as well, so that the retry reaches another gateway.
        headers = {"retry-after": "1", "connection": "close"}
        return ServiceUnavailableError("This gateway is about to end.", code="shutting_down", headers=headers)
    return ServiceUnavailableError(
        "This gateway is at its limit of requests.", code="overloaded", headers={"retry-after": "1"}
    )
