"""Whether a part is well: told when it changes, and not each time it is seen.

A database that is away for an hour is two lines of log: away, and back.
"""

import asyncio
import logging
from collections.abc import Callable

log = logging.getLogger(__name__)


class Condition:
    """One part, by the words of a log line. `on_change` keeps a gauge."""

    def __init__(self, part: str, on_change: Callable[[bool], None] = lambda up: None) -> None:
        self._part = part
        self._on_change = on_change
        self._trouble: str | None = None
        on_change(True)

    @property
    def is_good(self) -> bool:
        return self._trouble is None

    @property
    def trouble(self) -> str | None:
        """What was wrong the last time; None: nothing."""
        return self._trouble

    def good(self) -> None:
        if self._trouble is not None:
            self._trouble = None
            self._on_change(True)
            log.info("%s: works again", self._part)

    def bad(self, reason: str, *, trace: BaseException | None = None) -> None:
        """`trace` is given for what nobody foresaw; it is logged with the first line."""
        if self._trouble is None:
            self._on_change(False)
            log.warning("%s: %s; trying again until it works", self._part, reason, exc_info=trace)
        self._trouble = reason


class Backoff:
    """Longer and longer pauses, from `first` to `most` seconds, that end at once when `stop` is set."""

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
    """Sleep, or less long when `stop` is set meanwhile."""
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
