"""The life of a request to a registered route: authenticate, admit, read the body, call the handler, send its reply.

Stands in front of FastAPI, which serves all other paths. A client's hang-up, a timeout and a shutdown cancel the
handler (`requests_in_flight`); errors become OpenAI's error object (`error_responses`). Requests arrive over ASGI, or
from `front` past ASGI: model requests come a thousand times a second, and a framework's request costs more than this.
"""

import asyncio
import logging
from collections.abc import Sequence
from time import monotonic
from typing import Any

from quarterdeck.errors import APIError
from quarterdeck.gateway.http import content_coding, error_responses
from quarterdeck.gateway.http.access_log import CLIENT_DISCONNECTED, AccessLog, AccessRecord, printable
from quarterdeck.gateway.http.asgi_exchange import AsgiExchange, abort_of
from quarterdeck.gateway.http.body_stream import BodyStream
from quarterdeck.gateway.http.cors import cors_of
from quarterdeck.gateway.http.exchange import Exchange
from quarterdeck.gateway.http.middleware import PUBLIC, Authenticates, AuthenticatesJobs
from quarterdeck.gateway.http.registry import Registry, Route
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.gateway.http.requests_in_flight import LARGE_BYTES, RequestInFlight, RequestsInFlight
from quarterdeck.gateway.http.spellings import spelled
from quarterdeck.inference.call import CLIENT_CLOSED_REQUEST, Reply, Stream
from quarterdeck.net.asgi import ASGIApp, ClientGoneError, Receive, Scope, Send
from quarterdeck.settings.config import GatewayConfig
from quarterdeck.settings.live import Live
from quarterdeck.settings.snapshot import snapshot

log = logging.getLogger(__name__)

STREAMED_BYTES = 320 * 1024
"""Memory of a body that is read piece by piece (`BodyStream`)."""


class RequestLifecycle:
    """The ASGI application of the gateway, and `serve` for requests that do not come over ASGI."""

    def __init__(
        self,
        app: ASGIApp,
        registry: Registry,
        *,
        config: Live[GatewayConfig],
        authenticator: Authenticates,
        access: AccessLog,
        requests_in_flight: RequestsInFlight,
        jobs: AuthenticatesJobs | None = None,
    ) -> None:
        """`jobs`: for requests of the platform's own jobs. None: there are none."""
        self._jobs = jobs
        self.registry = registry
        self._app = app
        self._config = config.select(snapshot)
        self._forward = config.select(_forwarded)
        self._bounds = config.select(lambda gateway: {each: each.body.bounds(gateway) for each in registry.routes})
        self._cors = config.select(lambda gateway: cors_of(gateway.cors))
        self.keep_alive = config.select(lambda gateway: gateway.keep_alive_seconds)
        self._authenticator = authenticator
        self._access = access
        self._requests_in_flight = requests_in_flight

    @property
    def keeps_connections(self) -> bool:
        """Whether a connection may stay open after the answer to a request that begins now."""
        return self.keep_alive.current > 0 and not self._requests_in_flight.is_leaving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["method"] == "OPTIONS" and await self._answer_preflight(scope, send):
            return
        found = self.registry.find(scope["method"], scope["path"])
        if found is None and (path := spelled(scope["path"], self.registry.knows)) is not None:
            scope = {**scope, "path": path}
            found = self.registry.find(scope["method"], path)
        if found is not None:
            route, parameters = found
            head = RequestHead(scope["path"], scope["headers"], self._forward.current)
            head.parameters, head.query = parameters, scope["query_string"]
            task = asyncio.current_task()
            assert task is not None  # noqa: S101  # narrows the type; a running coroutine has one
            await self.serve(route, head, AsgiExchange(scope, receive, send, head.content_length), task)
            return
        await self._app(scope, receive, send)

    async def _answer_preflight(self, scope: Scope, send: Send) -> bool:
        """Answer a browser that asks whether a page may send a request. It has no key. False: it is not that."""
        cors = self._cors.current
        headers = None if cors is None or scope["path"] in PUBLIC else cors.preflight(scope["headers"])
        if headers is None:
            return False
        record = self._access.open("OPTIONS", scope["path"], "preflight")
        record.status = 204
        try:
            async with asyncio.timeout(self.write_seconds):  # earlier answers on its connection may not be read
                await send({"type": "http.response.start", "status": 204, "headers": [*headers, *record.headers()]})
                await send({"type": "http.response.body", "body": b""})
        except TimeoutError:
            abort_of(scope)()
        self._access.close(record)
        return True

    def cross_origin(self, headers: Sequence[tuple[bytes, bytes]]) -> Sequence[tuple[bytes, bytes]]:
        """Headers by which a browser shows its page the answer to a request with these headers."""
        return () if (cors := self._cors.current) is None else cors.headers(headers)

    def log_refusal(self, error: APIError) -> None:
        """A line for what the server refused before it was a request: a head that is malformed, too large or late."""
        record = self._access.open("-", "-")
        record.status, record.error = error.status, error.code
        self._access.close(record)

    @property
    def write_seconds(self) -> float:
        """The setting in force: how long a client may take to read."""
        return self._config.current.client_write_timeout_seconds

    def head_for_front(self, route: Route, headers: list[tuple[bytes, bytes]]) -> RequestHead | None:
        """The request's head, if `front` may take the request: size known and within bounds, key in memory. `headers`
        have lower-case names."""
        head = RequestHead(route.path, headers, self._forward.current)
        length = head.content_length
        if length is None or length > self._bounds.current[route][0] or head.content_encoding:
            return None
        principal = self._authenticator.known(head.authorization)
        if principal is None:
            return None
        head.principal = principal
        return head

    async def serve(self, route: Route, head: RequestHead, exchange: Exchange, task: "asyncio.Task[Any]") -> None:
        """Answer one request. `task` is the current one; it is cancelled when the request has to stop."""
        record = self._access.open(route.method, head.path, route.path)
        if (cors := self._cors.current) is not None:
            record.cross_origin = cors.headers(head.headers)
        exchange.in_flight = in_flight = self._requests_in_flight.enter(task)
        try:
            try:
                await self._answer(route, head, exchange, in_flight, record)
            except APIError as error:
                await self._refuse(error, route, exchange, in_flight, record)
            except ClientGoneError:
                record.error = CLIENT_DISCONNECTED
            except Exception:
                # The outermost edge: an unexpected exception is logged with its trace, and the client gets a 500.
                log.exception("unhandled error")
                record.error = "internal_error"
                if in_flight.is_answered:
                    exchange.abort()  # an incomplete answer must not look complete
                else:
                    failure = error_responses.internal_error(record.request_id)
                    await self._refuse(failure, route, exchange, in_flight, record)
        except asyncio.CancelledError:  # of the request, or of its error's answer
            if not in_flight.was_stopped():
                raise
            record.error = CLIENT_DISCONNECTED
            if (stopped := in_flight.error()) is not None:
                await self._refuse_stopped(stopped, route, exchange, in_flight, record)
        finally:
            exchange.close()
            self._requests_in_flight.leave(in_flight)
            record.status = record.status or CLIENT_CLOSED_REQUEST
            self._access.close(record)

    async def _answer(
        self, route: Route, head: RequestHead, exchange: Exchange, in_flight: RequestInFlight, record: AccessRecord
    ) -> None:
        gateway = self._config.current
        if head.client_id is not None:
            record.client_request_id = printable(head.client_id)
        if not head.principal:
            await self._authenticate(head, record)
        record.key = head.principal.key
        length = head.content_length
        is_streamed = route.body.is_streamed
        streamed_bytes = STREAMED_BYTES + route.body.holds_bytes if is_streamed else length
        self._requests_in_flight.take_place(in_flight, head.principal.key, streamed_bytes, gateway)
        if head.content_encoding:
            content_coding.check(head.content_encoding)
        head.request_id, head.started = record.request_id, record.started
        limit, seconds = self._bounds.current[route]
        body: bytes | BodyStream
        if is_streamed:
            if not content_coding.is_plain(head.content_encoding):
                raise content_coding.unsupported("identity")
            self._requests_in_flight.hold(in_flight, STREAMED_BYTES + route.body.holds_bytes, gateway)
            body = BodyStream(exchange, in_flight, limit=limit, seconds=seconds)
            if length is not None and length > limit:
                await body.refuse()
        else:
            in_flight.deadline = monotonic() + seconds
            if length is None or length > LARGE_BYTES or head.content_encoding:
                body = await self._read_large(head, exchange, in_flight, limit, gateway)
            else:
                body = await exchange.read(limit)
                in_flight.deadline = 0.0
        reply = await route.handler(head, body)
        if is_streamed:
            exchange.watch()
        write_seconds = gateway.client_write_timeout_seconds
        if reply.stream is not None:
            await self._stream(reply, reply.stream, exchange, in_flight, record, write_seconds)
            return
        in_flight.is_only_writing = True
        record.status = reply.status
        in_flight.deadline = monotonic() + write_seconds
        in_flight.is_answered = True
        if len(reply.body) > LARGE_BYTES:
            self._requests_in_flight.count(in_flight, len(reply.body))
        try:
            await exchange.answer(reply.status, [*reply.headers, *record.headers()], reply.body)
        finally:
            if reply.on_end is not None:
                reply.on_end()

    async def _authenticate(self, head: RequestHead, record: AccessRecord) -> None:
        """Raises AuthenticationError, or ServiceUnavailableError for a key that can't be checked now."""
        found = None if self._jobs is None else await self._jobs.authenticate(head.authorization)
        if found is None:
            head.principal = await self._authenticator.authenticate(head.authorization)
        else:
            head.principal, head.job = found
            record.request_id = head.job.request

    async def _stream(
        self,
        reply: Reply,
        stream: Stream,
        exchange: Exchange,
        in_flight: RequestInFlight,
        record: AccessRecord,
        write_seconds: float,
    ) -> None:
        """Piece by piece, as fast as the client reads."""
        record.status = reply.status
        in_flight.is_answered, in_flight.headers = True, reply.headers
        try:
            in_flight.deadline = monotonic() + write_seconds
            await exchange.begin(reply.status, [*reply.headers, *record.headers()])
            in_flight.deadline = 0.0
            in_flight.patience = write_seconds
            await stream.pump(exchange)
        finally:
            await stream.aclose()
            if (failure := getattr(stream, "error", None)) is not None:
                record.error = failure.code or failure.type
        in_flight.is_only_writing = True
        in_flight.deadline = monotonic() + write_seconds
        await exchange.end()

    async def _read_large(
        self, head: RequestHead, exchange: Exchange, in_flight: RequestInFlight, limit: int, gateway: GatewayConfig
    ) -> bytes:
        """Read a body that may be large: it is counted as it arrives."""
        if head.content_length is None or head.content_length > LARGE_BYTES:
            exchange.count = lambda size: self._requests_in_flight.arrive(in_flight, size, gateway)
        body = await exchange.read(limit)
        in_flight.deadline = 0.0
        if head.content_encoding:
            body = await content_coding.decoded(body, head.content_encoding, limit)
        if len(body) > LARGE_BYTES:
            self._requests_in_flight.hold(in_flight, len(body), gateway)
        return body

    async def _refuse(
        self, error: APIError, route: Route, exchange: Exchange, in_flight: RequestInFlight, record: AccessRecord
    ) -> None:
        """Send an error: as a response, or as the last event of a stream that has begun.

        Close the connection instead if the answer that has begun is not an event stream, or its client does not read.
        """
        record.error = error.code or error.type
        if not in_flight.is_answered:
            headers, body = error_responses.encode(error, route.errors.envelope)
            record.status = error.status
            in_flight.is_answered = True
            in_flight.deadline = monotonic() + self.write_seconds
            await exchange.answer(error.status, headers + record.headers(), body)
        elif in_flight.deadline or not _is_event_stream(in_flight.headers):
            exchange.abort()  # the client does not read, or could not tell an error from the answer
        else:
            if not exchange.put(route.errors.event(error)):
                await exchange.room()
            await exchange.end()

    async def _refuse_stopped(
        self, error: APIError, route: Route, exchange: Exchange, in_flight: RequestInFlight, record: AccessRecord
    ) -> None:
        """`_refuse` for a request that was stopped, whose deadline counts no more: it is stopped only once."""
        try:
            async with asyncio.timeout(self.write_seconds):
                await self._refuse(error, route, exchange, in_flight, record)
        except TimeoutError:
            exchange.abort()


def _forwarded(gateway: GatewayConfig) -> frozenset[bytes]:
    """Names of the client's headers that an engine may see, as on the wire."""
    return frozenset(name.encode("ascii") for name in gateway.forward_headers)


def _is_event_stream(headers: tuple[tuple[bytes, bytes], ...]) -> bool:
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)
