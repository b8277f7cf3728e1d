"""Calls an endpoint and says in our words what went wrong.

`open` returns once the first event (or the whole body) is in hand, so that a failure before it is a real status and the
request may be tried elsewhere; after it, a failure is an event in the stream.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import msgspec

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    NotFoundError,
    RateLimitError,
)
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.net.http_client import FOREVER, Connection, HttpClient, Timeouts, UpstreamError
from quarterdeck.protocol import sse
from quarterdeck.protocol.usage import ParsedAnswer, parse_answer
from quarterdeck.settings.live import Live

MAX_BODY_BYTES = 64 * 1024 * 1024
"""The largest whole answer: embeddings of a long list come near it, nothing else does."""
MAX_MESSAGE = 2000
MAX_PARAM = 200
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""What an engine may call a cause: it becomes a metric's label and stands in the ledger."""
T = TypeVar("T", bound=msgspec.Struct)


class EngineAnswer(msgspec.Struct, eq=False, gc=False):
    """An answer with status 200: whole (`body`), or a stream whose first events are in hand."""

    content_type: bytes
    body: bytes = b""
    parsed: ParsedAnswer | None = None
    """What is read of a whole one, where it is JSON."""
    stream: "EngineStream | None" = None


class EngineStream:
    """Whole events as the engine sends them. Close it, read to its end or not."""

    __slots__ = ("_client", "_connection", "_endpoint", "_is_closed", "_splitter", "first")

    def __init__(self, client: HttpClient, endpoint: Endpoint, connection: Connection) -> None:
        self._client = client
        self._endpoint = endpoint
        self._connection = connection
        self._splitter = sse.EventSplitter()
        self._is_closed = False
        self.first = b""

    async def read(self) -> bytes:
        """The next whole events, as many as there are; b"" at the end. Raises EngineError where it breaks off."""
        try:
            while piece := await self._connection.read():
                if whole := self._splitter.feed(piece):
                    return whole
        except (UpstreamError, sse.EventTooLongError) as error:
            raise _translate(error) from error
        return self._last()

    def take(self) -> bytes | None:
        """The same without waiting; None: nothing whole has come yet."""
        try:
            while piece := self._connection.take():
                if whole := self._splitter.feed(piece):
                    return whole
        except (UpstreamError, sse.EventTooLongError) as error:
            raise _translate(error) from error
        return None if piece is None else self._last()

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Have it called at once, whatever comes; None: no longer. It must not raise."""
        if not self._is_closed:
            self._connection.listener = listener

    def error(self, data: bytes) -> APIError:
        """What an error event of this stream says, as ours."""
        return stream_error(_without_key(data, self._endpoint))

    @property
    def is_complete(self) -> bool:
        """The body has come to its end, and the connection can be kept."""
        return self._connection.done

    def _last(self) -> bytes:
        # The last blank line is what some servers leave out; of anything else that is not whole nothing is made.
        return self._splitter.feed(b"\n\n") if self._splitter.rest.strip() == sse.DONE.strip() else b""

    def close(self) -> None:
        """Give the connection back; an engine that is still generating sees it go and stops. Repeatable: by then the
        connection may be another's."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.listener = None
            self._client.release(self._endpoint.address.origin, self._connection)


class EngineClient:
    """Speaks OpenAI's protocol to endpoints."""

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
    ) -> EngineAnswer:
        """Send the request, wait for the first event or the whole body. `limit` is the loop's time at which the answer
        must be complete; `timeouts` are this request's own.

        Raises EngineUnavailableError where another endpoint may be tried, BadRequestError and its like where the
        request itself is refused, EngineError otherwise.
        """
        head = endpoint.address.heads.get(path) or endpoint.address.head(path)
        for header in headers:
            head += b"%b: %b\r\n" % header
        head += b"content-length: %d\r\n\r\n" % len(body)
        timeouts = timeouts or self._timeouts.current
        try:
            connection = await self._client.request(endpoint.address.origin, head, body, timeouts, limit)
        except UpstreamError as error:
            raise _translate(error) from error
        stream = None
        try:
            content_type = connection.header(b"content-type") or b"application/json"
            kind = content_type.lower()
            if connection.status == 200 and kind.startswith(b"text/event-stream"):
                stream = EngineStream(self._client, endpoint, connection)
                stream.first = stream.take() or await stream.read()
                _refuse_no_stream(stream)
                return EngineAnswer(content_type, stream=stream)
            body = connection.take() or b"" if connection.done else await connection.read_all(MAX_BODY_BYTES)
            if connection.status != 200:
                raise refusal(connection.status, _without_key(body, endpoint), connection.header(b"retry-after"))
            return EngineAnswer(content_type, body, _sound(body, kind, endpoint))
        except UpstreamError as error:
            raise _translate(error) from error
        except BaseException:  # nobody will close a stream that was never handed out: it is given back below
            stream = None
            raise
        finally:
            if stream is None:
                self._client.release(endpoint.address.origin, connection)

    async def count(self, endpoint: Endpoint, body: Mapping[str, object]) -> int | None:
        """How many tokens `/tokenize` counts; None where the endpoint can't say."""
        counted = await self._tokenized(endpoint, body, _Count)
        return counted.count if counted is not None else None

    async def tokenize(self, endpoint: Endpoint, body: Mapping[str, object]) -> list[int] | None:
        """The tokens themselves; None where the endpoint can't say."""
        tokenized = await self._tokenized(endpoint, body, _Tokens)
        return tokenized.tokens if tokenized is not None else None

    async def _tokenized(self, endpoint: Endpoint, body: Mapping[str, object], kind: type[T]) -> T | None:
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


class _Error(msgspec.Struct):
    message: str | None = None
    param: object = None
    code: object = None


class _ErrorBody(msgspec.Struct):
    """OpenAI's and vLLM's shape; `{"error": "words"}`; FastAPI's `detail`; the flat shape of older engines."""

    error: _Error | str | None = None
    message: str | None = None
    detail: object = None
    param: object = None
    code: object = None


def _refuse_no_stream(stream: EngineStream) -> None:
    """Nothing, or nothing but an error, is no stream yet."""
    first = stream.first
    if not first:
        raise _told(EngineUnavailableError("The engine ended the stream before its first event."), 200)
    event = first[: first.find(b"\n\n") + 2]
    if event.endswith(b"}\n\n") and b'"error"' not in event:
        return
    if sse.may_hold_garbage(event) and sse.garbage_at(event) == 0:
        raise _told(EngineError("The engine's stream is broken: its first event is not JSON."), 200)
    if sse.may_hold_error(event):
        chunk = sse.parse(event)
        if chunk and chunk.get("error"):
            raise _told(stream.error(sse.data(event)), 200)


def refusal(status: int, body: bytes, retry_after: bytes | None = None) -> APIError:
    """An engine's error answer as ours: OpenAI's type and code, vLLM's and Ray's words where they help the caller."""
    error = _read_error(body)
    message = (error.message or "")[:MAX_MESSAGE] or f"The engine answered with status {status}."
    is_word = isinstance(error.code, str) and not error.code.isdecimal() and _CODE.fullmatch(error.code)
    code = str(error.code) if is_word else None
    param = error.param[:MAX_PARAM] if isinstance(error.param, str) else None
    own = retry_after.decode("latin-1") if retry_after else None
    return _told(_refusal(status, message, code, param, own), status)


def _refusal(status: int, message: str, code: str | None, param: str | None, retry_after: str | None) -> APIError:
    if status == 429:
        return RateLimitError(message, code=code or "engine_overloaded", retry_after=retry_after)
    if status == 404:
        return NotFoundError(message, param=param, code=code or "model_not_found")
    if status in (400, 413, 422):
        return BadRequestError(message, param=param, code=code or _code_of(message))
    if status in (408, 504):
        return EngineTimeoutError(message)
    if status == 503:
        return EngineUnavailableError(message, retry_after=retry_after)
    # A 401 or 403 here means that *our* key is refused over there: nothing the caller could mend, and its words may
    # hold a piece of the key.
    return EngineError(f"The engine answered with status {status}." if status in (401, 403) else message)


def stream_error(data: bytes) -> APIError:
    """An error that the engine sent inside a 200. Its number decides whose fault it is."""
    code = _read_error(data).code
    status = int(code) if isinstance(code, (int, str)) and str(code).isdecimal() else 500
    return refusal(status if 400 <= status < 600 else 500, data)


def _read_error(body: bytes) -> _Error:
    try:
        found = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _Error(body[:MAX_MESSAGE].decode("utf-8", "replace"))
    if isinstance(found.error, _Error):
        return found.error
    return _Error(found.error or found.message or _words(found.detail), found.param, found.code)


def _words(detail: object) -> str:
    """FastAPI's `detail`: words, or a list of what is wrong where."""
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    found = [item for item in detail if isinstance(item, dict) and isinstance(item.get("msg"), str)]
    return "; ".join(f"{'.'.join(map(str, item.get('loc', ())))}: {item['msg']}" for item in found)


def _told(error: APIError, status: int) -> APIError:
    error.engine_status = status
    return error


def _code_of(message: str) -> str | None:
    """OpenAI's code for what vLLM says in words only."""
    words = message.lower()
    if "maximum context length" in words or "max_model_len" in words or "maximum model length" in words:
        return "context_length_exceeded"
    return None


def _translate(error: UpstreamError | sse.EventTooLongError) -> APIError:
    if isinstance(error, sse.EventTooLongError):
        return _told(EngineError(f"The engine's stream is broken: {error}."), 200)
    message = f"The model's engine failed: {error}."
    if error.over:
        return _told(EngineTimeoutError("The request took too long.", code="request_timeout"), error.status)
    if error.timed_out:
        return _told(EngineTimeoutError(message), error.status)
    return _told(EngineError(message) if error.answered else EngineUnavailableError(message), error.status)


def _without_key(data: bytes, endpoint: Endpoint) -> bytes:
    """An engine's complaint without our key for it: some repeat what they were sent."""
    return data.replace(endpoint.spec.api_key.encode(), b"[redacted]") if endpoint.spec.api_key else data


def _sound(body: bytes, kind: bytes, endpoint: Endpoint) -> ParsedAnswer | None:
    """Refuse to pass on a 200 whose JSON is none, or is an error. None: it does not say that it is JSON."""
    if not kind.startswith(b"application/json"):
        return None
    try:
        if not body.isascii():
            body.decode()  # what is skipped over is not looked into
        answer = parse_answer(body)
    except UnicodeDecodeError:
        answer = None
    if answer is None:
        raise _told(EngineError("The engine's answer is not JSON."), 200)
    if answer.error or answer.object == "error":
        raise _told(stream_error(_without_key(body, endpoint)), 200)
    return answer
