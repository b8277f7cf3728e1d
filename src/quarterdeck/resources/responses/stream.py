"""A response as a stream of events, made of the stream of its chat completion."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec

from quarterdeck.errors import APIError, EngineError
from quarterdeck.inference.call import Sink, Stream
from quarterdeck.net.tasks import Spawn
from quarterdeck.protocol import sse
from quarterdeck.protocol.usage import Usage
from quarterdeck.resources.responses.deltas import Chunk, decode_chunk, finish_reason_of, steps_of, usage_of
from quarterdeck.resources.responses.event_mapper import EventMapper


class ChatReader:
    """Turns whole events of a chat completion's stream into events of a response, in whatever pieces they come."""

    def __init__(self, mapper: EventMapper) -> None:
        self.mapper = mapper
        self.is_done = False
        """The stream came to its end."""
        self.failure: APIError | None = None
        self._has_started = False
        self._finish_reason: str | None = None
        self._usage: Usage | None = None

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

    def end(self, now: float, failure: APIError | None = None) -> bytes:
        """The events before the last one. `failure`: what the stream itself says of its end."""
        events = self._start("")
        failure = failure or self.failure
        if failure is None and not self.is_done:
            failure = EngineError("The engine ended the stream before it was complete.")
        if failure is None:
            return events + self.mapper.conclude(self._finish_reason, self._usage, now)
        self.failure = failure
        return events + self.mapper.fail(failure)

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
        self._finish_reason = finish_reason_of(chunk) or self._finish_reason
        self._usage = usage_of(chunk) or self._usage
        return events + self.mapper.feed(steps_of(chunk))

    def _start(self, model: str) -> bytes:
        if self._has_started:
            return b""
        self._has_started = True
        if model:
            self.mapper.response["model"] = model
        return self.mapper.start()


class ResponseStream:
    """A `Stream`. `save` stores the response when it has ended, before the client sees its last event; it is also
    called, in a task of its own, where the stream is closed before."""

    def __init__(
        self,
        stream: Stream,
        mapper: EventMapper,
        *,
        save: Callable[[], Awaitable[None]],
        interrupt: Callable[[], None],
        spawn: Spawn,
        now: Callable[[], float],
    ) -> None:
        """`interrupt` ends a response whose stream is closed early."""
        self._stream = stream
        self._reader = ChatReader(mapper)
        self._mapper = mapper
        self._save = save
        self._interrupt = interrupt
        self._spawn = spawn
        self._now = now
        self._has_ended = False
        self.error: APIError | None = None
        """What the client was sent as an error."""

    async def pump(self, sink: Sink) -> None:
        reader = self._reader
        await self._stream.pump(_Pieces(reader, sink))
        events = reader.end(self._now(), getattr(self._stream, "error", None))
        self.error = reader.failure
        self._has_ended = True
        # In a task of its own: a client that leaves now must not leave the response half stored.
        saved = asyncio.Event()
        self._spawn(_run(self._save, saved))
        await saved.wait()
        if not sink.put(events + self._mapper.last_event()):
            await sink.room()

    async def aclose(self) -> None:
        await self._stream.aclose()
        if not self._has_ended:
            self._has_ended = True
            self._interrupt()
            self._spawn(_run(self._save, asyncio.Event()))


class _Pieces:
    """The sink of a chat completion's stream."""

    def __init__(self, reader: ChatReader, sink: Sink) -> None:
        self._reader = reader
        self._sink = sink

    def put(self, piece: bytes) -> bool:
        events = self._reader.read(piece)
        return self._sink.put(events) if events else True

    async def room(self) -> None:
        await self._sink.room()


async def _run(work: Callable[[], Awaitable[None]], is_done: asyncio.Event) -> None:
    try:
        await work()
    finally:
        is_done.set()


def _error_of(chunk: Chunk) -> APIError:
    found = chunk.error if isinstance(chunk.error, dict) else {}
    message, code = found.get("message"), found.get("code")
    return EngineError(
        message if isinstance(message, str) else "The engine failed.", code=code if isinstance(code, str) else None
    )
