"""What stands before every route that FastAPI serves. Plain ASGI, so that a stream stays a stream.

* `Door`: request id, log line, count; the last place where an error becomes an answer.
* `DefaultDeny`: no route is reached without a key, known or not, except three that say how the process is.
* `WholeBody`: a body is bounded in size and time: FastAPI reads any, before it asks whether the route may be used.

Nothing here reads the Host header or anything made of it; `scope["path"]` is the one word for where a request goes.
"""

import asyncio
import logging
from typing import Protocol

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import APIError, RequestTimeoutError
from quarterdeck.gateway.http import responses
from quarterdeck.gateway.http.access_log import AccessLog, Exchange, printable
from quarterdeck.inference.call import CLIENT_CLOSED_REQUEST
from quarterdeck.net.asgi import (
    ASGIApp,
    ClientGoneError,
    Message,
    Receive,
    Scope,
    Send,
    read_body,
    send_response,
)

log = logging.getLogger(__name__)

PUBLIC = frozenset({"/healthz", "/readyz", "/metrics"})
"""For probes and scrapers. They tell of the process, its models' names and its counters; nothing of a caller."""

MAX_BODY_BYTES = 1024 * 1024
"""Of a request to FastAPI's routes: objects of the admin API, the largest of which name a thousand models."""
BODY_SECONDS = 30.0

EXCHANGE = "quarterdeck.exchange"
PRINCIPAL = "quarterdeck.principal"
"""Where they stand in the scope."""


class Authenticates(Protocol):
    """What is needed of `auth.Authenticator`."""

    async def authenticate(self, authorization: bytes | None) -> Principal: ...

    def known(self, authorization: bytes | None) -> Principal | None: ...


class Door:
    """Outermost: an exchange for each request, an envelope for each error."""

    def __init__(self, app: ASGIApp, access: AccessLog) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await self._serve(scope, receive, send)
        # A websocket is nobody's business here; uvicorn is told not to take one.

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange = self._access.open(scope["method"], scope["path"])
        scope[EXCHANGE] = exchange
        for name, value in scope["headers"]:
            if name == b"x-client-request-id":
                exchange.client_request_id = printable(value)
        sender = _Sender(send, exchange)
        try:
            await self._app(scope, receive, sender.send)
        except APIError as error:
            await _answer(sender, error)
        except Exception:
            # The door: whatever nobody below expected is logged with its trace and told as a 500.
            log.exception("unhandled error")
            if exchange.status:
                raise  # the answer has begun; uvicorn cuts the connection, so that nobody takes it for whole
            await _answer(sender, responses.unhandled(exchange.request_id))
        finally:
            route = scope.get("route")
            exchange.route = getattr(route, "path", exchange.route)
            exchange.status = exchange.status or CLIENT_CLOSED_REQUEST
            self._access.close(exchange)


class _Sender:
    """Notes the status and adds the headers of every answer."""

    def __init__(self, send: Send, exchange: Exchange) -> None:
        self._send = send
        self._exchange = exchange

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._exchange.status = message["status"]
            message["headers"] = [*message.get("headers", ()), *self._exchange.headers()]
        await self._send(message)


class DefaultDeny:
    """Before routing, so that a path that does not exist is refused as one that does."""

    def __init__(self, app: ASGIApp, authenticator: Authenticates) -> None:
        self._app = app
        self._authenticator = authenticator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in PUBLIC:
            principal = await self._authenticator.authenticate(authorization(scope["headers"]))
            scope[PRINCIPAL] = principal
            scope[EXCHANGE].key = principal.key
        await self._app(scope, receive, send)


class WholeBody:
    """Behind the key: a stranger's body is not read at all."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        said = next((value for name, value in scope["headers"] if name == b"content-length"), b"")
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await read_body(receive, MAX_BODY_BYTES, int(said) if said.isdigit() else None)
        except TimeoutError:
            headers = {"connection": "close"}
            raise RequestTimeoutError("The request's body did not come in time.", headers=headers) from None
        except ClientGoneError:
            return
        messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Message:
            return messages.pop() if messages else await receive()

        await self._app(scope, replay, send)


def authorization(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The one Authorization header. Two of them are none: a proxy before us may have read the other."""
    found = [value for name, value in headers if name == b"authorization"]
    return found[0] if len(found) == 1 else None


async def _answer(sender: _Sender, error: APIError) -> None:
    headers, body = responses.encode(error)
    await send_response(sender.send, error.status, body, headers)
