"""Those who wait for an answer: that one hung up, sends or reads too slowly, or has to go because the gateway ends.

In each case the task that serves the caller is cancelled, which stops the engine and settles the request. Time-outs
cost no timer a piece: each caller carries a deadline, and one sweep a second looks at all of them.
"""

import asyncio
from collections.abc import Callable
from typing import Literal

from starlette.types import Receive, Scope

Reason = Literal["gone", "slow", "ending"]

ABORT = "quarterdeck.abort"
"""The ASGI extension by which our server lets a connection be dropped with what is not yet sent."""
SWEEP_SECONDS = 1.0


class Caller:
    """One of them, and the task that serves it. Made inside that task."""

    __slots__ = ("_abort", "_task", "_watcher", "deadline", "is_answered", "reason")

    def __init__(self, task: "asyncio.Task[object]", abort: Callable[[], None]) -> None:
        self._task = task
        self._abort = abort
        self._watcher: asyncio.Task[None] | None = None
        self.deadline = 0.0
        """The loop's time until which the caller must have sent or taken something. 0: it owes nothing."""
        self.is_answered = False
        """The answer has begun."""
        self.reason: Reason | None = None
        """Why the task was cancelled by us. None: it was not."""

    def watch(self, receive: Receive) -> None:
        """From now on, when the caller hangs up, the task is cancelled. The body has been read."""
        self._watcher = asyncio.get_running_loop().create_task(self._listen(receive))

    def release(self) -> None:
        """Stop watching."""
        if self._watcher is not None:
            self._watcher.cancel()

    def stop(self, reason: Reason) -> None:
        """Cancel the task, once."""
        if self.reason is None:
            self.reason = reason
            self._task.cancel()

    def abort(self) -> None:
        """Drop the connection with all that waits in it."""
        self._abort()

    def was_stopped(self) -> bool:
        """Whether a CancelledError in hand is ours; it is used up then."""
        if self.reason is None:
            return False
        self._task.uncancel()
        return True

    async def _listen(self, receive: Receive) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass  # a server may say again that the body is over
        self.stop("gone")


class Callers:
    """All of one gateway."""

    def __init__(self) -> None:
        self._callers: set[Caller] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._callers)

    def enter(self, scope: Scope) -> Caller:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # narrows the type; a coroutine that runs has one
        caller = Caller(task, scope.get("extensions", {}).get(ABORT, {}).get("call", _keep))
        self._callers.add(caller)
        self._empty.clear()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        return caller

    def leave(self, caller: Caller) -> None:
        caller.release()
        self._callers.discard(caller)
        if not self._callers:
            self._empty.set()

    async def empty(self) -> None:
        """Wait until nobody waits."""
        await self._empty.wait()

    def stop_all(self) -> None:
        """The gateway ends: whoever still waits is told so."""
        for caller in tuple(self._callers):
            caller.stop("ending")

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for caller in self._callers:
            if caller.deadline and caller.deadline < now:
                caller.stop("slow")
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep) if self._callers else None


def _keep() -> None:
    """Another server has no way to drop a connection; it closes it when the answer is not finished."""
