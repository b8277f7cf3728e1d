"""Assembles the events of a stream into the choices of a whole answer.

Pieces are kept as received and parsed every 16 KB, as in `metering/transcript`, so a stream holds at most that and the
text so far, which is bounded.
"""

from typing import Any

import msgspec

from quarterdeck.inference.capture.cutting import whole_words
from quarterdeck.protocol import sse

FOLD_BYTES = 16 * 1024
OVERHEAD = 64
"""Characters counted for each choice and tool call besides its text."""
_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class _Delta(msgspec.Struct, gc=False):
    role: str | None = None
    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    function_call: Any = None
    tool_calls: Any = None


class _Choice(msgspec.Struct, gc=False):
    index: int = 0
    text: str | None = None
    delta: _Delta | None = None
    message: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(msgspec.Struct, gc=False):
    choices: list[_Choice] | None = None


class _LooseChoice(msgspec.Struct, gc=False):
    """A choice whose members have unexpected types."""

    index: int = 0
    text: Any = None
    delta: Any = None
    message: Any = None
    finish_reason: Any = None


class _LooseChunk(msgspec.Struct, gc=False):
    choices: list[_LooseChoice] | None = None


_chunks = msgspec.json.Decoder(_Chunk)
_loose_chunks = msgspec.json.Decoder(_LooseChunk)


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
        texts: list[str] = []
        for chunk in _parsed(whole):
            choices = chunk.choices
            if not choices:
                continue
            # Most chunks are a token of the only choice: their texts are joined, and added at once.
            choice = choices[0]
            delta = choice.delta
            if (
                type(delta) is _Delta
                and delta.content
                and choice.index == 0
                and choice.finish_reason is None
                and not (delta.role or delta.reasoning_content or delta.reasoning or delta.refusal)
                and not (delta.tool_calls or delta.function_call or choice.text)
                and len(choices) == 1
            ):
                texts.append(delta.content)
                continue
            self._add_texts(texts)
            for each in choices:
                self._take(each)
        self._add_texts(texts)

    def _add_texts(self, texts: list[str]) -> None:
        if texts:
            self._take(_Choice(delta=_Delta(content="".join(texts))))
            texts.clear()

    def _take(self, choice: "_Choice | _LooseChoice") -> None:
        assembled = self._choices.get(choice.index)
        if assembled is None:
            if self.room(OVERHEAD) < OVERHEAD:
                return
            assembled = self._choices[choice.index] = _Assembled(self)
        if (reason := choice.finish_reason) is not None and isinstance(reason, str):
            assembled.finish_reason = reason[:OVERHEAD]
        if (text := choice.text) is not None and isinstance(text, str):
            assembled.add("text", text)
        message = choice.delta or choice.message
        if type(message) is _Delta:
            assembled.take_delta(message)
        elif isinstance(message, dict):
            assembled.take(message)


class _Assembled:
    """One choice."""

    __slots__ = ("_answer", "_broken", "_calls", "_function", "_role", "_texts", "finish_reason")

    def __init__(self, answer: StreamAssembly) -> None:
        self._answer = answer
        self._texts: dict[str, list[str]] = {}
        self._broken: set[str] = set()
        """Texts of which not all was kept."""
        self._calls: dict[int, dict[str, Any]] = {}
        self._function: dict[str, Any] | None = None
        self._role: str | None = None
        self.finish_reason: str | None = None

    def add(self, name: str, text: str) -> None:
        if room := self._answer.room(len(text)):
            self._texts.setdefault(name, []).append(text[:room])
        if room < len(text):
            self._broken.add(name)

    def take_delta(self, delta: _Delta) -> None:
        """Most have only `content`."""
        if delta.content:
            self.add("content", delta.content)
        if delta.role is not None:
            self._role = delta.role[:OVERHEAD]
        if delta.reasoning_content or delta.reasoning or delta.refusal:
            for name in _TEXTS[1:]:
                if text := getattr(delta, name):
                    self.add(name, text)
        if delta.function_call or delta.tool_calls:
            self.take({"function_call": delta.function_call, "tool_calls": delta.tool_calls})

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
            found["text"] = self._text("text")
        else:
            message: dict[str, Any] = {"role": self._role or "assistant"}
            message |= {name: self._text(name) for name in _TEXTS if name in self._texts}
            if self._function is not None:
                message["function_call"] = _joined(self._function)
            if self._calls:
                calls = [self._calls[at] for at in sorted(self._calls)]
                message["tool_calls"] = [{**call, "function": _joined(call["function"])} for call in calls]
            found["message"] = message
        found["finish_reason"] = self.finish_reason
        return found

    def _text(self, name: str) -> str:
        text = "".join(self._texts[name])
        return whole_words(text) if name in self._broken else text

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
            room = self._answer.room(len(arguments))
            assembled["arguments"].append(arguments[:room])
            if room < len(arguments):
                assembled["is_broken"] = True


def _joined(function: dict[str, Any]) -> dict[str, Any]:
    arguments = "".join(function["arguments"])
    return {"name": function["name"], "arguments": whole_words(arguments) if "is_broken" in function else arguments}


def _parsed(whole: bytes) -> "list[_Chunk] | list[_LooseChunk]":
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
            found.append(_loose_chunks.decode(sse.data(event)))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # [DONE], a comment, or no chunk
    return found
