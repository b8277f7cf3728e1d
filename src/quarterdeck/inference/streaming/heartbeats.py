"""A stream that begins before its answer does: SSE comments while a request waits, so that nobody on the way hangs up.

Once they have begun, the status is 200 and an error is an event.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Reply, Sink
from quarterdeck.protocol import sse

WAITING = b": waiting\n\n"
"""A comment: every SSE reader passes over it."""


async def patiently(
    answer: Coroutine[Any, Any, Reply], *, after: float, every: float, headers: tuple[tuple[bytes, bytes], ...]
) -> Reply:
    """The answer, if it comes within `after` seconds, or fails within them; else a stream of comments that becomes it.
    `headers` are that stream's."""
    task = asyncio.get_running_loop().create_task(answer)
    try:
        await asyncio.wait({task}, timeout=after)
    except asyncio.CancelledError:
        await _stop(task)
        raise
    if task.done():
        return task.result()
    return Reply(200, headers, stream=Heartbeats(task, every))


class Heartbeats:
    """Comments, then the answer's own stream."""

    def __init__(self, task: "asyncio.Task[Reply]", every: float) -> None:
        self._task = task
        self._every = every
        self._reply: Reply | None = None
        self._is_closed = False

    async def pump(self, sink: Sink) -> None:
        if self._is_closed:
            return
        while not self._task.done():
            if not sink.put(WAITING):
                await sink.room()
            await asyncio.wait({self._task}, timeout=self._every)
        try:
            reply = self._reply = self._task.result()
        except APIError as error:
            last = sse.error_event(error)
        else:
            if reply.stream is not None:
                await reply.stream.pump(sink)
                return
            last = sse.raw_event(reply.body) + sse.DONE  # the engine answered a streaming request with a whole body
        if not sink.put(last):
            await sink.room()

    async def aclose(self) -> None:
        """The caller is done with it: who still waits, waits no more. Repeatable."""
        self._is_closed = True
        reply = self._reply or await _stop(self._task)
        if reply is not None and reply.stream is not None:
            await reply.stream.aclose()


async def _stop(task: "asyncio.Task[Reply]") -> Reply | None:
    """Cancel and wait for its end. An answer that came all the same must be closed."""
    task.cancel()
    await asyncio.wait({task})
    if task.cancelled() or task.exception() is not None:
        return None
    return task.result()
