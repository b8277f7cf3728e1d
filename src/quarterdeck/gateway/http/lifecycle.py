"""Requests to models, in front of FastAPI: read, authenticate, call the pipeline, send.

Taken off before routing because this is what is done a thousand times a second, and a framework's request costs more
than all of it. Everything else goes on to `app`. The same object is also FastAPI's route for these paths
(`routes/inference`), which is how another method there becomes a 405.
"""

import asyncio
import logging
from time import monotonic
from typing import Any, Protocol

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import APIError, BadRequestError, RequestTimeoutError, ServiceUnavailableError
from quarterdeck.gateway.http import responses
from quarterdeck.gateway.http.access_log import AccessLog, Exchange, printable
from quarterdeck.gateway.http.body import AsgiBody, Body
from quarterdeck.gateway.http.callers import Caller, Callers
from quarterdeck.gateway.http.middleware import Authenticates
from quarterdeck.gateway.http.wire import AsgiWire, Wire
from quarterdeck.inference.call import CLIENT_CLOSED_REQUEST, Head, Operation, Reply, Stream
from quarterdeck.net.asgi import ASGIApp, ClientGoneError, Receive, Scope, Send
from quarterdeck.protocol import sse
from quarterdeck.settings.config import GatewayConfig
from quarterdeck.settings.live import Live

log = logging.getLogger(__name__)

MIB = 1024 * 1024

_OPERATIONS = {operation.path: operation for operation in Operation}
OPERATIONS_BY_TARGET = {operation.path.encode(): operation for operation in Operation}
"""By the request line's target, as it stands there."""


class Pipeline(Protocol):
    """What is needed of `inference.pipeline.Pipeline`."""

    async def call(self, head: Head, body: bytes) -> Reply: ...


class Asked:
    """What is read of a request's headers, in one pass."""

    __slots__ = (
        "authorization",
        "cache_control",
        "client_id",
        "content_encoding",
        "content_length",
        "forwarded",
        "operation",
        "principal",
    )

    def __init__(self, operation: Operation, headers: list[tuple[bytes, bytes]], forward: frozenset[bytes]) -> None:
        self.operation = operation
        self.authorization: bytes | None = None
        self.cache_control = b""
        self.client_id: bytes | None = None
        self.content_length: int | None = None
        self.content_encoding = b""
        self.forwarded: tuple[tuple[bytes, bytes], ...] = ()
        self.principal: Principal | None = None
        """Who asks, where that was known at once."""
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
            else:
                if name == b"cache-control":
                    self.cache_control += b"," + value if self.cache_control else value
                if name in forward:
                    self.forwarded += ((name, value),)
        if keys > 1:  # a proxy before us may have read the other one
            self.authorization = None


class HotPath:
    """ASGI, and a way past it for `front`. Errors of the pipeline become envelopes; a caller who hangs up, cancels."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        config: Live[GatewayConfig],
        pipeline: Pipeline,
        authenticator: Authenticates,
        access: AccessLog,
        callers: Callers,
    ) -> None:
        self._app = app
        self._config = config
        self._forward = config.select(_forwarded)
        self._pipeline = pipeline
        self._authenticator = authenticator
        self._access = access
        self._callers = callers
        self.is_draining = False
        """Set on SIGTERM: what is under way may end, nothing new begins."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST":
            operation = _OPERATIONS.get(scope["path"])
            if operation is not None:
                asked = Asked(operation, scope["headers"], self._forward.current)
                task = asyncio.current_task()
                assert task is not None  # noqa: S101  # narrows the type; a coroutine that runs has one
                await self.serve(asked, AsgiBody(receive, asked.content_length), AsgiWire(scope, send), task)
                return
        await self._app(scope, receive, send)

    def ordinary(self, operation: Operation, headers: list[tuple[bytes, bytes]]) -> Asked | None:
        """The request, if it is one that `front` may take: nothing in its head needs more than a look. `headers` have
        lower-case names."""
        asked = Asked(operation, headers, self._forward.current)
        length = asked.content_length
        if length is None or length > self._config.current.max_body_mb * MIB or asked.content_encoding:
            return None
        asked.principal = self._authenticator.known(asked.authorization)
        return None if asked.principal is None else asked

    async def serve(self, asked: Asked, body: Body, wire: Wire, task: "asyncio.Task[Any]") -> None:
        """Answer one request, with an envelope where there is no answer. `task` is the one this runs in; it is
        cancelled when the caller goes."""
        exchange = self._access.open("POST", asked.operation.path, asked.operation.path)
        caller = self._callers.enter(task)
        try:
            await self._answer(caller, exchange, asked, body, wire)
        except APIError as error:
            await self._refuse(caller, exchange, error, wire)
        except ClientGoneError:
            pass  # nobody is there to be told; the log has it
        except asyncio.CancelledError:
            if not caller.was_stopped():
                raise
            await self._part(caller, exchange, wire)
        except Exception:
            # The door: whatever nobody below expected is logged with its trace and told as a 500.
            log.exception("unhandled error")
            if caller.is_answered:
                wire.abort()
            else:
                await self._refuse(caller, exchange, responses.unhandled(exchange.request_id), wire)
        finally:
            body.close()
            self._callers.leave(caller)
            exchange.status = exchange.status or CLIENT_CLOSED_REQUEST
            self._access.close(exchange)

    async def _answer(self, caller: Caller, exchange: Exchange, asked: Asked, body: Body, wire: Wire) -> None:
        gateway = self._config.current
        if asked.client_id is not None:
            exchange.client_request_id = printable(asked.client_id)
        principal = asked.principal or await self._authenticator.authenticate(asked.authorization)
        exchange.key = principal.key
        if self.is_draining or len(self._callers) > gateway.max_in_flight:
            raise _not_now(is_draining=self.is_draining)
        if asked.content_encoding not in (b"", b"identity"):
            raise BadRequestError("A compressed body is not taken.", code="unsupported_content_encoding")
        caller.deadline = monotonic() + gateway.client_body_timeout_seconds
        whole = await body.read(gateway.max_body_mb * MIB)
        caller.deadline = 0.0
        body.watch(caller)
        head = Head(
            exchange.request_id, asked.operation, principal, exchange.started, asked.forwarded, asked.cache_control
        )
        reply = await self._pipeline.call(head, whole)
        if reply.stream is not None:
            await self._stream(caller, exchange, reply, reply.stream, wire, gateway.client_write_timeout_seconds)
            return
        caller.is_settled = True
        exchange.status = reply.status
        caller.deadline = monotonic() + gateway.client_write_timeout_seconds
        caller.is_answered = True
        await wire.answer(reply.status, [*reply.headers, *exchange.headers()], reply.body)

    async def _stream(
        self, caller: Caller, exchange: Exchange, reply: Reply, stream: Stream, wire: Wire, seconds: float
    ) -> None:
        """Piece by piece, as fast as the caller takes them: `write` returns when there is room again."""
        exchange.status = reply.status
        caller.is_answered = True
        try:
            caller.deadline = monotonic() + seconds
            await wire.begin(reply.status, [*reply.headers, *exchange.headers()])
            caller.deadline = 0.0
            caller.patience = seconds
            await stream.pump(wire.sink(caller))
        finally:
            await stream.aclose()
        caller.is_settled = True
        caller.deadline = monotonic() + seconds
        await wire.end()

    async def _part(self, caller: Caller, exchange: Exchange, wire: Wire) -> None:
        """The request was stopped: say so to a caller who can still hear it."""
        if caller.reason == "gone":
            return
        if not caller.is_answered:
            error: APIError = _not_now(is_draining=True)
            if caller.reason == "slow":
                headers = {"connection": "close"}
                error = RequestTimeoutError("The request's body did not come in time.", headers=headers)
            await self._refuse(caller, exchange, error, wire)
        elif caller.deadline:  # stopped while it was written to: it reads nothing, so there is no way to tell it
            wire.abort()
        else:
            await wire.write(sse.error_event(_not_now(is_draining=True)))
            await wire.end()

    async def _refuse(self, caller: Caller, exchange: Exchange, error: APIError, wire: Wire) -> None:
        headers, body = responses.encode(error)
        exchange.status = error.status
        caller.is_answered = True
        await wire.answer(error.status, headers + exchange.headers(), body)


def _forwarded(gateway: GatewayConfig) -> frozenset[bytes]:
    """The names of the client's headers that an engine may see, as they stand on the wire."""
    return frozenset(name.encode("ascii") for name in gateway.forward_headers)


def _not_now(*, is_draining: bool) -> ServiceUnavailableError:
    if is_draining:
        # The connection goes as well, so that the retry reaches another gateway.
        headers = {"connection": "close"}
        return ServiceUnavailableError("This gateway is about to end.", code="shutting_down", headers=headers)
    return ServiceUnavailableError("This gateway is at its limit of requests.", code="overloaded")
