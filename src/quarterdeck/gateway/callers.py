"""Those who wait for an answer: that one hung up, sends or reads too slowly, or has to go because the gateway ends.

In each case the task that serves the caller is cancelled, which stops the engine and settles the request. Time-outs
cost no timer a piece: each caller carries a deadline, and one sweep a second looks at all of them.
"""

import asyncio
from typing import Any, Literal

Reason = Literal["gone", "slow", "ending"]

SWEEP_SECONDS = 1.0


class Caller:
    """One of them, and the task that serves it. Made inside that task."""

    __slots__ = ("_task", "deadline", "is_answered", "is_settled", "patience", "reason")

    def __init__(self, task: "asyncio.Task[Any]") -> None:
        self._task = task
        self.deadline = 0.0
        """The loop's time until which the caller must have sent or taken something. 0: it owes nothing."""
        self.patience = 0.0
        """Seconds that a write may take."""
        self.is_answered = False
        """The answer has begun."""
        self.is_settled = False
        """All that is left is to write: whoever hangs up now changes nothing."""
        self.reason: Reason | None = None
        """Why the task was cancelled by us. None: it was not."""

    def hang_up(self) -> None:
        """The caller is gone."""
        if not self.is_settled:
            self.stop("gone")

    def stop(self, reason: Reason) -> None:
        """Cancel the task, once."""
        if self.reason is None:
            self.reason = reason
            self._task.cancel()

    def was_stopped(self) -> bool:
        """Whether a CancelledError in hand is ours; it is used up then."""
        if self.reason is None:
            return False
        self._task.uncancel()
        return True


class Callers:
    """All of one gateway."""

    def __init__(self) -> None:
        self._callers: set[Caller] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._callers)

    def enter(self, task: "asyncio.Task[Any]") -> Caller:
        """The running task, which is this one, serves a caller from now on."""
        caller = Caller(task)
        self._callers.add(caller)
        self._empty.clear()
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        return caller

    def leave(self, caller: Caller) -> None:
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
        # It goes on a moment after the last one left: on a busy gateway someone is there again at once.
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep) if self._callers else None
