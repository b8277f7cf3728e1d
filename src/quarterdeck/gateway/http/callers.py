"""Those who wait for an answer: that one hung up, sends or reads too slowly, or has to go because the gateway ends.

In each case the task that serves the caller is cancelled, which stops the engine and settles the request. Time-outs
cost no timer a piece: each caller carries a deadline, and one sweep a second looks at all of them.
"""

import asyncio
from typing import Any, Literal

import msgspec

Reason = Literal["gone", "slow", "ending"]

SWEEP_SECONDS = 1.0


class Caller(msgspec.Struct, eq=False):
    """One of them, and the task that serves it. Made inside that task."""

    _task: "asyncio.Task[Any]"
    deadline: float = 0.0
    """The loop's time until which the caller must have sent or taken something. 0: it owes nothing."""
    patience: float = 0.0
    """Seconds that a write may take."""
    is_answered: bool = False
    """The answer has begun."""
    is_settled: bool = False
    """All that is left is to write: whoever hangs up now changes nothing."""
    reason: Reason | None = None
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


class Callers(set[Caller]):
    """All of one gateway."""

    def __init__(self) -> None:
        super().__init__()
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        """Cleared by those who wait for it."""

    def enter(self, task: "asyncio.Task[Any]") -> Caller:
        """The running task, which is this one, serves a caller from now on."""
        caller = Caller(task)
        self.add(caller)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_SECONDS, self._sweep)
        return caller

    def leave(self, caller: Caller) -> None:
        self.discard(caller)
        if not self:
            self._empty.set()

    async def empty(self) -> None:
        """Wait until nobody waits."""
        if self:
            self._empty.clear()
            await self._empty.wait()

    def stop_all(self) -> None:
        """The gateway ends: whoever still waits is told so."""
        for caller in tuple(self):
            caller.stop("ending")

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for caller in self:
            if caller.deadline and caller.deadline < now:
                caller.stop("slow")
        # It goes on a moment after the last one left: on a busy gateway someone is there again at once.
        self._timer = loop.call_later(SWEEP_SECONDS, self._sweep) if self else None
