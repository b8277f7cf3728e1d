"""The condition of a part, logged when it changes and not at each check.

A database that is unavailable for an hour is two log lines: failed and recovered.
"""

import asyncio
import logging
import time
from collections.abc import Callable

log = logging.getLogger(__name__)


class Condition:
    """One part, ok at first. `on_change` is called with each new state, for a gauge. `then`: what follows a failure."""

    def __init__(
        self, part: str, on_change: Callable[[bool], None] = lambda is_ok: None, *, then: str = "retrying"
    ) -> None:
        self._part = part
        self._then = then
        self._on_change = on_change
        self._is_ok = True
        self.reason = ""
        """Why it is not ok. Empty: it is."""
        self.failed_at = 0.0
        """When it failed last, by the monotonic clock."""
        on_change(True)

    def ok(self) -> None:
        self.reason = ""
        if not self._is_ok:
            self._is_ok = True
            self._on_change(True)
            log.info("%s: recovered", self._part)

    def failed(self, reason: str, *, trace: BaseException | None = None) -> None:
        """Only the first of several failures is logged. `trace`: an unexpected error, logged with its traceback."""
        self.reason, self.failed_at = reason, time.monotonic()
        if self._is_ok:
            self._is_ok = False
            self._on_change(False)
            log.warning("%s: %s; %s", self._part, reason, self._then, exc_info=trace)


class Backoff:
    """Pauses that double from `first` to `most` seconds and end when `stop` is set."""

    def __init__(self, stop: asyncio.Event, *, first: float = 0.1, most: float = 5.0) -> None:
        self._stop = stop
        self._first, self._most = first, most
        self._next = first

    def reset(self) -> None:
        self._next = self._first

    async def pause(self, at_least: float = 0.0) -> None:
        await pause(self._stop, max(at_least, self._next))
        self._next = min(self._next * 2, self._most)


async def pause(stop: asyncio.Event, seconds: float) -> None:
    """Sleep for `seconds`, or until `stop` is set."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
