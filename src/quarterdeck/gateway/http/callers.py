"""Requests in flight: counted, bounded, timed, drained.

A request stops early when its caller hangs up, sends or reads too slowly, or when the gateway shuts down. In each case
the task that serves it is cancelled, which stops the engine and settles the request. Time-outs need no timer per piece:
each caller has a deadline, and one sweep per second checks all of them.

Whether a hang-up stops a request is decided in `Caller.hang_up`. It is detected in two places: `front` (the connection
is lost) and `asgi_exchange` (`http.disconnect`).
"""

import asyncio
import contextlib
import logging
from typing import Any, Literal

import msgspec

from quarterdeck.errors import APIError, RequestTimeoutError, ServiceUnavailableError
from quarterdeck.settings.shutdown import CANCEL_SECONDS

log = logging.getLogger(__name__)

Reason = Literal["gone", "slow", "shutting_down"]

SWEEP_SECONDS = 1.0


class Caller(msgspec.Struct, eq=False):
    """A request in flight and the task that serves it."""

    _task: "asyncio.Task[Any]"
    deadline: float = 0.0
    """Time of the loop by which the client must have sent or taken something. 0: nothing is expected of it."""
    patience: float = 0.0
    """Seconds that a write may take."""
    is_answered: bool = False
    """The answer has begun."""
    is_settled: bool = False
    """Only writing is left: a hang-up changes nothing any more."""
    headers: tuple[tuple[bytes, bytes], ...] = ()
    """Of a streamed answer that has begun."""
    reason: Reason | None = None
    """Why the task was cancelled. None: it was not, or not by this class."""

    def hang_up(self) -> None:
        """The client closed the connection."""
        if not self.is_settled:
            self.stop("gone")

    def stop(self, reason: Reason) -> None:
        """Cancel the task, once."""
        if self.reason is None:
            self.reason = reason
            self._task.cancel()

    def was_stopped(self) -> bool:
        """Whether a CancelledError just caught comes from `stop`. If so, the task is no longer cancelled afterwards."""
        if self.reason is None:
            return False
        self._task.uncancel()
        return True

    def error(self) -> APIError | None:
        """The error for the client of a stopped request. None: it is gone."""
        if self.reason == "gone":
            return None
        return body_timeout() if self.reason == "slow" else shutting_down()


class Callers(set[Caller]):
    """All requests in flight in one gateway."""

    def __init__(self, *, sweep_seconds: float = SWEEP_SECONDS) -> None:
        super().__init__()
        self.is_draining = False
        """Requests in flight may end; no further one is admitted."""
        self._sweep_seconds = sweep_seconds
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        """Cleared by `empty` only."""

    def enter(self, task: "asyncio.Task[Any]") -> Caller:
        """Count a request. `task` serves it and is the current one."""
        caller = Caller(task)
        self.add(caller)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._sweep_seconds, self._sweep)
        return caller

    def leave(self, caller: Caller) -> None:
        self.discard(caller)
        if not self:
            self._empty.set()

    def admit(self, max_in_flight: int | None) -> None:
        """Check that a request that has entered may go on. None: however many there are.

        Raises ServiceUnavailableError.
        """
        if self.is_draining:
            raise shutting_down()
        if max_in_flight is not None and len(self) > max_in_flight:
            raise ServiceUnavailableError("The gateway has too many requests in flight.", code="overloaded")

    async def empty(self) -> None:
        """Wait until no request is in flight."""
        if self:
            self._empty.clear()
            await self._empty.wait()

    async def drain(self, seconds: float, hurry: asyncio.Event, *, cancel_seconds: float = CANCEL_SECONDS) -> None:
        """Admit no further requests and wait for those in flight, at most `seconds` or until `hurry` is set. Then
        cancel the rest and wait at most `cancel_seconds` for them."""
        self.is_draining = True
        log.info("draining %d requests, at most %g s", len(self), seconds)
        hurrying = asyncio.create_task(hurry.wait())
        empty = asyncio.create_task(self.empty())
        await asyncio.wait({hurrying, empty}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        hurrying.cancel()
        empty.cancel()
        if self:
            log.warning("cancelling %d requests that did not end in time", len(self))
            self.stop_all()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(cancel_seconds):
                    await self.empty()

    def stop_all(self) -> None:
        """Cancel all requests because the gateway shuts down."""
        for caller in tuple(self):
            caller.stop("shutting_down")

    def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        now = loop.time()
        for caller in self:
            if caller.deadline and caller.deadline < now:
                caller.stop("slow")
        # One sweep runs after the last request has left: on a busy gateway the next one follows at once.
        self._timer = loop.call_later(self._sweep_seconds, self._sweep) if self else None


def shutting_down() -> ServiceUnavailableError:
    # The connection closes, so that a retry reaches another gateway.
    headers = {"connection": "close"}
    return ServiceUnavailableError("The gateway is shutting down.", code="shutting_down", headers=headers)


def body_timeout() -> RequestTimeoutError:
    # The rest of the body would be taken for the next request.
    return RequestTimeoutError("The request body was not received in time.", headers={"connection": "close"})
