"""Streams of servers that are not vLLM, in the form in which OpenAI's clients expect them. Pure.

Hosted APIs and other engines keep to OpenAI's protocol with habits of their own: usage in another place, no `[DONE]`,
no finish reason, indices from 1, a role in every chunk, tool calls without an index, texts in parts. A caller must not
have to know which server answers, so such habits end here. Members that OpenAI doesn't have are passed on.

Everything is parsed, which costs some ten microseconds a chunk; streams of vLLM never come here.
"""

import secrets
import time
from typing import Any

import msgspec

from quarterdeck.protocol import sse
from quarterdeck.protocol.foreign import json_values
from quarterdeck.protocol.foreign.events import COMMENT, Event, EventReader
from quarterdeck.protocol.foreign.expected import CHAT_PATH, Expected
from quarterdeck.protocol.foreign.failures import failure_of
from quarterdeck.protocol.foreign.finish_reasons import finish_reason
from quarterdeck.protocol.foreign.messages import mend_content, message_of
from quarterdeck.protocol.foreign.tool_calls import ToolCalls
from quarterdeck.protocol.foreign.usage import take_usage

PINGS = frozenset({b"ping", b"pong", b"keepalive", b"keep-alive", b"keep_alive", b"heartbeat", b"processing"})
"""Texts that some servers send while they work. JSON that is no object is another one."""


class _Choice(msgspec.Struct):
    """What is known of one choice."""

    calls: ToolCalls
    is_finished: bool = False
    has_role: bool = False
    has_delta: bool = False
    has_function: bool = False
    half: str = ""
    """The first half of a character whose other half is in the next chunk."""


class ForeignSplitter:
    """Turns pieces of a foreign stream into whole events as OpenAI sends them: an `EventSplitter` that also mends.

    A stream is complete at `[DONE]`, or at the end of the body if each choice has its finish reason or the usage has
    come after the text. Anything else is left unfinished, which is an error to the reader.

    Chunks without text, such as the first one with the role, are held until there is some: before it, another endpoint
    may answer.
    """

    __slots__ = (
        "_choices",
        "_expected",
        "_failed",
        "_has_final_usage",
        "_head",
        "_held",
        "_indices",
        "_is_chat",
        "_is_done",
        "_reader",
        "_usage",
    )

    def __init__(self, expected: Expected) -> None:
        self._reader = EventReader()
        self._expected = expected
        self._is_chat = expected.path == CHAT_PATH
        self._choices: dict[int, _Choice] = {}
        self._indices: dict[int, int] = {}
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._held: list[bytes] | None = []
        """None: there is text."""
        self._has_final_usage = self._is_done = self._failed = False

    def feed(self, piece: bytes) -> bytes:
        """The events that this piece completes. b"": none. Raises EventTooLongError."""
        return b"".join([self._event(event) for event in self._reader.feed(piece)])

    def finish(self) -> bytes:
        """The last events, at the end of the body."""
        last = b"".join([self._event(event) for event in self._reader.finish()])
        return last + self._complete() if self.is_finished else last

    @property
    def is_finished(self) -> bool:
        """Whether the answer is complete, although `[DONE]` has not come."""
        if self._is_done or self._failed or not self._choices:
            return False
        return self._are_choices_finished() or self._has_final_usage

    def _are_choices_finished(self) -> bool:
        return len(self._choices) >= self._expected.choices and all(each.is_finished for each in self._choices.values())

    def _event(self, event: Event) -> bytes:
        if self._is_done or self._failed:
            return b""
        if event.name == COMMENT:
            return event.data + b"\n\n"
        if event.is_done:
            return self._complete() if self._choices else b""
        chunk = event.value
        if isinstance(chunk, list) and len(chunk) == 1:  # Gemini's errors
            chunk = chunk[0]
        if not isinstance(chunk, dict):
            return self._text(event)
        if (failure := failure_of(chunk, is_error=event.name == b"error")) is not None:
            return self._fail(failure)
        return self._chunk(chunk)

    def _text(self, event: Event) -> bytes:
        """An event that is no object: a sign of life, an end in words, the words of a failure, or nonsense."""
        if event.name == b"error":
            return self._fail({"message": event.data.decode("utf-8", "replace")})
        if event.value is not json_values.INVALID or event.data.lower() in PINGS or self._are_choices_finished():
            return b""
        if event.data[:5].lower() == b"error":
            return self._fail({"message": event.data.decode("utf-8", "replace")})
        self._failed = True
        return self._released() + sse.raw_event(event.data)

    def _fail(self, failure: dict[str, Any]) -> bytes:
        self._failed = True
        return b"data: " + json_values.encode({"error": failure}) + b"\n\n"

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        chunk = {**chunk}
        usage = take_usage(chunk)
        if usage is not None:
            self._usage = usage
        chunk.pop("error", None)  # there is none; some clients look for the name only
        choices = chunk.get("choices")
        choices = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
        self._learn_head(chunk)
        if not choices:
            # OpenAI has such chunks for the usage only. A client that did not ask for it reads the first choice.
            self._has_final_usage |= usage is not None and bool(self._choices)
            return b""
        if self._expected.choices == 1:
            choices = choices[:1]
        chunk["choices"] = mended = [found for each in choices if (found := self._choice(each)) is not None]
        if not mended:
            return b""
        said = b"data: " + json_values.encode({**chunk, **self._head}) + b"\n\n"
        if self._held is None:
            return said
        if not any(self._says_something(each) for each in mended):
            self._held.append(said)
            return b""
        return self._released() + said

    def _says_something(self, choice: dict[str, Any]) -> bool:
        if choice["finish_reason"] is not None:
            return True
        if not self._is_chat:
            return bool(choice["text"])
        return any(value for name, value in choice["delta"].items() if name != "role")

    def _released(self) -> bytes:
        held, self._held = self._held, None
        return b"".join(held or ())

    def _learn_head(self, chunk: dict[str, Any]) -> None:
        """One id for the whole answer, and the members that a client's types require."""
        head = self._head
        if not head:
            head["id"] = new_id(self._expected.path)
            head["object"] = "chat.completion.chunk" if self._is_chat else "text_completion"
            head["created"] = int(time.time())
            head["model"] = self._expected.model
        if not self._choices:
            if found := chunk.get("id"):
                head["id"] = found if isinstance(found, str) else str(found)
            if (created := created_of(chunk)) is not None:
                head["created"] = created
            if (model := chunk.get("model")) and isinstance(model, str):
                head["model"] = model

    def _index(self, index: object) -> int:
        """Counted from 0. The choices of a chat are alike, so the first one to come is 0; that of a completion says
        which prompt it belongs to."""
        count = self._expected.choices
        if count == 1:
            return 0
        index = index if type(index) is int else 0
        if not self._is_chat:
            return index if 0 <= index < count else 0
        if index not in self._indices and len(self._indices) > count:
            return count
        return self._indices.setdefault(index, len(self._indices))

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """The choice, mended. None: one that was not asked for, or the end of one that has ended."""
        index = self._index(choice.get("index"))
        if index >= self._expected.choices:
            return None
        known = self._choices.get(index)
        if known is None:
            known = self._choices[index] = _Choice(ToolCalls())
        choice = {**choice, "index": index}
        reason = choice.get("finish_reason") or choice.pop("finishReason", None)
        delta: dict[str, Any] = {}
        if self._is_chat:
            delta = choice["delta"] = self._delta(choice, known)
        else:
            choice["text"] = choice["text"] if isinstance(choice.get("text"), str) else ""
        finish = finish_reason(reason, has_tools=bool(known.calls), has_function=known.has_function)
        if finish is not None and known.is_finished:
            finish = None
            if not delta and not choice.get("text"):
                return None
        if finish is not None:
            known.is_finished = True
            if missing := known.calls.missing():
                delta["tool_calls"] = [*delta.get("tool_calls", ()), *missing]
        choice["finish_reason"] = finish
        return choice

    def _delta(self, choice: dict[str, Any], known: _Choice) -> dict[str, Any]:
        # MiniMax repeats the whole message in its last chunk. Where it is the first one, it is all of the text.
        names = ("delta", "text") if known.has_delta or choice.get("delta") else ("delta", "message", "text")
        delta = message_of(choice, *names)
        for name in ("message", "text"):
            choice.pop(name, None)
        known.has_delta |= bool(delta)
        delta.pop("role", None)
        if not known.has_role:  # once: clients that join the fragments of a stream would join the roles, too
            delta, known.has_role = {"role": "assistant", **delta}, True
        mend_content(delta)
        _join_halves(delta, known)
        if "tool_calls" in delta:
            delta["tool_calls"] = known.calls.fragments(delta["tool_calls"])
            if not delta["tool_calls"]:  # an empty list is read as a call by some clients
                del delta["tool_calls"]
        known.has_function |= bool(delta.get("function_call"))
        return delta

    def _complete(self) -> bytes:
        """`[DONE]`, and before it whatever the stream has not said."""
        self._is_done = True
        events = [self._released()]
        events += [
            self._last_chunk(index, known) for index, known in sorted(self._choices.items()) if not known.is_finished
        ]
        if self._usage is not None:
            events.append(sse.event({**self._head, "choices": [], "usage": self._usage}))
        return b"".join([*events, sse.DONE])

    def _last_chunk(self, index: int, known: _Choice) -> bytes:
        text: dict[str, Any] = {"text": ""}
        if self._is_chat:
            missing = known.calls.missing()
            text = {"delta": {"tool_calls": missing} if missing else {}}
        finish = finish_reason("stop", has_tools=bool(known.calls), has_function=known.has_function)
        return sse.event({**self._head, "choices": [{"index": index, **text, "finish_reason": finish}]})


def new_id(path: str) -> str:
    return f"{'chatcmpl' if path == CHAT_PATH else 'cmpl'}-{secrets.token_hex(12)}"


def created_of(chunk: dict[str, Any]) -> int | None:
    """Unix seconds. None: it has none that can be read."""
    created = chunk.get("created")
    if isinstance(created, str) and created.isdecimal() and len(created) < 12:
        return int(created)
    return int(created) if isinstance(created, int | float) and 0 < created < 2**40 else None


def _join_halves(delta: dict[str, Any], known: _Choice) -> None:
    """Some servers cut a character outside of the basic plane into two escapes, in two chunks."""
    content = delta.get("content")
    if not isinstance(content, str) or not (content or known.half):
        return
    if known.half:
        content, known.half = known.half + content, ""
    if "\ud800" <= content[-1] <= "\udbff":
        content, known.half = content[:-1], content[-1]
    delta["content"] = content
