"""Passes a stream on and sees how it ends.

An object and not a generator: a generator that is closed before its first step runs nothing, and a request whose caller
is gone by then would never be settled.
"""

import asyncio
from collections.abc import Awaitable, Callable
from time import monotonic

from quarterdeck.errors import APIError, EngineError, EngineTimeoutError
from quarterdeck.inference.cache.entry import Collector
from quarterdeck.inference.call import Sink
from quarterdeck.inference.engine.client import EngineStream
from quarterdeck.inference.metering.meter import Meter
from quarterdeck.inference.streaming.resume import Lost, Resumed
from quarterdeck.inference.streaming.seam import Seam
from quarterdeck.inference.streaming.tap import StreamTap
from quarterdeck.protocol import sse
from quarterdeck.record import Status

REST_SECONDS = 5.0
"""For the body's last byte after `[DONE]`; a connection that doesn't end is not worth keeping."""


class Relay:
    """Yields pieces of whole events. Raises nothing of the engine's: a failure is an event, and no `[DONE]` follows it.

    `deadline` is the loop's time at which it must be over: looked at wherever something was waited for. While pieces
    flow in, the engine's connection keeps it: it was opened with the same limit.
    `on_end` is called once, with how it ended, whether read to the end or closed.
    `collector` is given all events, those too that the client doesn't see.
    `resume` is asked for another stream where this one was lost, and says None where there is none.
    """

    __slots__ = (
        "_deadline",
        "_first",
        "_is_over",
        "_lost",
        "_meter",
        "_next",
        "_on_end",
        "_resume",
        "_seam",
        "_stream",
        "_tap",
    )

    def __init__(
        self,
        stream: EngineStream,
        meter: Meter,
        *,
        shows_usage: bool,
        deadline: float,
        on_end: Callable[[Status, APIError | None], None],
        resume: Callable[[Lost], Awaitable[Resumed | None]] | None = None,
        collector: Collector | None = None,
    ) -> None:
        self._stream = stream
        self._meter = meter
        self._tap = StreamTap(meter, shows_usage=shows_usage, collector=collector)
        self._deadline = deadline
        self._on_end = on_end
        self._resume = resume
        self._next = stream.first
        self._first = b""
        self._seam: Seam | None = None
        self._lost: APIError | None = None
        self._is_over = False

    async def pump(self, sink: Sink) -> None:
        while not self._is_over:
            has_room = True
            if whole := self._next:
                self._next = b""
                if passed := self._pass(whole):
                    has_room = sink.put(passed)
            elif (lost := self._failure()) is None:
                has_room = await self._flow(sink)
            elif not await self._go_on(lost):
                has_room = sink.put(self._fail(lost))
            if not has_room:
                await sink.room()

    async def _flow(self, sink: Sink) -> bool:
        """Pieces go from the engine's connection into the sink, until something has to be waited for. False: for room
        in the sink."""
        stream, has_room = self._stream, True
        news: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def arrived() -> None:
            nonlocal has_room
            if news.done():  # the task that waits is awake, and takes this when it has done the rest
                return
            try:
                while (whole := stream.take()) is not None:
                    if passed := self._pass(whole):
                        has_room = sink.put(passed)
                    if self._is_over or self._lost is not None or not has_room:
                        break
                    if not stream.is_complete:  # then there is an end to be taken as well
                        return
                else:
                    return
            except EngineError as error:
                self._lost = error
            except Exception as error:  # a bug of ours must reach the task that waits, not the event loop
                if not news.done():
                    news.set_exception(error)
                return
            if not news.done():
                news.set_result(None)

        stream.listen(arrived)
        try:
            arrived()  # what came meanwhile
            arrived()  # and an end that came right behind it: nobody will tell of that
            await news
        finally:
            if not self._is_over:
                stream.listen(None)
        return has_room

    def _pass(self, whole: bytes) -> bytes:
        """What the client shall see of these events; b"" is the end of the engine's stream. Notes a loss in `_lost`."""
        if not whole:
            self._lost = EngineError("The engine ended the stream before it was complete.")
            return b""
        if self._seam is not None:
            whole = self._seam.join(whole)
        tap = self._tap
        passed = tap.look(whole)
        if tap.is_done:
            self._end("ok", None, self._stream.close if self._stream.is_complete else self._close_with_the_body)
            return passed
        if not tap.is_open:
            self._lost = _failure(tap, self._stream)
        if not self._first:
            self._first = sse.first_object(passed)
        return passed

    def _failure(self) -> APIError | None:
        """What the stream was lost by, if it was: by then its time may be up as well."""
        if self._lost is None and monotonic() > self._deadline:
            self._lost = EngineTimeoutError("The request took too long.", code="request_timeout")
        return self._lost

    async def _go_on(self, lost: APIError) -> bool:
        """Let another endpoint go on, if there is one and the answer is of a kind that can be."""
        meter = self._meter
        if self._resume is None or not isinstance(lost, EngineError) or lost.code == "request_timeout":
            return False
        if meter.transcript is None or meter.finish_reason is not None or not self._first:
            return False
        if (text := meter.transcript.plain_text()) is None:
            return False
        self._stream.close()
        resumed = await self._resume(Lost(lost, text, meter.transcript.tokens_seen()))
        if resumed is None:
            return False
        self._lost = None
        self._stream, self._next = resumed.stream, resumed.stream.first
        self._seam = Seam(self._first, tokens=resumed.tokens, repeated=resumed.repeated)
        self._tap.begin_again()
        meter.usage = None  # that of the answer so far, if there was one: the new one counts it in
        meter.resumed += 1
        return True

    async def aclose(self) -> None:
        """The caller is done with it. Before the end this stops the engine. Repeatable."""
        self._end("cancelled", None, self._stream.close)

    def _fail(self, error: APIError) -> bytes:
        self._end("error", error, self._stream.close)
        return sse.error_event(error)

    def _end(self, status: Status, error: APIError | None, leave: Callable[[], None]) -> None:
        if not self._is_over:
            self._is_over = True
            leave()
            self._on_end(status, error)

    def _close_with_the_body(self) -> None:
        """`[DONE]` comes a moment before the body's last byte: after that the connection can be kept."""
        stream = self._stream
        timer = asyncio.get_running_loop().call_later(REST_SECONDS, stream.close)

        def arrived() -> None:
            timer.cancel()
            stream.close()

        stream.listen(arrived)


def _failure(tap: StreamTap, stream: EngineStream) -> APIError:
    if tap.error is not None:
        return stream.error(tap.error)
    if tap.is_broken:
        return EngineError("The engine's stream is broken: an event is not JSON.")
    return EngineError("The engine ended the stream without a finish reason.")
