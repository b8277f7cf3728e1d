"""Reads the chat completion of one turn: its chunks, or its whole answer, as events of the response."""

from collections.abc import Callable

import msgspec

from quarterdeck.errors import APIError, EngineError
from quarterdeck.inference.call import Sink
from quarterdeck.protocol import sse
from quarterdeck.protocol.usage import Usage
from quarterdeck.resources.responses.deltas import Chunk, Step, decode_chunk, finish_reason_of, steps_of, usage_of
from quarterdeck.resources.responses.event_mapper import EventMapper


class ChatReader:
    """Turns whole events of a chat completion's stream into events of a response, in whatever pieces they come."""

    def __init__(
        self,
        mapper: EventMapper,
        start: Callable[[], bytes] | None = None,
        route: Callable[[list[Step]], list[Step]] | None = None,
    ) -> None:
        """`start` makes the response's first events. `route` makes the steps of tools that the platform executes of the
        engine's calls."""
        self.mapper = mapper
        self._start_response = start or mapper.start
        self.is_done = False
        """The stream came to its end."""
        self.failure: APIError | None = None
        self.finish_reason: str | None = None
        self.usage: Usage | None = None
        self._route = route

    def read(self, whole: bytes) -> bytes:
        """Comments pass: they keep the connection open while the model has not begun."""
        events = b""
        for event in sse.events(whole):
            data = sse.data(event)
            if not data:
                events += event
            elif data == b"[DONE]":
                self.is_done = True
            elif self.failure is None:
                events += self._chunk(data)
        return events

    def read_answer(self, body: bytes) -> bytes:
        """A whole chat completion. Raises EngineError."""
        events = self._chunk(body)
        if self.failure is not None:
            raise self.failure
        self.is_done = True
        return events

    def finish(self, failure: APIError | None = None) -> bytes:
        """The engine's answer has ended. `failure`: what the stream itself says of its end."""
        self.failure = failure or self.failure
        if self.failure is None and not self.is_done:
            self.failure = EngineError("The engine ended the stream before it was complete.")
        return self._start("")

    def end(self, now: float, failure: APIError | None = None) -> bytes:
        """The events before the last one, of a response of one answer."""
        events = self.finish(failure)
        if self.failure is None:
            return events + self.mapper.conclude(self.finish_reason, self.usage, now)
        return events + self.mapper.fail(self.failure)

    def _chunk(self, data: bytes) -> bytes:
        try:
            chunk = decode_chunk(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.failure = EngineError("The engine's answer is not a chat completion.")
            return b""
        if chunk.error is not None:
            self.failure = _error_of(chunk)
            return b""
        events = self._start(chunk.model)
        self.finish_reason = finish_reason_of(chunk) or self.finish_reason
        self.usage = usage_of(chunk) or self.usage
        steps = steps_of(chunk)
        return events + self.mapper.feed(steps if self._route is None else self._route(steps))

    def _start(self, model: str) -> bytes:
        if self.mapper.has_started:
            return b""
        if model:
            self.mapper.response["model"] = model
        return self._start_response()


class ChatSink:
    """The sink of a chat completion's stream."""

    def __init__(self, reader: ChatReader, sink: Sink) -> None:
        self._reader = reader
        self._sink = sink

    def put(self, piece: bytes) -> bool:
        events = self._reader.read(piece)
        return self._sink.put(events) if events else True

    async def room(self) -> None:
        await self._sink.room()


class Collected:
    """A sink that keeps the events."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    @property
    def whole(self) -> bytes:
        return b"".join(self._pieces)

    def put(self, piece: bytes) -> bool:
        self._pieces.append(piece)
        return True

    async def room(self) -> None: ...


def _error_of(chunk: Chunk) -> APIError:
    found = chunk.error if isinstance(chunk.error, dict) else {}
    message, code = found.get("message"), found.get("code")
    return EngineError(
        message if isinstance(message, str) else "The engine failed.", code=code if isinstance(code, str) else None
    )
