"""Executes one response, turn by turn: an engine call, then the calls of tools that it asks for.

Where a response stands is read from its mapper only (turns, usage, output), so that one whose gateway was killed goes
on from its stored steps.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from quarterdeck.errors import APIError
from quarterdeck.inference.call import Reply, Sink
from quarterdeck.protocol import sse
from quarterdeck.resources.responses.chat_reader import ChatReader, ChatSink
from quarterdeck.resources.responses.deltas import Step
from quarterdeck.resources.responses.event_mapper import INCOMPLETE, EventMapper
from quarterdeck.resources.responses.items import Item
from quarterdeck.resources.responses.requests import ResponseRequest
from quarterdeck.resources.responses.tool_loop.calls import TurnCalls
from quarterdeck.resources.responses.tool_loop.first_call import FirstCall
from quarterdeck.resources.responses.tool_loop.members import tool_members
from quarterdeck.resources.responses.tool_loop.tools import ResponseTools, ToolCall, ToolListError
from quarterdeck.resources.responses.translation import chat_members, chat_messages

CallEngine = Callable[[int, dict[str, Any]], Awaitable[Reply]]
"""Sends the chat completion of a turn, which it may shorten. Raises APIError until the answer begins."""

_CALLING = b": calling tools\n\n"


async def _go_on() -> None: ...


class Execution:
    """`history`: what the response continues, and its own input. `engine`: members of the request for the engine.

    `tools`: those that the platform executes, and `approved` the approval requests whose calls are made first.
    `on_boundary` is awaited when a turn is complete that is not the last one.
    """

    def __init__(
        self,
        request: ResponseRequest,
        mapper: EventMapper,
        history: Sequence[Item],
        engine: Mapping[str, msgspec.Raw],
        call: CallEngine,
        now: Callable[[], float],
        *,
        tools: ResponseTools | None = None,
        approved: Sequence[Item] = (),
        on_boundary: Callable[[], Awaitable[None]] = _go_on,
    ) -> None:
        self._request = request
        self._mapper = mapper
        self._history = history
        self._engine = engine
        self._call = call
        self._now = now
        self._tools = tools
        self._approved = approved
        self._on_boundary = on_boundary
        self._prelude: list[Step] = []
        """Steps before the engine's first."""
        self._has_form = tools is not None and mapper.response["text"]["format"]["type"] != "text"
        """The answer is JSON. An engine that is bound to a form calls no tools: it is bound in the last turn only."""
        self._has_answered = False
        """Without the form, which is asked for next."""
        self._is_last = False
        """The model has to answer in this turn."""
        self.reply: Reply | None = None
        """The engine's answer of this turn."""
        self.failure: APIError | None = None
        """What the client was sent as an error."""

    async def open(self) -> Reply:
        """Begin: list the tools and make the first engine call, whose headers are the response's. Raises APIError, but
        a stream shows that a server could not list its tools."""
        try:
            if self._tools is not None:
                history = [*self._history, *self._mapper.response["output"]]
                self._prelude = await self._tools.list(history)
            if self._to_approve:
                return Reply(200, sse.HEADERS if self._request.stream else ())
            self.reply = await self._next()
            return self.reply
        except ToolListError as error:
            await self.aclose()
            if not self._request.stream:
                raise
            self._prelude, self.failure = error.steps, error
            return Reply(200, sse.HEADERS)
        except BaseException:
            await self.aclose()
            raise

    async def run(self, sink: Sink) -> bytes:
        """Go on to the end, and return the last events but one. Raises APIError where nothing has begun."""
        try:
            if self.failure is not None:
                raise self.failure
            return await self._run(sink)
        except APIError as error:
            if not self._mapper.has_started and not self._request.stream:
                raise
            self.failure = error
            return self._started() + self._mapper.fail(error)

    async def finish(self, first: Reply) -> Reply:
        """The last engine's answer, whose client takes the response, with the first one's headers."""
        if self._tools is not None:
            await self._tools.aclose()
        return first if self.reply is None else msgspec.structs.replace(self.reply, headers=first.headers)

    async def aclose(self) -> None:
        """Stop what is running. Idempotent."""
        reply, self.reply = self.reply, None
        if reply is not None:
            await reply.discard()
        if self._tools is not None:
            await self._tools.aclose()

    async def _run(self, sink: Sink) -> bytes:
        if self._to_approve:
            await _put(sink, self._started())
            await self._call_approved(sink)
        while True:
            if self.reply is None:
                self.reply = await self._next()
            calls = self._turn_calls()
            route = None if calls is None else calls.route
            if self._request.parallel_tool_calls is False:
                route = FirstCall(route).route
            reader = ChatReader(self._mapper, self._started, route)
            await _read(self.reply, reader, sink)
            events = reader.finish(getattr(self.reply.stream, "error", None))
            if reader.failure is not None:
                await _put(sink, events)
                raise reader.failure
            if calls is not None and reader.finish_reason not in INCOMPLETE:
                events += self._mapper.feed(calls.end())
                if calls.running:
                    await _put(sink, events)
                    events = b""
                    await self._call_tools(calls, sink)
                self._has_answered = self._has_form and not calls.running
                goes_on = calls.running or ((calls.has_ignored or self._has_answered) and not self._is_last)
                if goes_on and not calls.is_clients_turn:
                    await self._end_turn(reader, events, sink)
                    if not self._has_tokens_left():
                        return self._mapper.conclude("length", None, self._now())
                    continue
            return events + self._mapper.conclude(reader.finish_reason, reader.usage, self._now())

    async def _next(self) -> Reply:
        """Call the engine for the next turn. Raises APIError."""
        mapper, request = self._mapper, self._request
        items = [*self._history, *mapper.response["output"]]
        if self._tools is None:
            messages = chat_messages(request.instructions, items)
            return await self._call(mapper.turns, chat_members(request, mapper.response, messages, self._engine))
        toolbox = self._tools.toolbox
        messages = chat_messages(request.instructions, items, toolbox.function_name)
        members = chat_members(request, mapper.response, messages, self._engine)
        for name in ("tools", "tool_choice", "parallel_tool_calls", "response_format"):
            members.pop(name, None)
        self._is_last = self._has_answered or self._tools.must_answer(mapper.turns, self._calls_made)
        members |= tool_members(request, mapper.response, toolbox, must_answer=self._is_last)
        if self._has_form and not self._is_last:
            members.pop("response_format", None)
        if request.max_output_tokens is not None and mapper.usage is not None:
            members["max_completion_tokens"] = request.max_output_tokens - mapper.usage.output
        return await self._call(mapper.turns, members)

    def _started(self) -> bytes:
        """The events before the engine's first, once."""
        events = b"" if self._mapper.has_started else self._mapper.start()
        prelude, self._prelude = self._prelude, []
        return events + self._mapper.feed(prelude)

    def _turn_calls(self) -> TurnCalls | None:
        if self._tools is None:
            return None
        remaining = None if self._is_last else self._tools.remaining(self._calls_made)
        return TurnCalls(self._tools.toolbox, remaining, keeps_text=self._is_last or not self._has_form)

    @property
    def _calls_made(self) -> int:
        return sum(item["type"] == "mcp_call" for item in self._mapper.response["output"])

    @property
    def _to_approve(self) -> list[Item]:
        """Approved calls that have not been made."""
        made = {item.get("approval_request_id") for item in self._mapper.response["output"]}
        return [asked for asked in self._approved if asked["id"] not in made]

    def _has_tokens_left(self) -> bool:
        most, used = self._request.max_output_tokens, self._mapper.usage
        return most is None or used is None or used.output < most

    async def _call_tools(self, calls: TurnCalls, sink: Sink) -> None:
        """Call the tools of a turn."""
        items = self._mapper.running
        made = [ToolCall(at, *calls.running[at], items[at]["arguments"]) for at in calls.running]
        await self._make(made, sink)

    async def _call_approved(self, sink: Sink) -> None:
        steps: list[Step] = []
        made = []
        for at, asked in enumerate(self._to_approve):
            label, name, arguments = asked["server_label"], asked["name"], asked["arguments"]
            steps.append(["mcp", at, label, name, arguments, asked["id"]])
            made.append(ToolCall(at, label, name, arguments))
        await _put(sink, self._mapper.feed([*steps, ["called"]]))
        await self._make(made, sink)
        await _put(sink, self._mapper.feed([["turn", -1, None]]))
        await self._on_boundary()

    async def _make(self, calls: Sequence[ToolCall], sink: Sink) -> None:
        assert self._tools is not None  # noqa: S101  # narrows the type: there are calls of tools only with tools
        async with aclosing(self._tools.run(calls)) as results:
            async for step in results:
                await _put(sink, _CALLING if step is None else self._mapper.feed([step]))

    async def _end_turn(self, reader: ChatReader, events: bytes, sink: Sink) -> None:
        """The turn is complete, and another follows."""
        used = reader.usage
        counts = None if used is None else [used.input, used.cached, used.output, used.reasoning]
        await _put(sink, events + self._mapper.feed([["turn", self._mapper.turns, counts]]))
        reply, self.reply = self.reply, None
        if reply is not None:
            await reply.discard()
        await self._on_boundary()


async def _read(reply: Reply, reader: ChatReader, sink: Sink) -> None:
    """Read an answer to its end. Raises EngineError for a whole answer that is not valid."""
    if reply.stream is not None:
        await reply.stream.pump(ChatSink(reader, sink))
    else:
        await _put(sink, reader.read_answer(reply.body))


async def _put(sink: Sink, events: bytes) -> None:
    if events and not sink.put(events):
        await sink.room()
