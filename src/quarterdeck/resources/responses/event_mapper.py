"""Events of a response from the steps of a chat completion. Pure: no clock, no I/O, ids by a function.

Items open when the model begins them and close when it begins another kind: reasoning, a message, calls of functions.
Calls stay open until all of them are complete, because engines may send them interleaved; those of MCP tools until
their result is there. The caller gives the steps in order (`feed`), then says how the answer ended (`conclude`, or
`fail`), and sends the last event when the response has been stored (`last_event`).
"""

from collections.abc import Callable
from typing import Any

import msgspec

from quarterdeck.errors import APIError, envelope
from quarterdeck.protocol.usage import Usage, added
from quarterdeck.resources.responses.deltas import Step, new_call_id
from quarterdeck.resources.responses.function_names import FunctionNames
from quarterdeck.resources.responses.items import PREFIXES, Item, NewId
from quarterdeck.resources.responses.objects import Response, error_object, usage_object

INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
"""Why a response is incomplete, by the finish reason of its chat completion."""

OBFUSCATED = 16
"""Characters of a delta and its padding are a multiple of this."""
_encode = msgspec.json.Encoder().encode


def encode_event(event: dict[str, Any]) -> bytes:
    """As OpenAI's servers send it: with its type as the event's name."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), _encode(event))


class EventMapper:
    """`response` is the response object, which the mapper completes."""

    def __init__(
        self,
        response: Response,
        new_id: NewId,
        *,
        shows_logprobs: bool = False,
        seal: Callable[[str], str] | None = None,
        obfuscates: bool = False,
    ) -> None:
        """`seal` encrypts reasoning for a client that keeps it itself. `obfuscates`: deltas of similar lengths have the
        same length as events (`stream_options.include_obfuscation`)."""
        self.response = response
        self._seal = seal
        self.steps: list[Step] = []
        """All steps so far."""
        self._new_id = new_id
        self._shows_logprobs = shows_logprobs
        self._names = FunctionNames(response["tools"])
        self._obfuscates = obfuscates
        self._sequence = 0
        self._item: Item | None = None
        """The open message or reasoning."""
        self._pieces: list[str] = []
        """Of the open item's text."""
        self._part: Item | None = None
        self._logprobs: list[dict[str, Any]] = []
        self._calls: dict[int, tuple[Item, list[str]]] = {}
        """Open calls of functions and MCP tools and the pieces of their arguments, by the engine's index."""
        self.running: dict[int, Item] = {}
        """Calls of MCP tools whose arguments are complete and whose result is not there."""
        self.has_started = False
        self._of_tools: dict[str, Callable[..., bytes]] = {
            "list": self._list_tools,
            "listed": self._tools_listed,
            "mcp": self._call_tool,
            "called": self._arguments_done,
            "mcp_result": self._tool_called,
            "approve": self._ask_approval,
            "turn": self._turn,
            "cut": lambda: self._close_all("incomplete"),
            "pause": lambda: b"",
        }
        self.turns = 0
        """Complete turns: engine calls, each with the tool calls that it led to."""
        self.usage: Usage | None = None
        """Of all engine calls that have reported one."""

    def start(self) -> bytes:
        """The first events."""
        self.has_started = True
        if self.response["background"]:
            return self.queue() + self.begin()
        return self._state("response.created") + self.begin()

    def queue(self) -> bytes:
        """The first events of a background response, before it runs."""
        self.response["status"] = "queued"
        return self._state("response.created") + self._state("response.queued")

    def begin(self) -> bytes:
        self.response["status"] = "in_progress"
        return self._state("response.in_progress")

    def feed(self, steps: list[Step]) -> bytes:
        """The events of some steps. b"": none."""
        events = b""
        for step in steps:
            self.steps.append(step)
            kind = step[0]
            if kind == "call":
                events += self._call(step)
            elif kind in self._of_tools:
                events += self._of_tools[kind](*step[1:])
            elif kind == "error":
                events += self._event("error", error=step[1])
            elif kind == "reasoning":
                events += self._reason(step[1])
            else:
                events += self._say(kind, step[1], step[2] if len(step) > 2 else [])
        return events

    def conclude(self, finish_reason: str | None, usage: Usage | None, now: float) -> bytes:
        """Complete the response. Returns the events before the last one."""
        reason = INCOMPLETE.get(finish_reason or "")
        response = self.response
        events = b""
        output = response["output"]
        if reason is None and (not output or output[-1]["type"] in ("mcp_list_tools", "mcp_call")):
            events = self._say("text", "", [])  # OpenAI's responses have a message, be it empty
        events += self._close_all("incomplete" if reason else "completed")
        self._add(usage)
        response["usage"] = usage_object(self.usage)
        response["completed_at"] = None if reason else int(now)
        response["status"] = "incomplete" if reason else "completed"
        response["incomplete_details"] = {"reason": reason} if reason else None
        return events

    def fail(self, error: APIError) -> bytes:
        """End the response with an error. Returns the event `error`, which the SDKs raise; the last event follows."""
        event = self.feed([["error", envelope(error)["error"]]])
        self.response["error"] = error_object(error)
        self.stop("failed")
        return event

    def stop(self, status: str) -> None:
        """End the response without further events, with what there is of it."""
        sequence = self._sequence
        self._close_all("incomplete")
        self._sequence = sequence
        self.response["usage"] = usage_object(self.usage)
        self.response["status"] = status

    def last_event(self) -> bytes:
        status = self.response["status"]
        return self._state(f"response.{status if status in ('completed', 'failed') else 'incomplete'}")

    def _say(self, kind: str, delta: str, logprobs: list[dict[str, Any]]) -> bytes:
        events = b""
        part = "refusal" if kind == "refusal" else "output_text"
        if self._item is None or self._item["type"] != "message":
            item = {"type": "message", "status": "in_progress", "role": "assistant", "content": []}
            events = self._close_all() + self._open(item)
        if self._part is None or self._part["type"] != part:
            events += self._close_part() + self._open_part(part)
        if delta or logprobs:
            self._pieces.append(delta)
            shown = logprobs if self._shows_logprobs else []
            self._logprobs += shown
            if part == "refusal":
                events += self._part_event("response.refusal.delta", delta=delta)
            else:
                events += self._part_event("response.output_text.delta", delta=delta, logprobs=shown)
        return events

    def _reason(self, delta: str) -> bytes:
        events = b""
        if self._item is None or self._item["type"] != "reasoning":
            item = {"type": "reasoning", "status": "in_progress", "summary": [], "content": []}
            events = self._close_all() + self._open(item) + self._open_part("reasoning_text")
        self._pieces.append(delta)
        return events + self._part_event("response.reasoning_text.delta", delta=delta)

    def _call(self, step: Step) -> bytes:
        _, index, call_id, name, arguments = step
        events = b""
        if index not in self._calls:
            if not call_id:
                call_id = step[2] = new_call_id()
            named = self._names.members(name)
            item = {"type": "function_call", "status": "in_progress", "call_id": call_id, **named, "arguments": ""}
            events = self._close_text() + self._open(item)
            self._calls[index] = (self.response["output"][-1], [])
            self._item = None
        elif name and not self._calls[index][0]["name"]:
            self._calls[index][0].update(self._names.members(name))
        item, pieces = self._calls[index]
        if arguments:
            pieces.append(arguments)
            events += self._item_event("response.function_call_arguments.delta", item, delta=arguments)
        return events

    def _open(self, item: Item) -> bytes:
        output = self.response["output"]
        self._item = {"id": self._new_id(PREFIXES[item["type"]]), **item}
        output.append(self._item)
        return self._event("response.output_item.added", output_index=len(output) - 1, item=self._item)

    def _open_part(self, kind: str) -> bytes:
        assert self._item is not None  # noqa: S101  # narrows the type: a part is of an open item
        part: Item = {"type": kind, "refusal" if kind == "refusal" else "text": ""}
        if kind == "output_text":
            part |= {"annotations": [], "logprobs": []}
        self._part, self._pieces, self._logprobs = part, [], []
        self._item["content"].append(part)
        return self._part_event("response.content_part.added", part=part)

    def _close_part(self) -> bytes:
        if (part := self._part) is None:
            return b""
        text = "".join(self._pieces)
        if part["type"] == "refusal":
            part["refusal"] = text
            events = self._part_event("response.refusal.done", refusal=text)
        elif part["type"] == "reasoning_text":
            part["text"] = text
            events = self._part_event("response.reasoning_text.done", text=text)
        else:
            part["text"], part["logprobs"] = text, self._logprobs
            events = self._part_event("response.output_text.done", text=text, logprobs=self._logprobs)
        events += self._part_event("response.content_part.done", part=part)
        self._part = None
        return events

    def _close_text(self, status: str = "completed") -> bytes:
        """Close the open message or reasoning."""
        if (item := self._item) is None:
            return b""
        events = self._close_part()
        if item["type"] == "reasoning" and self._seal is not None:
            item["encrypted_content"] = self._seal(item["content"][0]["text"])
        item["status"] = status
        events += self._item_event("response.output_item.done", item, item=item)
        self._item = None
        return events

    def _close_all(self, status: str = "completed") -> bytes:
        events = self._close_text(status)
        for item, pieces in self._calls.values():
            events += self._close_arguments(item, pieces)
            item["status"] = status
            events += self._item_event("response.output_item.done", item, item=item)
        for item in self.running.values():
            item["status"] = "incomplete"
            events += self._item_event("response.output_item.done", item, item=item)
        self._calls, self.running = {}, {}
        return events

    def _close_arguments(self, item: Item, pieces: list[str]) -> bytes:
        item["arguments"] = arguments = "".join(pieces)
        if item["type"] == "mcp_call":
            return self._item_event("response.mcp_call_arguments.done", item, arguments=arguments)
        return self._item_event("response.function_call_arguments.done", item, name=item["name"], arguments=arguments)

    def _list_tools(self, label: str) -> bytes:
        events = self._close_all() + self._open({"type": "mcp_list_tools", "server_label": label, "tools": []})
        listing, self._item = self.response["output"][-1], None
        return events + self._item_event("response.mcp_list_tools.in_progress", listing)

    def _tools_listed(self, label: str, tools: list[dict[str, Any]], error: str | None) -> bytes:
        listing = next(
            item
            for item in reversed(self.response["output"])
            if item["type"] == "mcp_list_tools" and item["server_label"] == label
        )
        listing["tools"] = tools
        if error is not None:
            listing["error"] = error
        events = self._item_event(f"response.mcp_list_tools.{'failed' if error else 'completed'}", listing)
        return events + self._item_event("response.output_item.done", listing, item=listing)

    def _call_tool(self, index: int, label: str, name: str, arguments: str, approval: str | None = None) -> bytes:
        events = b""
        if index not in self._calls:
            item = {
                "type": "mcp_call",
                "status": "in_progress",
                "server_label": label,
                "name": name,
                "arguments": "",
                "approval_request_id": approval,
                "output": None,
                "error": None,
            }
            events = self._close_text() + self._open(item)
            self._calls[index] = (self.response["output"][-1], [])
            self._item = None
            events += self._item_event("response.mcp_call.in_progress", self._calls[index][0])
        item, pieces = self._calls[index]
        if arguments:
            pieces.append(arguments)
            events += self._item_event("response.mcp_call_arguments.delta", item, delta=arguments)
        return events

    def _arguments_done(self) -> bytes:
        """The engine's answer is complete: functions are the client's, MCP tools are called."""
        events = self._close_text()
        calls, self._calls = self._calls, {}
        for index, (item, pieces) in calls.items():
            events += self._close_arguments(item, pieces)
            if item["type"] == "mcp_call":
                item["status"] = "calling"
                self.running[index] = item
            else:
                item["status"] = "completed"
                events += self._item_event("response.output_item.done", item, item=item)
        return events

    def _tool_called(self, index: int, output: str | None, error: dict[str, Any] | None) -> bytes:
        item = self.running.pop(index)
        item["output"], item["error"] = output, error
        item["status"] = "completed" if error is None else "failed"
        events = self._item_event(f"response.mcp_call.{item['status']}", item)
        return events + self._item_event("response.output_item.done", item, item=item)

    def _ask_approval(self, label: str, name: str, arguments: str) -> bytes:
        item = {"type": "mcp_approval_request", "server_label": label, "name": name, "arguments": arguments}
        events = self._close_text() + self._open(item)
        asked, self._item = self.response["output"][-1], None
        return events + self._item_event("response.output_item.done", asked, item=asked)

    def _turn(self, number: int, usage: list[int] | None) -> bytes:
        events = self._close_all()
        self.turns = number + 1
        self._add(Usage(*usage) if usage else None)
        return events

    def _add(self, usage: Usage | None) -> None:
        if usage is not None:
            self.usage = usage if self.usage is None else added(self.usage, usage)

    def _state(self, kind: str) -> bytes:
        return self._event(kind, response=self.response)

    def _part_event(self, kind: str, **members: Any) -> bytes:
        assert self._item is not None  # noqa: S101  # as in `_open_part`
        return self._item_event(kind, self._item, content_index=len(self._item["content"]) - 1, **members)

    def _item_event(self, kind: str, about: Item, **members: Any) -> bytes:
        output = self.response["output"]
        index = next(at for at in range(len(output) - 1, -1, -1) if output[at] is about)
        if "item" in members:
            return self._event(kind, output_index=index, **members)
        return self._event(kind, item_id=about["id"], output_index=index, **members)

    def _event(self, kind: str, **members: Any) -> bytes:
        event = {"type": kind, "sequence_number": self._sequence, **members}
        if self._obfuscates and isinstance(delta := members.get("delta"), str):
            event["obfuscation"] = "x" * (-len(delta) % OBFUSCATED)
        self._sequence += 1
        return encode_event(event)
