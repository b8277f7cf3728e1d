"""Calls endpoints for audio and images.

An answer of JSON or text is read whole; audio and events are passed on as they arrive. As for texts (`EngineClient`), a
failure until the first bytes is a status, and another endpoint may be tried.
"""

import time
from collections.abc import Sequence

from quarterdeck.errors import APIError, EngineError, EngineUnavailableError
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.client import EngineAnswer
from quarterdeck.inference.engine.error_translation import (
    error_of_event,
    error_of_failure,
    error_of_response,
    is_unsupported,
    redacted,
    unsupported_model,
    with_engine_status,
)
from quarterdeck.net.content_encoding import Decoded, coding_of
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import HttpConnection, Timeouts, UpstreamError
from quarterdeck.protocol import sse
from quarterdeck.protocol.media_answers import MediaAnswerFacts, read_answer
from quarterdeck.protocol.retry_delays import delay_of_headers
from quarterdeck.settings.live import Live

MAX_WHOLE_BYTES = 128 * 1024 * 1024
"""Of an answer that is read whole: ten images of high resolution in base64."""
MAX_ERROR_BYTES = 1024 * 1024
MAX_EVENT_BYTES = 32 * 1024 * 1024
"""Of one event: an image in base64."""
EVENTS = b"text/event-stream"
_JSON = b"application/json"
_PASSED = (b"audio/", b"application/octet-stream")
"""Content types that are passed on as they arrive. No others, that a browser could run as a page of this origin."""
_TEXTS = (b"text/plain", b"text/vtt", b"application/x-subrip", b"text/srt")


class MediaStream:
    """The body of an answer that has begun. Must be closed."""

    def __init__(self, client: HttpClient, endpoint: Endpoint, connection: HttpConnection, *, is_events: bool) -> None:
        self.endpoint = endpoint
        self.is_events = is_events
        self.first = b""
        """The first bytes, or the first whole events. Set by `begin`."""
        self._client = client
        self._connection = connection
        encoding = connection.header(b"content-encoding") or connection.header(b"Content-Encoding")
        coding = coding_of(encoding) if encoding is not None else None
        self._source: HttpConnection | Decoded = connection if coding is None else Decoded(connection, coding)
        self._splitter = sse.EventSplitter(MAX_EVENT_BYTES) if is_events else None

    async def begin(self) -> None:
        """Raises APIError for an answer that is empty, or has an error among its first events."""
        self.first = await self.read()
        if not self.first:
            error = EngineUnavailableError("The engine's answer is empty.")
            raise with_engine_status(error, 200)
        if self.is_events and (error_data := first_error(self.first)) is not None:
            raise self.error(error_data)

    async def read(self) -> bytes:
        """The next bytes, or the next whole events. b"": the end. Raises APIError."""
        try:
            while piece := await self._source.read():
                whole = piece if self._splitter is None else self._splitter.feed(piece)
                if whole:
                    return whole
        except (UpstreamError, sse.EventTooLongError) as error:
            raise error_of_failure(error) from error
        return self._splitter.finish() if self._splitter is not None else b""

    async def read_all(self) -> bytes:
        """The whole body. Raises UpstreamError."""
        return await self._source.read_all(MAX_WHOLE_BYTES)

    def error(self, data: bytes) -> APIError:
        """Of an error event."""
        return error_of_event(redacted(data, self.endpoint), self.endpoint.spec)

    def close(self) -> None:
        """Before the end of the body it stops the engine. Idempotent."""
        self._client.release(self.endpoint.address.origin, self._connection)


class MediaAnswer(EngineAnswer):
    """An answer with status 200: whole (`body`), or one that has begun (`source`)."""

    source: MediaStream | None = None
    facts: MediaAnswerFacts | None = None
    """Of a whole answer that is JSON."""


class MediaEngines:
    """Calls endpoints; `timeouts` are the gateway's, which a route may override per call."""

    def __init__(self, client: HttpClient, timeouts: Live[Timeouts]) -> None:
        self._client = client
        self._timeouts = timeouts

    async def open(
        self,
        endpoint: Endpoint,
        path: str,
        content_type: bytes,
        body: bytes,
        headers: Sequence[tuple[bytes, bytes]],
        *,
        limit: float,
        timeouts: Timeouts | None,
        is_stream: bool,
    ) -> MediaAnswer:
        """Send a request and wait for the first bytes, or the whole answer. `limit`: the loop's time at which it must
        be complete. `is_stream`: events were asked for; other answers are generated before their first byte.

        Raises as `EngineClient.open`.
        """
        timeouts = timeouts or self._timeouts.current
        if not is_stream and timeouts.whole is not None:
            timeouts = timeouts.whole
        origin, head = endpoint.address.origin, endpoint.address.head_of(path, content_type)
        for header in headers:
            head += b"%b: %b\r\n" % header
        head += b"content-length: %d\r\n\r\n" % len(body)
        answer = None
        try:
            connection = await self._client.request(origin, head, body, timeouts, limit)
            try:
                answer = await self._read(endpoint, connection, path)
                return answer
            finally:
                if answer is None or answer.source is None:  # else the stream owns the connection
                    self._client.release(origin, connection)
        except UpstreamError as error:
            raise error_of_failure(error) from error

    async def _read(self, endpoint: Endpoint, connection: HttpConnection, path: str) -> MediaAnswer:
        media_type = connection.header(b"content-type", b"").split(b";")[0].strip().lower()
        source = MediaStream(self._client, endpoint, connection, is_events=media_type == EVENTS)
        status = connection.status
        if not 200 <= status < 300:
            raise _refusal(connection, source, path, await source.read_all())
        if source.is_events or media_type.startswith(_PASSED):
            await source.begin()
            return MediaAnswer(sse.CONTENT_TYPE if source.is_events else media_type, source=source)
        body = await source.read_all()
        if media_type in _TEXTS:
            return MediaAnswer(media_type + b"; charset=utf-8", body)
        return MediaAnswer(_JSON, body, facts=_checked(body, source))


def first_error(whole: bytes) -> bytes | None:
    """The data of the first of these events that is an error. None: none is."""
    if not sse.may_hold_error(whole):
        return None
    for event in sse.events(whole):
        if sse.may_hold_error(event) and _is_error(data := sse.data(event)):
            return data
    return None


def _is_error(data: bytes) -> bool:
    try:
        return read_answer(data).is_error
    except ValueError:
        return False


def _refusal(connection: HttpConnection, source: MediaStream, path: str, body: bytes) -> APIError:
    status, endpoint = connection.status, source.endpoint
    if is_unsupported(status, body):
        return unsupported_model(endpoint, path, status)
    delay = delay_of_headers(connection.header, time.time(), is_limit=status == 429)
    return error_of_response(status, redacted(body[:MAX_ERROR_BYTES], endpoint), delay, endpoint.spec)


def _checked(body: bytes, source: MediaStream) -> MediaAnswerFacts:
    """Raises APIError for a 200 that is not valid JSON, or holds an error."""
    try:
        facts = read_answer(body)
    except ValueError:
        raise with_engine_status(EngineError("The engine's answer is not JSON."), 200) from None
    if facts.is_error:
        raise with_engine_status(source.error(body), 200)
    return facts
