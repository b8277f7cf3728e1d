"""What a worker is sent that has a background response executed: comments while it runs, then one event, the result."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import msgspec

from quarterdeck.errors import APIError, BadRequestError
from quarterdeck.inference.call import Sink
from quarterdeck.protocol import sse

WATCH_SECONDS = 5.0
"""Between two signs to the worker that waits."""
RETRYABLE = frozenset({408, 409, 429, 500, 502, 503, 504})
"""Statuses of an engine call after which another may succeed."""
FOR_GOOD = frozenset({"insufficient_quota", "budget_exceeded"})
"""Codes with such a status after which it will not."""


@dataclass(frozen=True, slots=True)
class Result:
    """The end of an execution, as a worker reads it: done, busy (another gateway may execute it), retry, or wait (there
    is no room for it now, which is no failure)."""

    state: str
    error: str | None = None
    after: float | None = None
    """Seconds."""


class Watchable(Protocol):
    """An execution."""

    task: "asyncio.Task[Result] | None"

    def stop(self) -> None: ...


class Watched:
    """A `Stream`: comments while a response is executed, then the result."""

    def __init__(
        self, run: Watchable | None, result: Result | None, is_stopping: Callable[[], bool] = lambda: False
    ) -> None:
        self._run = run
        self._result = result
        self._is_stopping = is_stopping

    async def pump(self, sink: Sink) -> None:
        result = self._result
        if self._run is not None and (task := self._run.task) is not None:
            while not (await asyncio.wait({task}, timeout=WATCH_SECONDS))[0]:
                if not sink.put(b": running\n\n"):
                    await sink.room()
            if task.cancelled():
                result = Result("busy")  # cancelled, taken over, or at the end of this gateway: no failed attempt
            elif task.exception() is not None:
                result = Result("retry", f"{type(task.exception()).__name__}: {task.exception()}")
            else:
                result = task.result()
        if not sink.put(sse.event(msgspec.to_builtins(result))):
            await sink.room()

    async def aclose(self) -> None:
        """A worker that leaves does not stop the execution; a shutdown does."""
        if self._run is not None and self._is_stopping():
            self._run.stop()


def put_back_for(error: APIError) -> Result:
    """The result of an execution that an error has ended for now. A limit or a full engine ends no response: it waits
    until its job's deadline."""
    after = error.retry_after if isinstance(error.retry_after, int) else None
    return Result("wait" if error.status == 429 else "retry", error.message, after)


def may_succeed_later(error: APIError) -> bool:
    return error.status in RETRYABLE and error.code not in FOR_GOOD and not isinstance(error, BadRequestError)
