"""Background tasks: work that outlives the request that started it, and is finished before the process exits; and jobs
that run as long as the process."""

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


RESTART_SECONDS = 1.0
"""Between the failure of a job and its next start."""


async def keep_running(
    name: str,
    job: Callable[[], Coroutine[Any, Any, None]],
    *,
    fatal: tuple[type[Exception], ...] = (),
    on_failure: Callable[[str], None] = lambda name: None,
    restart_seconds: float = RESTART_SECONDS,
) -> None:
    """Run a job until it returns, and start it again when it fails: a process out of file descriptors, or with a full
    disk, must not end because a watcher could not open a file.

    An error in `fatal` is raised. This is an error boundary: any other error is logged with its trace, once for
    failures in a row of the same kind, and `on_failure` is called with the job's name.
    """
    logged: type[Exception] | None = None
    while True:
        started = asyncio.get_running_loop().time()
        try:
            await job()
            return
        except fatal:
            raise
        except Exception as error:
            if asyncio.get_running_loop().time() - started > 10 * restart_seconds:
                logged = None
            on_failure(name)
            if type(error) is not logged:
                log.error("background job failed, starting it again: %s", name, exc_info=error)
                logged = type(error)
        await asyncio.sleep(restart_seconds)
