"""Calls endpoints with OpenAI's protocol.

`open` returns once the first event, or the whole body, has arrived. A failure until then is a status, and the request
may be sent to another endpoint; a later failure can only be an event in the stream.
"""

import time
from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from quarterdeck.errors import APIError, EngineError
from quarterdeck.inference.call import Operation
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.error_translation import (
    error_of_event,
    error_of_failure,
    error_of_response,
    is_unsupported,
    redacted,
    unsupported_model,
    with_engine_status,
    with_public_name,
)
from quarterdeck.inference.engine.stream import EngineStream
from quarterdeck.net.content_encoding import Decoded, coding_of
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import FOREVER, HttpConnection, Timeouts, UpstreamError
from quarterdeck.protocol.foreign.answers import mend_answer
from quarterdeck.protocol.foreign.conversion import as_answer, as_events
from quarterdeck.protocol.foreign.events import BOM
from quarterdeck.protocol.foreign.expected import Expected, NotAnAnswerError
from quarterdeck.protocol.foreign.streams import ForeignSplitter
from quarterdeck.protocol.retry_delays import delay_of_headers
from quarterdeck.protocol.usage import ParsedAnswer, parse_answer
from quarterdeck.settings.live import Live

JSON = b"application/json"
EVENTS = b"text/event-stream"
LINES = (b"application/x-ndjson", b"application/jsonl", b"application/stream+json", b"application/x-json-stream")
"""Streams of JSON lines."""
MIN_TELLING_BYTES = 16
"""Of a body whose content type says nothing: enough to see whether it is an event stream."""
POOLING_PATHS = (Operation.EMBEDDINGS.path, Operation.SCORE.path, Operation.CLASSIFY.path)
MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of a whole answer. The embeddings of a long list come near it; nothing else does."""
T = TypeVar("T", bound=msgspec.Struct)


class EngineAnswer(msgspec.Struct, eq=False, gc=False):
    """An answer with status 200: either whole (`body`), or a stream whose first events have arrived (`stream`)."""

    content_type: bytes
    body: bytes = b""
    parsed: ParsedAnswer | None = None
    """Of a whole answer."""
    stream: EngineStream | None = None


class EngineClient:
    """Calls endpoints; `timeouts` are the gateway's, which a route may override per call."""

    def __init__(self, client: HttpClient, timeouts: Live[Timeouts]) -> None:
        self._client = client
        self._timeouts = timeouts

    async def open(
        self,
        endpoint: Endpoint,
        path: str,
        body: bytes,
        headers: Sequence[tuple[bytes, bytes]] = (),
        *,
        limit: float = FOREVER,
        timeouts: Timeouts | None = None,
        public_name: tuple[str, str] | None = None,
        is_stream: bool | None = None,
        expected: Expected | None = None,
    ) -> EngineAnswer:
        """Send a request and wait for the first event or the whole body.

        `public_name`: the engine's name of the model, and the one that the answer shows instead. `limit` is the loop's
        time at which the answer must be complete. `is_stream`: what the caller asked for; a whole answer has no first
        token to wait for, as engines send nothing before its end. None: a call of the gateway's own. `expected`:
        what the answer of a server that is not vLLM is mended to.

        Raises EngineUnavailableError where another endpoint may be tried, BadRequestError and the like where the engine
        refuses the request, else EngineError.
        """
        if expected is None and endpoint.spec.kind != "vllm":
            expected = Expected(path, 0 if path == Operation.EMBEDDINGS.path else 1, endpoint.spec.model)
        timeouts = timeouts or self._timeouts.current
        if is_stream is False:
            timeouts = timeouts.whole or timeouts
        origin, head = endpoint.address.origin, _head(endpoint, path, headers, len(body))
        answer = None
        try:
            connection = await self._client.request(origin, head, body, timeouts, limit)
            try:
                answer = await self._read(connection, endpoint, path, public_name, is_stream, expected)
                return answer
            finally:
                if answer is None or answer.stream is None:  # else the stream owns the connection
                    self._client.release(origin, connection)
        except UpstreamError as error:
            raise error_of_failure(error) from error

    async def _read(
        self,
        connection: HttpConnection,
        endpoint: Endpoint,
        path: str,
        public_name: tuple[str, str] | None,
        is_stream: bool | None,
        expected: Expected | None,
    ) -> EngineAnswer:
        """The answer, once the first event or the whole body has arrived. Raises APIError and UpstreamError."""
        source: HttpConnection | Decoded = connection
        encoding = connection.header(b"content-encoding") or connection.header(b"Content-Encoding")
        if encoding is not None and (encoding := coding_of(encoding)) is not None:
            source = Decoded(connection, encoding)
        received = b""
        if not 200 <= connection.status < 300:
            raise _refusal(connection, await source.read_all(MAX_BODY_BYTES), endpoint, path)
        media_type = connection.header(b"content-type", b"").lower()
        # Some servers and proxies name the content wrongly: it decides. vLLM's JSON is JSON.
        if expected is not None or not media_type.startswith(JSON):
            has_events = media_type.startswith(EVENTS)
            if not has_events:
                received = await _beginning(source)
                has_events = _are_events(received) or (bool(received) and media_type.startswith(LINES))
            if has_events:
                stream = self._stream(endpoint, connection, source, expected, public_name)
                await stream.begin(received)
                if is_stream is not False:
                    return EngineAnswer(EVENTS, stream=stream)
                if expected is None:
                    raise with_engine_status(EngineError("The engine answered with a stream."), 200)
                body = await _assembled(stream, expected)
                return EngineAnswer(JSON, body, _checked(body, endpoint))
        if source is connection and connection.done:
            body = connection.take() or b""
        else:
            body = await source.read_all(MAX_BODY_BYTES)
        if received:
            body = received + body
        if public_name is not None:
            body = with_public_name(body, *public_name)
        if expected is not None:
            body = _mended(body, expected)
        answer = EngineAnswer(JSON, body, _checked(body, endpoint))
        if is_stream and answer.parsed is not None and answer.parsed.choices:
            stream = EngineStream(self._client, endpoint, connection)
            stream.first = as_events(body, path)
            return EngineAnswer(EVENTS, stream=stream)
        return answer

    def _stream(
        self,
        endpoint: Endpoint,
        connection: HttpConnection,
        source: HttpConnection | Decoded,
        expected: Expected | None,
        public_name: tuple[str, str] | None,
    ) -> EngineStream:
        if expected is None:
            return EngineStream(self._client, endpoint, connection, public_name, source)
        return EngineStream(self._client, endpoint, connection, None, source, ForeignSplitter(expected))

    async def count(self, endpoint: Endpoint, body: Mapping[str, object]) -> int | None:
        """The number of tokens, by the endpoint's `/tokenize`. None: it doesn't support that, or failed."""
        counted = await self._tokenize(endpoint, body, _Count)
        return counted.count if counted is not None else None

    async def tokenize(self, endpoint: Endpoint, body: Mapping[str, object]) -> list[int] | None:
        """The tokens, by the endpoint's `/tokenize`. None: it doesn't support that, or failed."""
        tokenized = await self._tokenize(endpoint, body, _Tokens)
        return tokenized.tokens if tokenized is not None else None

    async def _tokenize(self, endpoint: Endpoint, body: Mapping[str, object], kind: type[T]) -> T | None:
        if endpoint.spec.kind != "vllm":
            return None
        try:
            answer = await self.open(endpoint, "/tokenize", msgspec.json.encode(body))
            return msgspec.json.decode(answer.body, type=kind)
        except (APIError, msgspec.DecodeError, UnicodeDecodeError):
            return None


class _Count(msgspec.Struct):
    count: int


class _Tokens(msgspec.Struct):
    tokens: list[int]


def _head(endpoint: Endpoint, path: str, headers: Sequence[tuple[bytes, bytes]], length: int) -> bytes:
    """The head of an HTTP request with a body of `length` bytes."""
    address = endpoint.address
    head = address.heads.get(path) or address.head(path)
    for header in headers:
        head += b"%b: %b\r\n" % header
    return head + b"content-length: %d\r\n\r\n" % length


def _refusal(connection: HttpConnection, body: bytes, endpoint: Endpoint, path: str) -> APIError:
    """The error of an answer whose status is not a success."""
    status = connection.status
    if path in POOLING_PATHS and is_unsupported(status, body):
        return unsupported_model(endpoint, path, status)
    delay = delay_of_headers(connection.header, time.time(), is_limit=status == 429)
    return error_of_response(status, redacted(body, endpoint), delay, endpoint.spec)


async def _beginning(source: HttpConnection | Decoded) -> bytes:
    """As much of a body as tells whether it is an event stream."""
    received = source.take() or await source.read()
    while 0 < len(received) < MIN_TELLING_BYTES and (more := await source.read()):
        received += more
    return received


def _are_events(received: bytes) -> bool:
    """Whether a body begins like an event stream."""
    return received[:64].removeprefix(BOM).lstrip().lower().startswith((b"data:", b"event:", b"id:", b"retry:", b":"))


def _mended(body: bytes, expected: Expected) -> bytes:
    """The answer of a server that is not vLLM. Raises EngineError for JSON that is not an answer."""
    try:
        return mend_answer(body, expected)
    except NotAnAnswerError as error:
        raise _unusable(error) from error


async def _assembled(stream: EngineStream, expected: Expected) -> bytes:
    """The whole answer that a stream amounts to. Raises APIError."""
    try:
        return as_answer(await stream.read_all(MAX_BODY_BYTES), expected.path)
    except NotAnAnswerError as error:
        raise _unusable(error) from error


def _unusable(error: NotAnAnswerError) -> APIError:
    return with_engine_status(EngineError(f"The engine's answer can't be used: {error}."), 200)


def _checked(body: bytes, endpoint: Endpoint) -> ParsedAnswer:
    """Parse a whole answer. Raises APIError for a 200 that is not valid JSON or holds an error."""
    try:
        if not body.isascii():
            body.decode()  # the parser doesn't look into members that it skips
        answer = parse_answer(body)
    except UnicodeDecodeError:
        answer = None
    if answer is None:
        raise with_engine_status(EngineError("The engine's answer is not JSON."), 200)
    if answer.error or answer.object == "error":
        raise with_engine_status(error_of_event(redacted(body, endpoint), endpoint.spec), 200)
    return answer
