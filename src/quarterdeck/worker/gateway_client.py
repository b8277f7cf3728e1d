"""Calls the gateway for a job: an ordinary request over HTTP, with a job credential instead of a key.

So limits, budgets, routing, metering and the policy for contents are applied by the gateway, as to any request.
"""

import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import HttpConnection, Timeouts, UpstreamError
from quarterdeck.net.http_origin import Origin, request_head
from quarterdeck.protocol.job_credentials import SECONDS, JobClaims, sign
from quarterdeck.store.jobs import Job
from quarterdeck.store.platform_secrets import PlatformSecret

CONNECT_SECONDS = 5.0
MAX_ANSWER_BYTES = 64 * 1024 * 1024
SHUTTING_DOWN = "shutting_down"
"""The error code of a gateway that ends. It is no answer: what it has cut off is sent to another with the same request
id, and charged once."""


class GatewayUnavailableError(Exception):
    """The gateway could not be reached, or its answer was cut off. Whether it has carried out the request is not known:
    it is to be repeated with the same request id. `was_sent`: it may have begun with it."""

    def __init__(self, message: str, *, was_sent: bool = False) -> None:
        super().__init__(message)
        self.was_sent = was_sent


class AnswerTooLargeError(Exception):
    """An answer has more than MAX_ANSWER_BYTES."""


@dataclass(frozen=True, slots=True)
class GatewayAnswer:
    """A complete answer, whatever its status."""

    status: int
    body: bytes
    retry_after: float | None = None
    """Seconds."""
    headers: dict[str, str] = field(default_factory=dict)
    """x-request-id and content-type."""


class GatewayClient:
    """`url` is the gateway's, or its Service's. `tls`: for https; None: the system's authorities."""

    def __init__(
        self,
        url: str,
        secret: PlatformSecret,
        *,
        tls: ssl.SSLContext | None = None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._origin = Origin.parse(url, proxy="never")
        self._secret = secret
        self._client = HttpClient(tls=tls)
        self._wall = wall

    def claims(self, job: Job, request: str, *, priority: int | None = None, response: str | None = None) -> JobClaims:
        """`request`: the request's id; a step that is repeated has the same (`ids.step_request_id`)."""
        return JobClaims(job.key, job.org, job.id, request, self._wall() + SECONDS, response, job.attempts, priority)

    async def post(self, path: str, body: bytes, claims: JobClaims, *, timeout: float) -> GatewayAnswer:
        """Send a request and read its whole answer. `timeout`: seconds for all of it.

        Raises GatewayUnavailableError, AnswerTooLargeError, and DatabaseUnavailableError before the platform's secret
        was read.
        """
        timeouts = Timeouts(CONNECT_SECONDS, timeout, timeout)
        async with self._answer(path, body, claims, timeouts) as connection:
            pieces, size = [], 0
            while piece := await connection.read():
                pieces.append(piece)
                if (size := size + len(piece)) > MAX_ANSWER_BYTES:
                    raise AnswerTooLargeError(f"The answer has more than {MAX_ANSWER_BYTES // 1024**2} MiB.")
            return _answer_of(connection, b"".join(pieces))

    @asynccontextmanager
    async def stream(
        self, path: str, body: bytes, claims: JobClaims, *, idle_seconds: float
    ) -> AsyncIterator["GatewayStream"]:
        """Send a request whose answer is read as it arrives. Leaving the block before its end closes the connection,
        which stops the request. Raises as `post`."""
        timeouts = Timeouts(CONNECT_SECONDS, idle_seconds, idle_seconds)
        async with self._answer(path, body, claims, timeouts) as connection:
            yield GatewayStream(connection)

    async def close(self) -> None:
        await self._client.close()

    @asynccontextmanager
    async def _answer(
        self, path: str, body: bytes, claims: JobClaims, timeouts: Timeouts
    ) -> AsyncIterator[HttpConnection]:
        token = sign(claims, await self._secret.read())
        headers = (
            (b"authorization", b"Bearer " + token.encode()),
            (b"content-type", b"application/json"),
            (b"content-length", str(len(body)).encode()),
            (b"user-agent", b"quarterdeck-worker"),
        )
        head = request_head("POST", self._origin, path, headers) + b"\r\n"
        try:
            connection = await self._client.request(self._origin, head, body, timeouts)
            try:
                yield connection
            finally:
                self._client.release(self._origin, connection)
        except UpstreamError as error:
            raise GatewayUnavailableError(f"the gateway can't be reached: {error}", was_sent=error.sent) from error


class GatewayStream:
    """An answer that is read as it arrives."""

    def __init__(self, connection: HttpConnection) -> None:
        self._connection = connection
        self.status = connection.status

    async def pieces(self) -> AsyncIterator[bytes]:
        while piece := await self._connection.read():
            yield piece

    async def whole(self) -> GatewayAnswer:
        """The answer where it is no stream: an error, mostly."""
        return _answer_of(self._connection, await self._connection.read_all(MAX_ANSWER_BYTES))


def unverified() -> ssl.SSLContext:
    """For a gateway on this machine: its certificate has a public name, and nothing leaves the machine."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class _Error(msgspec.Struct):
    message: str = ""
    code: str | None = None


class _Envelope(msgspec.Struct):
    error: _Error | None = None


def error_of(answer: GatewayAnswer) -> tuple[str, str | None]:
    """Message and code of an answer that is an error."""
    try:
        found = msgspec.json.decode(answer.body, type=_Envelope).error
    except (msgspec.MsgspecError, UnicodeDecodeError):
        found = None
    return (f"HTTP {answer.status}", None) if found is None else (found.message or f"HTTP {answer.status}", found.code)


def _answer_of(connection: HttpConnection, body: bytes) -> GatewayAnswer:
    retry_after = (connection.header(b"retry-after") or b"").strip()
    headers = {
        name: value.decode("latin-1")
        for name in ("x-request-id", "content-type")
        if (value := connection.header(name.encode())) is not None
    }
    seconds = float(retry_after) if retry_after.isdigit() and len(retry_after) < 7 else None
    return GatewayAnswer(connection.status, body, seconds, headers)
