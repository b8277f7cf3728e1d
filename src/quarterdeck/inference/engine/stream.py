"""An engine's event stream: whole server-sent events from a connection, with the engine's failures translated."""

from collections.abc import Callable

from quarterdeck.errors import APIError, EngineError, EngineUnavailableError
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.inference.engine.error_translation import (
    error_of_event,
    error_of_failure,
    redacted,
    with_engine_status,
    with_public_name,
)
from quarterdeck.net.content_encoding import Decoded
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import HttpConnection, UpstreamError
from quarterdeck.protocol import sse
from quarterdeck.protocol.error_bodies import is_error
from quarterdeck.protocol.foreign.streams import ForeignSplitter


class EngineStream:
    """Must be closed, whether it was read to its end or not. `public_name` as in `EngineClient.open`."""

    __slots__ = (
        "_client",
        "_connection",
        "_endpoint",
        "_is_closed",
        "_public_name",
        "_source",
        "_splitter",
        "first",
    )

    def __init__(
        self,
        client: HttpClient,
        endpoint: Endpoint,
        connection: HttpConnection,
        public_name: tuple[str, str] | None = None,
        source: HttpConnection | Decoded | None = None,
        splitter: sse.EventSplitter | ForeignSplitter | None = None,
    ) -> None:
        """`source`: what the body is read from, if it is compressed. `splitter`: of a server that is not vLLM."""
        self._client = client
        self._endpoint = endpoint
        self._connection = connection
        self._source = source or connection
        self._splitter = splitter or sse.EventSplitter()
        self._is_closed = False
        self._public_name = public_name
        self.first = b""
        """The first events; set by `EngineClient.open`."""

    async def begin(self, head: bytes = b"") -> None:
        """Wait for the first event. Comments are none: they say that the server is alive, not that it answers.

        `head`: what has been read already. Raises APIError if there is no event, or it is an error or not JSON.
        """
        first = self._splitter.feed(head) if head else b""
        if first and self._public_name is not None:
            first = with_public_name(first, *self._public_name)
        first = first or self.take() or await self.read()
        while first and not sse.first_object(first):
            first = await self.read()
        self.first = first
        self.check_first()

    def check_first(self) -> None:
        """Raises APIError if there are no first events, or the first one is an error or not JSON."""
        first = self.first
        if not first:
            error = EngineUnavailableError("The engine ended the stream before its first event.")
            raise with_engine_status(error, 200)
        event = sse.first_object(first)
        if event.endswith(b"}\n\n") and b'"error"' not in event:
            return
        if sse.may_hold_garbage(event) and sse.garbage_at(event) == 0:
            raise with_engine_status(EngineError("The engine's stream is broken: its first event is not JSON."), 200)
        if sse.may_hold_error(event):
            chunk = sse.parse(event)
            if chunk and is_error(chunk):
                raise with_engine_status(self.error(sse.data(event)), 200)

    async def read(self) -> bytes:
        """Wait for the next whole events and return all that have arrived; b"" at the end. Raises EngineError."""
        try:
            while piece := await self._source.read():
                if whole := self._splitter.feed(piece):
                    return whole if self._public_name is None else with_public_name(whole, *self._public_name)
        except (UpstreamError, sse.EventTooLongError) as error:
            return self._completed(error)
        return self._splitter.finish()

    async def read_all(self, limit: int) -> bytes:
        """All events, once the stream has begun. Raises APIError, also if they exceed `limit` bytes."""
        pieces, size = [self.first], len(self.first)
        while piece := await self.read():
            pieces.append(piece)
            if (size := size + len(piece)) > limit:
                error = EngineError(f"The engine's answer exceeds {limit} bytes.")
                raise with_engine_status(error, 200)
        return b"".join(pieces)

    def take(self) -> bytes | None:
        """`read` without waiting. None: no whole event has arrived. Raises EngineError."""
        try:
            while piece := self._source.take():
                if whole := self._splitter.feed(piece):
                    return whole if self._public_name is None else with_public_name(whole, *self._public_name)
        except (UpstreamError, sse.EventTooLongError) as error:
            return self._completed(error)
        return None if piece is None else self._splitter.finish()

    def _completed(self, error: UpstreamError | sse.EventTooLongError) -> bytes:
        """The end of an answer whose connection is lost after its last word, as some servers don't close it properly.
        Raises APIError where more was to come."""
        if self._splitter.is_finished and (last := self._splitter.finish()):
            return last
        raise error_of_failure(error) from error

    def listen(self, listener: Callable[[], None] | None) -> None:
        """Call `listener` as soon as anything arrives, until it is replaced by None. It must not raise."""
        if not self._is_closed:
            self._connection.listener = listener

    def error(self, data: bytes) -> APIError:
        """The error for the data of an error event in this stream."""
        return error_of_event(redacted(data, self._endpoint), self._endpoint.spec)

    @property
    def is_complete(self) -> bool:
        """Whether the response has been received to its end, so that the connection can be reused."""
        return self._connection.done

    def close(self) -> None:
        """Release the connection. If the response is incomplete the connection is closed, and the engine stops
        generating. Idempotent: after the first call the connection may serve another request."""
        if not self._is_closed:
            self._is_closed = True
            self._connection.listener = None
            self._client.release(self._endpoint.address.origin, self._connection)
