"""Passes an engine's stream to the client and reports how it ended.

A class and not a generator: closing a generator that has not started runs none of its code, and the request of a client
that disconnected early would never be settled.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from quarterdeck.errors import APIError, EngineError, EngineTimeoutError
from quarterdeck.inference.call import Sink
from quarterdeck.inference.engine.stream import EngineStream
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.streaming.collector import Collects
from quarterdeck.inference.streaming.resume import LostStream, ResumedStream
from quarterdeck.inference.streaming.seam import Seam
from quarterdeck.inference.streaming.tap import StreamTap
from quarterdeck.protocol import sse
from quarterdeck.record import Status

BODY_END_SECONDS = 5.0
"""How long to wait for the end of the engine's response body after `[DONE]`. Past it the connection is not reused."""


class Relay:
    """A `Stream` of whole events. A failure is an error event, and no `[DONE]` follows it.

    `deadline`: when the stream must have ended, in the event loop's time. It is checked whenever `pump` runs; while
    pieces flow in callbacks only, the engine's connection enforces it, as it was opened with the same limit.
    `on_end` is called once with the outcome, whether the stream was read to its end or closed.
    `collector` receives all events, including those hidden from the client.
    `resume` opens a stream that continues a lost one. It returns None if no endpoint can. None: no stream is resumed.
    """

    __slots__ = (
        "_body_end_seconds",
        "_deadline",
        "_failure",
        "_first",
        "_is_over",
        "_meter",
        "_next",
        "_on_end",
        "_resume",
        "_seam",
        "_stream",
        "_tap",
        "error",
    )

    def __init__(
        self,
        stream: EngineStream,
        meter: Meter,
        *,
        shows_usage: bool,
        deadline: float,
        on_end: Callable[[Status, APIError | None], None],
        resume: Callable[[LostStream], Awaitable[ResumedStream | None]] | None = None,
        collector: Collects | None = None,
        body_end_seconds: float = BODY_END_SECONDS,
    ) -> None:
        self._stream = stream
        self._meter = meter
        self._tap = StreamTap(meter, shows_usage=shows_usage, collector=collector)
        self._deadline = deadline
        self._on_end = on_end
        self._resume = resume
        self._body_end_seconds = body_end_seconds
        self._next = stream.first
        self._first = b""
        self._seam: Seam | None = None
        self._failure: APIError | None = None
        self._is_over = False
        self.error: APIError | None = None
        """What the client was sent as the last event."""

    async def pump(self, sink: Sink) -> None:
        while not self._is_over:
            has_room = True
            if whole := self._next:
                self._next = b""
                if visible := self._process(whole):
                    has_room = sink.put(visible)
            elif (failure := self._find_failure()) is None:
                has_room = await self._flow(sink)
            elif not await self._try_resume(failure):
                has_room = sink.put(self._fail(failure))
            if not has_room:
                await sink.room()

    async def _flow(self, sink: Sink) -> bool:
        """Pass pieces from the engine's connection to the sink until the stream ends or fails, or the sink is full.

        Pieces are passed in the connection's callback: no task wakes up for them. Returns False if the sink is full.
        """
        stream, has_room = self._stream, True
        stopped: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def on_data() -> None:
            nonlocal has_room
            if stopped.done():  # the waiting task has been woken and will take what came since
                return
            try:
                while (whole := stream.take()) is not None:
                    if visible := self._process(whole):
                        has_room = sink.put(visible)
                    if self._is_over or self._failure is not None or not has_room:
                        break
                    if not stream.is_complete:  # otherwise the end of the stream is still to be taken
                        return
                else:
                    return
            except EngineError as error:
                self._failure = error
            except Exception as error:  # an internal error must reach the waiting task, not the event loop
                if not stopped.done():
                    stopped.set_exception(error)
                return
            if not stopped.done():
                stopped.set_result(None)

        stream.listen(on_data)
        try:
            on_data()  # data that arrived before `listen`
            on_data()  # and an end right behind it, for which no callback will come
            await stopped
        finally:
            if not self._is_over:
                stream.listen(None)
        return has_room

    def _process(self, whole: bytes) -> bytes:
        """Meter these events and return what the client sees of them.

        b"" is the end of the engine's stream. Sets `_failure` if the stream is lost, and ends the relay after `[DONE]`.
        """
        if not whole:
            self._failure = EngineError("The engine ended the stream before it was complete.")
            return b""
        if self._seam is not None:
            whole = self._seam.join(whole)
        tap = self._tap
        visible = tap.look(whole)
        if tap.is_done:
            self._end("ok", None, self._stream.close if self._stream.is_complete else self._close_after_body)
            return visible
        if not tap.is_open:
            self._failure = _failure_of(tap, self._stream)
        if not self._first:
            self._first = sse.first_object(visible)
        return visible

    def _find_failure(self) -> APIError | None:
        """Return why the stream can't continue, a loss before an exceeded deadline. None: it can."""
        if self._failure is None and monotonic() > self._deadline:
            self._failure = EngineTimeoutError("The request timed out.", code="request_timeout")
        return self._failure

    async def _try_resume(self, failure: APIError) -> bool:
        """Continue on another endpoint. Returns False if the answer can't be continued, or no endpoint can do it."""
        meter = self._meter
        if self._resume is None or not isinstance(failure, EngineError) or failure.code == "request_timeout":
            return False
        if meter.transcript is None or meter.finish_reason is not None or not self._first:
            return False
        if (text := meter.transcript.plain_text()) is None:
            return False
        self._stream.close()
        resumed = await self._resume(LostStream(failure, text, meter.transcript.tokens_seen()))
        if resumed is None:
            return False
        self._failure = None
        self._stream, self._next = resumed.stream, resumed.stream.first
        self._seam = Seam(self._first, tokens=resumed.tokens, repeated=resumed.repeated)
        self._tap.reopen()
        meter.usage = None  # the new stream's usage includes what came before
        meter.resumed += 1
        return True

    async def aclose(self) -> None:
        """Close the stream. Before its end this stops the engine. Idempotent."""
        self._end("cancelled", None, self._stream.close)

    def _fail(self, error: APIError) -> bytes:
        self.error = error
        self._end("error", error, self._stream.close)
        return sse.error_event(error)

    def _end(self, status: Status, error: APIError | None, close: Callable[[], None]) -> None:
        if not self._is_over:
            self._is_over = True
            close()
            self._on_end(status, error)

    def _close_after_body(self) -> None:
        """`[DONE]` arrives shortly before the end of the body. Waiting for that lets the connection be reused."""
        stream = self._stream
        timer = asyncio.get_running_loop().call_later(self._body_end_seconds, stream.close)

        def on_data() -> None:
            timer.cancel()
            stream.close()

        stream.listen(on_data)


def _failure_of(tap: StreamTap, stream: EngineStream) -> APIError:
    if tap.error is not None:
        return stream.error(tap.error)
    if tap.is_broken:
        return EngineError("The engine sent an event that is not valid JSON.")
    return EngineError("The engine ended the stream without a finish reason.")
