"""Assembles the events of a stream into the choices of a whole answer.

Pieces are kept as received and parsed every 16 KB, as in `metering/transcript`, so a stream holds at most that and the
text so far, which is bounded.
"""

from typing import Any

import msgspec

from quarterdeck.protocol import sse

FOLD_BYTES = 16 * 1024
OVERHEAD = 64
"""Characters counted for each choice and tool call besides its text."""
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    text: Any = None
    delta: Any = None
    message: Any = None
    finish_reason: Any = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None


_chunks = msgspec.json.Decoder(_Chunk)


class StreamAssembly:
    """One answer. `most`: characters kept of all its texts; of what comes after, only finish reasons."""

    __slots__ = ("_choices", "_most", "_pieces", "_size", "_taken", "is_cut", "total")

    def __init__(self, most: int) -> None:
        self._most = most
        self._pieces: list[bytes] = []
        self._size = 0
        self._choices: dict[int, _Assembled] = {}
        self._taken = 0
        self.total = 0
        """Characters of all texts, also of those that were not kept."""
        self.is_cut = False

    def add(self, whole: bytes) -> None:
        """Add whole events."""
        self._pieces.append(whole)
        self._size += len(whole)
        if self._size >= FOLD_BYTES:
            self._fold()

    def choices(self) -> list[dict[str, Any]]:
        """The choices so far, by index, in the form of `content.choices_of`."""
        self._fold()
        return [self._choices[index].whole(index) for index in sorted(self._choices)]

    def room(self, size: int) -> int:
        """How many of `size` further characters may be kept."""
        self.total += size
        room = max(0, min(size, self._most - self._taken))
        self._taken += room
        self.is_cut |= room < size
        return room

    def _fold(self) -> None:
        if not self._pieces:
            return
        whole = b"".join(self._pieces)
        self._pieces.clear()
        self._size = 0
        for chunk in _parsed(whole):
            for choice in chunk.choices or ():
                self._take(choice)

    def _take(self, choice: _Choice) -> None:
        assembled = self._choices.get(choice.index)
        if assembled is None:
            if self.room(OVERHEAD) < OVERHEAD:
                return
            assembled = self._choices[choice.index] = _Assembled(self)
        if isinstance(choice.finish_reason, str):
            assembled.finish_reason = choice.finish_reason[:OVERHEAD]
        if isinstance(choice.text, str):
            assembled.add("text", choice.text)
        message = choice.delta or choice.message
        if isinstance(message, dict):
            assembled.take(message)


class _Assembled:
    """One choice."""

    __slots__ = ("_answer", "_calls", "_function", "_role", "_texts", "finish_reason")

    def __init__(self, answer: StreamAssembly) -> None:
        self._answer = answer
        self._texts: dict[str, list[str]] = {}
        self._calls: dict[int, dict[str, Any]] = {}
        self._function: dict[str, Any] | None = None
        self._role: str | None = None
        self.finish_reason: str | None = None

    def add(self, name: str, text: str) -> None:
        if room := self._answer.room(len(text)):
            self._texts.setdefault(name, []).append(text[:room])

    def take(self, message: dict[str, Any]) -> None:
        if isinstance(role := message.get("role"), str):
            self._role = role[:OVERHEAD]
        for name in _TEXTS:
            if isinstance(text := message.get(name), str) and text:
                self.add(name, text)
        if isinstance(function := message.get("function_call"), dict):
            if self._function is None:
                self._function = {"name": "", "arguments": []}
            self._extend(self._function, function)
        calls = message.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            if isinstance(call, dict):
                self._take_call(call)

    def whole(self, index: int) -> dict[str, Any]:
        found: dict[str, Any] = {"index": index}
        if "text" in self._texts:
            found["text"] = "".join(self._texts["text"])
        else:
            message: dict[str, Any] = {"role": self._role or "assistant"}
            message |= {name: "".join(self._texts[name]) for name in _TEXTS if name in self._texts}
            if self._function is not None:
                message["function_call"] = _joined(self._function)
            if self._calls:
                calls = [self._calls[at] for at in sorted(self._calls)]
                message["tool_calls"] = [{**call, "function": _joined(call["function"])} for call in calls]
            found["message"] = message
        found["finish_reason"] = self.finish_reason
        return found

    def _take_call(self, call: dict[str, Any]) -> None:
        at = call.get("index")
        if not isinstance(at, int):
            at = 0
        assembled = self._calls.get(at)
        if assembled is None:
            if self._answer.room(OVERHEAD) < OVERHEAD:
                return
            assembled = self._calls[at] = {"id": None, "type": "function", "function": {"name": "", "arguments": []}}
        for name in ("id", "type"):
            if isinstance(value := call.get(name), str) and value:
                assembled[name] = value[: 2 * OVERHEAD]
        if isinstance(function := call.get("function"), dict):
            self._extend(assembled["function"], function)

    def _extend(self, assembled: dict[str, Any], function: dict[str, Any]) -> None:
        if isinstance(name := function.get("name"), str) and name:
            assembled["name"] = (assembled["name"] + name[: self._answer.room(len(name))])[: 4 * OVERHEAD]
        if isinstance(arguments := function.get("arguments"), str) and arguments:
            assembled["arguments"].append(arguments[: self._answer.room(len(arguments))])


def _joined(function: dict[str, Any]) -> dict[str, Any]:
    return {"name": function["name"], "arguments": "".join(function["arguments"])}


def _parsed(whole: bytes) -> list[_Chunk]:
    """All events at once where they are a plain row of objects, which takes a tenth of the time; else one by one."""
    if whole.startswith(b"data: "):
        end = -len(sse.DONE) if whole.endswith(sse.DONE) else None
        try:
            return _chunks.decode_lines(b"\n".join(whole[6:end].rsplit(b"\n\ndata: ")))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    found = []
    for event in sse.events(whole):
        try:
            found.append(_chunks.decode(sse.data(event)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # [DONE], a comment, or no chunk
    return found
