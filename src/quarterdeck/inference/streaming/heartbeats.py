"""SSE comments for a streaming request that waits in a queue, so that no proxy on the way times out.

Once a comment has been sent the status is 200, and an error becomes an SSE error event.
"""

import asyncio
from collections.abc import Coroutine
from typing import Any

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Reply, Sink
from quarterdeck.protocol import sse

WAITING = b": waiting\n\n"
"""A comment, which SSE clients ignore."""


async def with_heartbeats(
    answer: Coroutine[Any, Any, Reply], *, after: float, every: float, headers: tuple[tuple[bytes, bytes], ...]
) -> Reply:
    """The answer, if it is ready or fails within `after` seconds. Otherwise a stream with these `headers`: a comment
    `every` so many seconds until the answer is ready, then the answer."""
    task = asyncio.get_running_loop().create_task(answer)
    try:
        await asyncio.wait({task}, timeout=after)
    except asyncio.CancelledError:
        await _cancel(task)
        raise
    if task.done():
        return task.result()
    return Reply(200, headers, stream=Heartbeats(task, every))


class Heartbeats:
    """Comments, then the answer's stream."""

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
        """Cancel the request if it still waits, else close its stream. Idempotent."""
        self._is_closed = True
        reply = self._reply or await _cancel(self._task)
        if reply is not None and reply.stream is not None:
            await reply.stream.aclose()


async def _cancel(task: "asyncio.Task[Reply]") -> Reply | None:
    """Cancel the task and wait for its end. Returns the reply if it was ready before: its stream must be closed."""
    task.cancel()
    await asyncio.wait({task})
    if task.cancelled() or task.exception() is not None:
        return None
    return task.result()
