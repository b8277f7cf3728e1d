"""Passes a stream on and sees how it ends.

An object and not a generator: a generator that is closed before its first step runs nothing, and a request whose caller
is gone by then would never be settled.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Self

from quarterdeck.errors import APIError, EngineError, EngineTimeoutError
from quarterdeck.inference.engine_client import EngineStream, stream_error
from quarterdeck.inference.metering import Meter
from quarterdeck.inference.stream_tap import StreamTap
from quarterdeck.protocol import sse
from quarterdeck.record import Status

REST_SECONDS = 5.0
"""For the body's last byte after `[DONE]`; a connection that doesn't end is not worth keeping."""


class Relay:
    """Yields pieces of whole events. Raises nothing of the engine's: a failure is an event, and no `[DONE]` follows it.

    `deadline` is the loop's time at which it must be over: looked at with each piece, as silence has its own time-out.
    `on_end` is called once, with how it ended, whether read to the end or closed. `spawn` runs what may go on after it.
    """

    def __init__(
        self,
        stream: EngineStream,
        meter: Meter,
        *,
        shows_usage: bool,
        deadline: float,
        on_end: Callable[[Status, APIError | None], None],
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._stream = stream
        self._tap = StreamTap(meter, shows_usage=shows_usage)
        self._deadline = deadline
        self._on_end = on_end
        self._spawn = spawn
        self._next = stream.first
        self._is_over = False
        self._loop = asyncio.get_running_loop()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        tap = self._tap
        while not self._is_over:
            try:
                whole = self._next or await self._stream.read()
            except EngineError as error:
                return self._fail(error)
            self._next = b""
            if self._loop.time() > self._deadline:
                return self._fail(EngineTimeoutError("The request took too long.", code="request_timeout"))
            if not whole:
                return self._fail(EngineError("The engine ended the stream before it was complete."))
            passed = tap.look(whole)
            if tap.error is not None:
                return passed + self._fail(stream_error(tap.error))
            if tap.is_broken:
                return passed + self._fail(EngineError("The engine's stream is broken: an event is not JSON."))
            if tap.is_unfinished:
                return passed + self._fail(EngineError("The engine ended the stream without a finish reason."))
            if tap.is_done:
                # `[DONE]` comes a moment before the body's last byte: read that, so that the connection can be kept.
                self._end("ok", None, self._spawn_rest)
            if passed:
                return passed
        raise StopAsyncIteration

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

    def _spawn_rest(self) -> None:
        self._spawn(self._read_rest())

    async def _read_rest(self) -> None:
        try:
            async with asyncio.timeout(REST_SECONDS):
                await self._stream.read()
        except (EngineError, TimeoutError):
            return  # all that matters had come
        finally:
            self._stream.close()
