"""Calls endpoints with OpenAI's protocol.

`open` returns once the first event, or the whole body, has arrived. A failure until then is a status, and the request
may be sent to another endpoint; a later failure can only be an event in the stream.
"""

from collections.abc import Mapping, Sequence
from typing import TypeVar

import msgspec

from quarterdeck.errors import APIError, EngineError
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.error_translation import (
    error_of_event,
    error_of_failure,
    error_of_response,
    redacted,
    with_engine_status,
    with_public_name,
)
from quarterdeck.inference.engine.stream import EngineStream
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import FOREVER, Timeouts, UpstreamError
from quarterdeck.protocol.usage import ParsedAnswer, parse_answer
from quarterdeck.settings.live import Live

MAX_BODY_BYTES = 64 * 1024 * 1024
"""Of a whole answer. The embeddings of a long list come near it; nothing else does."""
T = TypeVar("T", bound=msgspec.Struct)


class EngineAnswer(msgspec.Struct, eq=False, gc=False):
    """An answer with status 200: either whole (`body`), or a stream whose first events have arrived (`stream`)."""

    content_type: bytes
    body: bytes = b""
    parsed: ParsedAnswer | None = None
    """Of a whole JSON answer."""
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
    ) -> EngineAnswer:
        """Send a request and wait for the first event or the whole body.

        `public_name`: the engine's name of the model, and the one that the answer shows instead. `limit` is the loop's
        time at which the answer must be complete. Raises EngineUnavailableError where another endpoint may be tried,
        BadRequestError and the like where the engine refuses the request, else EngineError.
        """
        address = endpoint.address
        head = address.heads.get(path) or address.head(path)
        for header in headers:
            head += b"%b: %b\r\n" % header
        head += b"content-length: %d\r\n\r\n" % len(body)
        timeouts = timeouts or self._timeouts.current
        try:
            connection = await self._client.request(address.origin, head, body, timeouts, limit)
        except UpstreamError as error:
            raise error_of_failure(error) from error
        stream = None
        try:
            content_type = connection.header(b"content-type") or b"application/json"
            media_type = content_type.lower()
            if connection.status == 200 and media_type.startswith(b"text/event-stream"):
                stream = EngineStream(self._client, endpoint, connection, public_name)
                stream.first = stream.take() or await stream.read()
                stream.check_first()
                return EngineAnswer(content_type, stream=stream)
            body = connection.take() or b"" if connection.done else await connection.read_all(MAX_BODY_BYTES)
            if connection.status != 200:
                retry_after = connection.header(b"retry-after")
                raise error_of_response(connection.status, redacted(body, endpoint), retry_after)
            if public_name is not None:
                body = with_public_name(body, *public_name)
            return EngineAnswer(content_type, body, _checked(body, media_type, endpoint))
        except UpstreamError as error:
            raise error_of_failure(error) from error
        except BaseException:  # the stream is not returned, so its connection is released below
            stream = None
            raise
        finally:
            if stream is None:
                self._client.release(address.origin, connection)

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


def _checked(body: bytes, media_type: bytes, endpoint: Endpoint) -> ParsedAnswer | None:
    """Parse a whole answer. None: its media type is not JSON. Raises APIError for a 200 that is not valid JSON or holds
    an error."""
    if not media_type.startswith(b"application/json"):
        return None
    try:
        if not body.isascii():
            body.decode()  # the parser doesn't look into members that it skips
        answer = parse_answer(body)
    except UnicodeDecodeError:
        answer = None
    if answer is None:
        raise with_engine_status(EngineError("The engine's answer is not JSON."), 200)
    if answer.error or answer.object == "error":
        raise with_engine_status(error_of_event(redacted(body, endpoint)), 200)
    return answer
