"""A response as a stream of events, made of the streams of its chat completions."""

import asyncio
from collections.abc import Awaitable, Callable

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Sink
from quarterdeck.net.tasks import Spawn
from quarterdeck.resources.responses.event_mapper import EventMapper
from quarterdeck.resources.responses.execution import Execution


class ResponseStream:
    """A `Stream`. `save` stores the response when it has ended, before the client sees its last event; it is also
    called, in a task of its own, where the stream is closed before."""

    def __init__(
        self,
        execution: Execution,
        mapper: EventMapper,
        *,
        save: Callable[[], Awaitable[None]],
        interrupt: Callable[[], None],
        spawn: Spawn,
    ) -> None:
        """`interrupt` ends a response whose stream is closed early."""
        self._execution = execution
        self._mapper = mapper
        self._save = save
        self._interrupt = interrupt
        self._spawn = spawn
        self._has_ended = False
        self.error: APIError | None = None
        """What the client was sent as an error."""

    async def pump(self, sink: Sink) -> None:
        events = await self._execution.run(sink)
        self.error = self._execution.failure
        self._has_ended = True
        # In a task of its own: a client that leaves now must not leave the response half stored.
        saved = asyncio.Event()
        self._spawn(_run(self._save, saved))
        await saved.wait()
        if not sink.put(events + self._mapper.last_event()):
            await sink.room()

    async def aclose(self) -> None:
        await self._execution.aclose()
        if not self._has_ended:
            self._has_ended = True
            self._interrupt()
            self._spawn(_run(self._save, asyncio.Event()))


async def _run(work: Callable[[], Awaitable[None]], is_done: asyncio.Event) -> None:
    try:
        await work()
    finally:
        is_done.set()
