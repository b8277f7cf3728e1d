"""A chat's stream as a stream of Anthropic's events. Pure.

A message is a row of blocks, each begun, extended and ended before the next one begins, so only one call of a tool is
streamed at a time: those that an engine writes beside it follow when the answer is complete.
"""

import msgspec

from quarterdeck.protocol import sse
from quarterdeck.protocol.anthropic.answers import (
    Call,
    Chat,
    Choice,
    Function,
    Said,
    Stop,
    begun,
    decode_chat,
    stop_of,
    tool_use,
    usage,
)
from quarterdeck.protocol.usage import Counts

FAILURE = "The engine sent an event that is not valid."


class MessageEvents:
    """Maps whole events of a chat's stream to events of a message. The result does not depend on how they arrive."""

    def __init__(self, *, shows_thoughts: bool) -> None:
        self._shows_thoughts = shows_thoughts
        self._has_begun = False
        self._is_over = False
        self._index = -1
        self._block: str | int | None = None
        """The open block: `text`, `thinking`, or the index of a call."""
        self._later: dict[int, Call] = {}
        """Calls that wait for the open one."""
        self._called: set[int] = set()
        self._last = Choice()
        self._usage: Counts | None = None

    def feed(self, whole: bytes) -> bytes:
        """The events for these whole events of a chat. b"": none."""
        return b"".join(self._map(event) for event in sse.events(whole))

    def _map(self, event: bytes) -> bytes:
        if self._is_over:
            return b""
        data = sse.data(event)
        if not data:
            return event  # a comment
        if data == b"[DONE]":
            return self._end()
        try:
            chat = decode_chat(data)
        except msgspec.DecodeError:
            return self._fail({"message": FAILURE})
        if not chat.choices and (parsed := sse.parse_json(data)) is not None and "error" in parsed:
            return self._fail(parsed["error"])
        return self._take(chat)

    def _take(self, chat: Chat) -> bytes:
        made = b""
        if not self._has_begun:
            self._has_begun = True
            message = {
                **begun(chat),
                "content": [],
                "stop_reason": None,
                "stop_sequence": None,
                "usage": usage(chat.usage),
            }
            made = _event("message_start", {"message": message})
        self._usage = chat.usage or self._usage
        for choice in chat.choices[:1]:
            made += self._say(choice.delta or choice.message or Said())
            if choice.finish_reason is not None:
                self._last = choice
        return made

    def _say(self, said: Said) -> bytes:
        made = b""
        if said.thoughts and self._shows_thoughts:
            made += self._extend("thinking", {"type": "thinking_delta", "thinking": said.thoughts})
        if said.text:
            made += self._extend("text", {"type": "text_delta", "text": said.text})
        for call in said.tool_calls or ():
            made += self._call(call)
        return made

    def _extend(self, kind: str, delta: dict[str, str]) -> bytes:
        made = b""
        if self._block != kind:
            empty = {"type": "text", "text": ""}
            if kind == "thinking":
                empty = {"type": "thinking", "thinking": "", "signature": ""}
            made = self._open(kind, empty)
        return made + self._delta(delta)

    def _call(self, call: Call) -> bytes:
        index = call.index
        if self._block == index:
            return self._arguments(call)
        if isinstance(self._block, int) or index in self._called:
            self._later[index] = _joined(self._later.get(index), call)
            return b""
        return self._open_call(call)

    def _open_call(self, call: Call) -> bytes:
        self._called.add(call.index)
        return self._open(call.index, {**tool_use(call), "input": {}}) + self._arguments(call)

    def _arguments(self, call: Call) -> bytes:
        piece = call.function.arguments
        return self._delta({"type": "input_json_delta", "partial_json": piece}) if piece else b""

    def _delta(self, delta: dict[str, str]) -> bytes:
        return _event("content_block_delta", {"index": self._index, "delta": delta})

    def _open(self, block: str | int, empty: dict[str, object] | dict[str, str]) -> bytes:
        made = self._close()
        self._index += 1
        self._block = block
        return made + _event("content_block_start", {"index": self._index, "content_block": empty})

    def _close(self) -> bytes:
        if self._block is None:
            return b""
        self._block = None
        return _event("content_block_stop", {"index": self._index})

    def _end(self) -> bytes:
        self._is_over = True
        made = b""
        for _, call in sorted(self._later.items()):
            made += self._open_call(call)
        made += self._close()
        stop: Stop = stop_of(self._last, calls=bool(self._called))
        made += _event("message_delta", {"delta": msgspec.structs.asdict(stop), "usage": usage(self._usage)})
        return made + _event("message_stop", {})

    def _fail(self, error: object) -> bytes:
        self._is_over = True
        found = error if isinstance(error, dict) else {}
        kind = {"rate_limit_error": "rate_limit_error"}.get(str(found.get("type")), "api_error")
        return _event("error", {"error": {"type": kind, "message": str(found.get("message", FAILURE))}})


def _joined(before: Call | None, call: Call) -> Call:
    """A call of which another piece has come."""
    if before is None:
        return call
    arguments = (before.function.arguments or "") + (call.function.arguments or "")
    function = Function(before.function.name or call.function.name, arguments)
    return Call(call.index, before.id or call.id, function)


def _event(name: str, members: dict[str, object]) -> bytes:
    return b"event: " + name.encode() + b"\n" + sse.event({"type": name, **members})
