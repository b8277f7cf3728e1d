"""Background tasks: work that outlives the request that started it, and is finished before the process exits."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

log = logging.getLogger(__name__)

Spawn = Callable[[Coroutine[Any, Any, None]], object]
"""`BackgroundTasks.spawn`, for code that starts tasks and never waits for them."""


class BackgroundTasks:
    """Holds running tasks, so that none is garbage-collected, and logs those that fail."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._tasks)

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Start the work in a task of its own."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    async def drain(self, *, cancel_after: float | None = None) -> None:
        """Wait until no task is left, those that running tasks start included.

        After `cancel_after` seconds the remaining tasks are cancelled and awaited. None: never.
        """
        loop = asyncio.get_running_loop()
        deadline = None if cancel_after is None else loop.time() + cancel_after
        while self._tasks:
            timeout = None
            if deadline is not None:
                timeout = deadline - loop.time()
                if timeout <= 0:
                    for task in tuple(self._tasks):
                        task.cancel()
                    timeout = None
            await asyncio.wait(self._tasks, timeout=timeout)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("post-request task failed", exc_info=error)
