"""Follows the changes that other gateways announce, so that the keys or prompts they touch are read again at once."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from quarterdeck.errors import ServiceUnavailableError

Change = TypeVar("Change")

log = logging.getLogger(__name__)

MOST_WAITING = 1000
"""Changes that wait to be read; beyond it everything is read once instead."""
RETRY_SECONDS = 1.0
"""Between two attempts to read what changed, while the database is away."""
POLL_SECONDS = 1.0
"""While the channel is lost (Redis is away), everything is read again so often, and at most a tenth of the time."""


class Follower(Generic[Change]):
    """Passes changes on in batches, one at a time, so that an older read never comes last.

    `catch_up` gets the changes, or None for everything; it raises ServiceUnavailableError where the database is away.
    `decode` raises ValueError. `what` is followed, for the log. `refresh_seconds`: everything is read so often also
    while the channel is subscribed; None: never.
    """

    def __init__(
        self,
        catch_up: Callable[[Sequence[Change] | None], Awaitable[None]],
        decode: Callable[[bytes], Change],
        *,
        what: str = "keys",
        retry_seconds: float = RETRY_SECONDS,
        poll_seconds: float = POLL_SECONDS,
        refresh_seconds: float | None = None,
    ) -> None:
        self._catch_up = catch_up
        self._decode = decode
        self._what = what
        self._retry_seconds = retry_seconds
        self._poll_seconds = poll_seconds
        self._refresh_seconds = refresh_seconds
        self._waiting: list[Change] | None = []
        """None: everything has to be read."""
        self._has_news = asyncio.Event()
        self._is_polling = False
        self._is_behind = False
        self._took = 0.0
        """Seconds of the last batch."""

    def hear(self, message: bytes) -> None:
        """A message of the channel."""
        try:
            change = self._decode(message)
        except ValueError as error:  # of a newer version
            log.warning("could not decode change, reading everything again: %s", error)
            self.read_everything()
            return
        if self._waiting is not None:
            self._waiting.append(change)
            if len(self._waiting) > MOST_WAITING:
                self._waiting = None
        self._has_news.set()

    def listen(self, is_listening: bool) -> None:
        """The channel is subscribed from now on, and earlier messages may have been missed; or it is lost."""
        self._is_polling = not is_listening
        if is_listening:
            self.read_everything()
        self._has_news.set()

    async def run(self) -> None:
        """Catch up with what is heard, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._news()
            changes, self._waiting = self._waiting, []
            started = loop.time()
            try:
                if changes != []:
                    await self._catch_up(changes)
            except Exception as error:  # broad: a row that only a newer version can read must not end the gateway
                if not self._is_behind:
                    is_away = isinstance(error, ServiceUnavailableError)
                    log.warning("could not read changed %s, retrying: %s", self._what, error, exc_info=not is_away)
                self._is_behind = True
                await asyncio.sleep(self._retry_seconds)
                self.read_everything()  # which includes what was heard meanwhile
            else:
                self._is_behind = False
                self._took = loop.time() - started

    async def _news(self) -> None:
        """Wait until something has changed, or may have."""
        seconds = max(self._poll_seconds, 10 * self._took) if self._is_polling else self._refresh_seconds
        try:
            async with asyncio.timeout(seconds):
                await self._has_news.wait()
        except TimeoutError:
            self._waiting = None
        self._has_news.clear()

    def read_everything(self) -> None:
        """Read everything again, at once."""
        self._waiting = None
        self._has_news.set()
