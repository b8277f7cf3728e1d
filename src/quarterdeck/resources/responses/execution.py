"""Executes one response, turn by turn: an engine call, then the calls of tools that it asks for.

Where a response stands is read from its mapper only (turns, usage, output), so that one whose gateway was killed goes
on from its stored steps.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Reply, Sink
from quarterdeck.resources.responses.chat_reader import ChatReader, ChatSink
from quarterdeck.resources.responses.event_mapper import EventMapper
from quarterdeck.resources.responses.items import Item
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.translation import chat_members, chat_messages

CallEngine = Callable[[int, dict[str, Any]], Awaitable[Reply]]
"""Sends the chat completion of a turn, which it may shorten. Raises APIError until the answer begins."""


class Execution:
    """`history`: what the response continues, and its own input. `engine`: members of the request for the engine."""

    def __init__(
        self,
        request: ResponseRequest,
        mapper: EventMapper,
        history: Sequence[Item],
        engine: Mapping[str, msgspec.Raw],
        call: CallEngine,
        now: Callable[[], float],
    ) -> None:
        self._request = request
        self._mapper = mapper
        self._history = history
        self._engine = engine
        self._call = call
        self._now = now
        self._reply: Reply | None = None
        """The engine's answer of this turn."""
        self.failure: APIError | None = None
        """What the client was sent as an error."""

    async def open(self) -> Reply:
        """Begin: the engine's first answer, whose headers are the response's. Raises APIError."""
        self._reply = await self._call(self._mapper.turns, self._members())
        return self._reply

    async def run(self, sink: Sink) -> bytes:
        """Go on to the end, and return the last events but one. Raises EngineError for a whole answer that is none."""
        assert self._reply is not None  # noqa: S101  # narrows the type: it was opened
        reader = ChatReader(self._mapper)
        await _read(self._reply, reader, sink)
        events = reader.finish(getattr(self._reply.stream, "error", None))
        if reader.failure is None:
            return events + self._mapper.conclude(reader.finish_reason, reader.usage, self._now())
        self.failure = reader.failure
        return events + self._mapper.fail(reader.failure)

    async def aclose(self) -> None:
        """Stop what is running. Idempotent."""
        if self._reply is not None and self._reply.stream is not None:
            await self._reply.stream.aclose()

    def _members(self) -> dict[str, Any]:
        """The chat completion of the next turn."""
        items = [*self._history, *self._mapper.response["output"]]
        messages = chat_messages(self._request.instructions, items)
        return chat_members(self._request, self._mapper.response, messages, self._engine)


async def _read(reply: Reply, reader: ChatReader, sink: Sink) -> None:
    """Read an answer to its end. Raises EngineError for a whole one that is none."""
    if reply.stream is not None:
        await reply.stream.pump(ChatSink(reader, sink))
    elif (events := reader.read_answer(reply.body)) and not sink.put(events):
        await sink.room()
