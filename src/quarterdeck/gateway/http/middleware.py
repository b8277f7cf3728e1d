"""What every request to FastAPI's routes passes. Plain ASGI, so that a stream stays a stream.

* `ErrorBoundary`: request id, log line, count; the place where an error becomes a response. Requests in flight are
  drained at shutdown and slow clients are cut off, as in the request lifecycle.
* `HomePage` (its own module): the page for browsers at the base URL.
* `DefaultDeny`: no route is reached without a key, except those in PUBLIC. This comes before routing.
* `StorableText`: a path or query with a NUL names nothing that exists; PostgreSQL stores none.
* `BufferedBody`: a body is bounded in size and time; FastAPI reads any, before it checks whether the key may use the
  route.

Nothing here reads the Host header or anything made of it: decisions are made on `scope["path"]`.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from time import monotonic
from typing import Protocol
from urllib.parse import unquote_to_bytes

import msgspec

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import APIError, BadRequestError, NotFoundError
from quarterdeck.gateway.http import content_coding, error_responses
from quarterdeck.gateway.http.access_log import CLIENT_DISCONNECTED, AccessLog, AccessRecord, printable
from quarterdeck.gateway.http.asgi_exchange import abort_of, drain_of
from quarterdeck.gateway.http.cors import cors_of
from quarterdeck.gateway.http.credentials import credential
from quarterdeck.gateway.http.error_responses import RECORD
from quarterdeck.gateway.http.registry import BodyPolicy
from quarterdeck.gateway.http.request_head import content_length
from quarterdeck.gateway.http.requests_in_flight import LARGE_BYTES, RequestInFlight, RequestsInFlight
from quarterdeck.inference.call import CLIENT_CLOSED_REQUEST
from quarterdeck.net.asgi import ASGIApp, ClientGoneError, Message, Receive, Scope, Send, read_body
from quarterdeck.protocol.job_credentials import JobClaims
from quarterdeck.protocol.repeated import refuse_repeated
from quarterdeck.settings.config import GatewayConfig
from quarterdeck.settings.live import Live

log = logging.getLogger(__name__)

PUBLIC = frozenset({"/healthz", "/readyz", "/metrics", "/demand"})
"""For probes and scrapers. They show the process, its models' names and its counters; nothing about a caller. `/demand`
asks for the operator's token itself."""

CRUD_BODY = BodyPolicy(max_bytes=1024 * 1024, seconds=30)
"""For objects of the admin API; the largest of them list a thousand models."""

PRINCIPAL = "quarterdeck.principal"
IN_FLIGHT = "quarterdeck.in_flight"
"""Members of the scope, as RECORD."""


class Authenticates(Protocol):
    """What is needed of `auth.Authenticator`."""

    async def authenticate(self, authorization: bytes | None) -> Principal: ...

    def known(self, authorization: bytes | None) -> Principal | None: ...


class AuthenticatesJobs(Protocol):
    """What is needed of `auth.JobCredentials`."""

    async def authenticate(self, authorization: bytes | None) -> tuple[Principal, JobClaims] | None: ...


class ErrorBoundary:
    """Outermost.

    A hang-up does not cancel a request here, as it does in the request lifecycle: a committed write must still be
    announced to the other gateways. Requests of PUBLIC are not counted as in flight, and work during a drain; their
    writes are timed like all others.
    """

    def __init__(
        self, app: ASGIApp, access: AccessLog, requests_in_flight: RequestsInFlight, config: Live[GatewayConfig]
    ) -> None:
        self._app = app
        self._access = access
        self._requests_in_flight = requests_in_flight
        self._config = config
        self._cors = config.select(lambda gateway: cors_of(gateway.cors))
        self._probes = RequestsInFlight(sweep_seconds=requests_in_flight.sweep_seconds)
        """Requests of PUBLIC."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        # Websockets are not supported; uvicorn is configured not to accept any.

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = self._access.open(scope["method"], scope["path"])
        scope[RECORD] = record
        if (cors := self._cors.current) is not None and scope["path"] not in PUBLIC:
            record.cross_origin = cors.headers(scope["headers"])
        for name, value in scope["headers"]:
            if name == b"x-client-request-id":
                record.client_request_id = printable(value)
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # narrows the type; a running coroutine has one
        requests_in_flight = self._probes if scope["path"] in PUBLIC else self._requests_in_flight
        scope[IN_FLIGHT] = in_flight = requests_in_flight.enter(task)
        seconds = self._config.current.client_write_timeout_seconds
        sender = _Sender(send, drain_of(scope), record, in_flight, seconds)
        try:
            try:
                await self._app(scope, receive, sender.send)
            except APIError as error:
                record.error = error.code or error.type
                await error_responses.send(sender.send, error)
            except Exception:
                # The outermost edge: an unexpected exception is logged with its trace, and the client gets a 500.
                log.exception("unhandled error")
                record.error = "internal_error"
                if record.status:
                    raise  # the answer has begun; uvicorn closes the connection, so that it does not look complete
                await error_responses.send(sender.send, error_responses.internal_error(record.request_id))
        except asyncio.CancelledError:  # of the request, or of its error's answer
            if not in_flight.was_stopped():
                raise
            record.error = CLIENT_DISCONNECTED
            if record.status:
                abort_of(scope)()
            elif (stopped := in_flight.error()) is not None:
                record.error = stopped.code
                try:
                    async with asyncio.timeout(seconds):  # its deadline counts no more: it is stopped only once
                        await error_responses.send(sender.send, stopped)
                except TimeoutError:
                    abort_of(scope)()
        finally:
            requests_in_flight.leave(in_flight)
            route = scope.get("route")
            record.route = getattr(route, "path", record.route)
            if not record.status:
                record.status, record.error = CLIENT_CLOSED_REQUEST, CLIENT_DISCONNECTED
            self._access.close(record)


class _Sender:
    """Records the status, adds the headers of every response, and bounds the time of a write."""

    def __init__(
        self,
        send: Send,
        drain: Callable[[], Awaitable[None]],
        record: AccessRecord,
        in_flight: RequestInFlight,
        seconds: float,
    ) -> None:
        """`drain`: called after each write."""
        self._send = send
        self._drain = drain
        self._record = record
        self._in_flight = in_flight
        self._seconds = seconds

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._record.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._record.headers()]
        self._in_flight.deadline = monotonic() + self._seconds
        await self._send(message)
        await self._drain()
        self._in_flight.deadline = 0.0


class DefaultDeny:
    """Before routing, so that a path that does not exist is refused like one that does."""

    def __init__(self, app: ASGIApp, authenticator: Authenticates) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PUBLIC:
            principal = await self._authenticator.authenticate(credential(scope["headers"]))
            scope[PRINCIPAL] = principal
            scope[RECORD].key = principal.key
        await self._app(scope, receive, send)


class StorableText:
    """Refuses paths and queries with text that no database can store, before a route passes it on as an id.

    The fields of bodies have patterns of their own.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"]
            if "\0" in path or not _is_unicode(path):
                raise NotFoundError("Unknown request URL. Please check it for typos.", code="unknown_url")
            if b"\0" in unquote_to_bytes(scope["query_string"]):
                raise BadRequestError("The query string contains a NUL character.", code="invalid_value")
        await self._app(scope, receive, send)


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _refuse_repeated(body: bytes) -> None:
    """Raises BadRequestError: `{"admin": false, "admin": true}` may mean either to what filters requests in front."""
    with suppress(msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # no JSON: the route says so
        refuse_repeated(msgspec.Raw(body))


class BufferedBody:
    """Admits a request and reads its body, after its key was checked: without a key no body is read.

    Of the bounds on requests in flight only those of each key hold here: an overloaded gateway must still accept the
    revocation of a key.
    """

    def __init__(
        self,
        app: ASGIApp,
        requests_in_flight: RequestsInFlight,
        config: Live[GatewayConfig],
        policy: BodyPolicy = CRUD_BODY,
    ) -> None:
        self._app = app
        self._requests_in_flight = requests_in_flight
        self._config = config
        self._bounds = config.select(policy.bounds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in PUBLIC:  # a public route reads no body
            await self._app(scope, receive, send)
            return
        stated = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        length = content_length(stated)
        in_flight: RequestInFlight = scope[IN_FLIGHT]
        gateway = self._config.current
        self._requests_in_flight.take_place(in_flight, scope[PRINCIPAL].key, length, gateway, counts=False)
        limit, seconds = self._bounds.current
        in_flight.deadline = monotonic() + seconds
        try:
            body = await read_body(receive, limit, length)
        except ClientGoneError:
            return
        in_flight.deadline = 0.0
        coding = next((value for name, value in scope["headers"] if name == b"content-encoding"), b"")
        body = await content_coding.decoded(body, coding, limit)
        if len(body) > LARGE_BYTES:
            self._requests_in_flight.hold(in_flight, len(body), gateway)
        if text := body.strip():
            _refuse_repeated(text)
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)
