"""The events of a background response, followed while any gateway executes it: those stored, then those to come."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from quarterdeck.inference.call import Sink
from quarterdeck.resources.responses.background_steps import mapper_of
from quarterdeck.resources.responses.objects import Response
from quarterdeck.resources.responses.replay import replay
from quarterdeck.store.background_responses import BackgroundStore
from quarterdeck.store.ownership import Owner
from quarterdeck.store.responses import ResponseStore

POLL_SECONDS = 0.25
"""Between two looks for further steps: as often as they are stored."""
IDLE_POLL_SECONDS = 1.0
"""The same, of a response that has said nothing for IDLE_SECONDS."""
IDLE_SECONDS = 10.0
HEARTBEAT_SECONDS = 15.0
"""Between two comments, which keep proxies from closing the connection."""
LOOKS_PER_SECOND = 200
"""Of all streams together that follow responses here: each look is a query, and the database has few connections. One
key may have a thousand such streams open."""


class Pace:
    """How often the streams of this process look: the more there are, the more seldom each does."""

    def __init__(self) -> None:
        self._streams = 0

    def __enter__(self) -> None:
        self._streams += 1

    def __exit__(self, *_: object) -> None:
        self._streams -= 1

    def pause(self, wanted: float) -> float:
        """Seconds to the next look, `wanted` at least."""
        return max(wanted, self._streams / LOOKS_PER_SECOND)


class Following:
    """A `Stream`. `response` is the object as it was queued; events up to number `after` are not sent."""

    def __init__(
        self,
        background: BackgroundStore,
        store: ResponseStore,
        response: Response,
        owner: Owner,
        after: int,
        pace: Pace,
        *,
        obfuscates: bool = False,
        sleep: Callable[[float], Awaitable[Any]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._background = background
        self._store = store
        self._response = response
        self._owner = owner
        self._sent = after
        self._pace = pace
        self._obfuscates = obfuscates
        self._sleep = sleep
        self._clock = clock

    async def pump(self, sink: Sink) -> None:
        """Raises NotFoundError when the response is deleted, and DatabaseUnavailableError: the client can go on from
        its last event."""
        with self._pace:
            await self._follow(sink)

    async def aclose(self) -> None:
        """Nothing is held: the response goes on."""

    async def _follow(self, sink: Sink) -> None:
        mapper = mapper_of(self._response, shows_logprobs=True, obfuscates=self._obfuscates)
        mapper.response["status"] = "queued"
        count, pending, position = 0, mapper.queue(), 0
        has_begun, spoke = False, self._clock()
        said = spoke
        while True:
            progress = await self._background.progress(self._response["id"], self._owner, position)
            if progress.status not in ("queued", "in_progress"):
                await self._put(sink, await self._rest())
                return
            if progress.status == "in_progress" and not has_begun:
                has_begun = True
                pending += mapper.begin()
            pending += mapper.feed(list(progress.steps))
            position += len(progress.steps)
            events = split(pending)
            pending = b""
            fresh = events[max(0, self._sent + 1 - count) :]
            count += len(events)
            now = self._clock()
            if fresh:
                self._sent = count - 1
                await self._put(sink, fresh)
                said = spoke = now
            elif now - spoke >= HEARTBEAT_SECONDS:
                await self._put(sink, [b": waiting\n\n"])
                spoke = now
            wanted = POLL_SECONDS if now - said < IDLE_SECONDS else IDLE_POLL_SECONDS
            await self._sleep(self._pace.pause(wanted))

    async def _rest(self) -> list[bytes]:
        """The events of the ended response that were not sent."""
        stored = await self._store.retrieve(self._response["id"], self._owner)
        steps, shows_logprobs = await self._store.steps(self._response["id"], self._owner)
        events = replay(stored.body, steps, shows_logprobs=shows_logprobs, obfuscates=self._obfuscates)
        return events[self._sent + 1 :]

    async def _put(self, sink: Sink, events: list[bytes]) -> None:
        if events and not sink.put(b"".join(events)):
            await sink.room()


def split(events: bytes) -> list[bytes]:
    """Whole events, each of its own."""
    return [event + b"\n\n" for event in events.split(b"\n\n")[:-1]]
