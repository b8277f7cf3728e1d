"""SSE comments for a streaming request that waits in a queue or for its first token, so that no proxy on the way times
out.

Once a comment has been sent the status is 200, and an error becomes an SSE error event.
"""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Reply, Sink
from quarterdeck.model_lifecycle.status import ModelStatus
from quarterdeck.protocol import sse

WAITING = b": waiting\n\n"
"""A comment, which SSE clients ignore."""
Comment = Callable[[], bytes]
"""What is sent next."""


def waiting() -> bytes:
    return WAITING


def loading(status: ModelStatus) -> bytes:
    """A comment for a model that is being started: JSON, for clients that show it (`quarterdeck chat`)."""
    shown = {"model": status.name, "state": status.state, "detail": status.detail, "seconds_left": status.seconds_left}
    return b": model " + msgspec.json.encode(shown) + b"\n\n"


async def with_heartbeats(
    answer: Coroutine[Any, Any, Reply],
    *,
    after: float,
    every: float,
    headers: tuple[tuple[bytes, bytes], ...],
    comment: Comment = waiting,
) -> Reply:
    """The answer, if it is ready or fails within `after` seconds. Otherwise a stream with these `headers`: a comment
    `every` so many seconds until the answer is ready, then the answer."""
    task = asyncio.get_running_loop().create_task(answer)
    try:
        await asyncio.wait({task}, timeout=after)
    except BaseException:
        await _abandon(task)
        raise
    if task.done():
        return task.result()
    return Reply(200, headers, stream=Heartbeats(task, every, comment))


class Heartbeats:
    """Comments, then the answer's stream."""

    def __init__(self, task: "asyncio.Task[Reply]", every: float, comment: Comment = waiting) -> None:
        self._task = task
        self._every = every
        self._comment = comment
        self._reply: Reply | None = None
        self._is_closed = False
        self._failure: APIError | None = None

    @property
    def error(self) -> APIError | None:
        """What the client was sent as the last event."""
        stream = None if self._reply is None else self._reply.stream
        return self._failure or getattr(stream, "error", None)

    async def pump(self, sink: Sink) -> None:
        if self._is_closed:
            return
        while not self._task.done():
            if not sink.put(self._comment()):
                await sink.room()
            await asyncio.wait({self._task}, timeout=self._every)
        try:
            reply = self._reply = self._task.result()
        except APIError as error:
            self._failure = error
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
        if self._reply is None:
            await _abandon(self._task)
        else:
            await self._reply.discard()


async def _abandon(task: "asyncio.Task[Reply]") -> None:
    """Cancel the task, wait for its end, and close the reply that it may have by then.

    The reply may arrive in the same turn as the cancellation; it holds a place at an endpoint and a reservation until
    it is closed. A further cancellation of the caller does not cut this short.
    """
    task.cancel()
    was_cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            was_cancelled = True
    if not task.cancelled() and task.exception() is None:
        await task.result().discard()
    if was_cancelled:
        raise asyncio.CancelledError
