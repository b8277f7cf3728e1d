"""Answers of servers that are not vLLM, in the form in which OpenAI's clients expect them. Pure.

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

CHAT_PATH = "/v1/chat/completions"
COMPLETIONS_PATH = "/v1/completions"
EMBEDDINGS_PATH = "/v1/embeddings"
BOM = b"\xef\xbb\xbf"
FINISH_REASONS = {
    **dict.fromkeys(("eos", "eos_token", "end_turn", "stop_sequence", "STOP", "end"), "stop"),
    **dict.fromkeys(("max_tokens", "MAX_TOKENS", "model_length", "max_length"), "length"),
    **dict.fromkeys(("tool_use", "tool_call"), "tool_calls"),
    **dict.fromkeys(("SAFETY", "RECITATION", "PROHIBITED_CONTENT", "BLOCKLIST", "safety"), "content_filter"),
}
"""Other servers' words, and OpenAI's."""
FAILED_REASONS = {"error": "engine_error", "insufficient_system_resource": "overloaded"}
"""Finish reasons of an answer that failed (OpenRouter, DeepSeek)."""


class NotAnAnswerError(ValueError):
    """A whole body that is JSON, but not an answer to the request."""


class _Choice(msgspec.Struct):
    """What is known of one choice of a stream."""

    is_finished: bool = False
    has_role: bool = False
    has_delta: bool = False
    tool_ids: list[str | None] = []


class ForeignSplitter:
    """Turns pieces of a foreign stream into whole events as OpenAI sends them: an `EventSplitter` that also mends.

    A stream is complete at `[DONE]`, or at the end of the body if each choice has its finish reason or the usage has
    come after the text. Anything else is left unfinished, which is an error to the reader.
    """

    __slots__ = (
        "_choices",
        "_count",
        "_failed",
        "_has_begun",
        "_has_final_usage",
        "_head",
        "_indices",
        "_is_done",
        "_path",
        "_splitter",
        "_usage",
    )

    def __init__(self, path: str, choices: int = 1) -> None:
        """`choices`: how many the request asked for."""
        self._splitter = sse.EventSplitter()
        self._path = path
        self._count = choices
        self._choices: dict[int, _Choice] = {}
        self._indices: dict[int, int] = {}
        self._head: dict[str, Any] = {}
        self._usage: dict[str, Any] | None = None
        self._has_final_usage = self._is_done = self._failed = self._has_begun = False

    def feed(self, piece: bytes) -> bytes:
        """The events that this piece completes. b"": none. Raises EventTooLongError."""
        whole = self._splitter.feed(piece)
        return b"".join([self._event(event) for event in sse.events(whole)]) if whole else b""

    def finish(self) -> bytes:
        """The last events, at the end of the body."""
        last = b""
        if rest := self._splitter.rest.strip():
            self._splitter = sse.EventSplitter()
            if sse.parse(rest + b"\n") is not None or sse.data(rest).strip() == b"[DONE]" or rest[:1] in (b"{", b"["):
                last = self._event(rest + b"\n\n")
        if self._is_done or self._failed or not self._choices:
            return last
        return last + self._complete() if self.is_finished else last

    @property
    def is_finished(self) -> bool:
        """Whether the answer is complete, although `[DONE]` has not come."""
        if self._is_done or self._failed or not self._choices:
            return False
        all_finished = len(self._choices) >= self._count and all(each.is_finished for each in self._choices.values())
        return all_finished or self._has_final_usage

    def _event(self, event: bytes) -> bytes:
        if not self._has_begun:
            self._has_begun = True
            event = event.removeprefix(BOM)
        if self._is_done or self._failed:
            return b""
        data = sse.data(event)
        if not data:
            data = event.strip()
            if data[:1] not in (b"{", b"["):  # a comment, or an event without data
                return event if data[:1] == b":" else b""
        data = data.removeprefix(b"data: ")  # some proxies write it twice
        if data.strip() == b"[DONE]":
            return self._complete() if self._choices else b""
        try:
            chunk = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return sse.raw_event(data)
        if isinstance(chunk, list) and len(chunk) == 1:  # Gemini's errors
            chunk = chunk[0]
        if not isinstance(chunk, dict):
            return sse.raw_event(data)
        if (failure := _failure(chunk, is_error=event.startswith(b"event: error"))) is not None:
            self._failed = True
            return sse.event({"error": failure})
        return self._chunk(chunk)

    def _chunk(self, chunk: dict[str, Any]) -> bytes:
        usage = _take_usage(chunk)
        if usage is not None:
            self._usage = usage
        choices = chunk.get("choices")
        choices = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
        self._learn_head(chunk)
        if not choices:
            # OpenAI has such chunks for the usage only. A client that did not ask for it reads the first choice.
            self._has_final_usage |= usage is not None and bool(self._choices)
            return b""
        chunk["choices"] = mended = [found for each in choices if (found := self._choice(each)) is not None]
        return sse.event({**chunk, **self._head}) if mended else b""

    def _learn_head(self, chunk: dict[str, Any]) -> None:
        """One id for the whole answer, and the members that a client's types require."""
        head = self._head
        if not head:
            head["id"] = _new_id(self._path)
            head["object"] = "chat.completion.chunk" if self._path == CHAT_PATH else "text_completion"
            head["created"] = int(time.time())
        if not self._choices:
            for name in ("id", "created", "model"):
                if chunk.get(name):
                    head[name] = chunk[name]

    def _index(self, index: object) -> int:
        """Counted from 0. The choices of a chat are alike, so the first one to come is 0; that of a completion says
        which prompt it belongs to."""
        if self._count == 1:
            return 0
        index = index if type(index) is int else 0
        if self._path != CHAT_PATH:
            return index if 0 <= index < self._count else 0
        if index not in self._indices and len(self._indices) > self._count:
            return self._count
        return self._indices.setdefault(index, len(self._indices))

    def _choice(self, choice: dict[str, Any]) -> dict[str, Any] | None:
        """The choice, mended. None: one that was not asked for."""
        index = self._index(choice.get("index"))
        if index >= self._count:
            return None
        known = self._choices.get(index)
        if known is None:
            known = self._choices[index] = _Choice(tool_ids=[])
        choice = {**choice, "index": index}
        if self._path == CHAT_PATH:
            message = choice.pop("message", None)
            # MiniMax repeats the whole message in its last chunk. Where it is the first one, it is all of the text.
            delta = choice.get("delta") if "delta" in choice or known.has_delta else message
            known.has_delta |= bool(delta)
            choice["delta"] = _delta(delta, known)
        elif not isinstance(choice.get("text"), str):
            choice["text"] = ""
        finish = _finish_reason(choice.get("finish_reason"), has_tools=bool(known.tool_ids))
        known.is_finished |= finish is not None
        choice["finish_reason"] = finish
        return choice

    def _complete(self) -> bytes:
        """`[DONE]`, and before it whatever the stream has not said."""
        self._is_done = True
        events = [
            self._last_chunk(index, "tool_calls" if known.tool_ids else "stop")
            for index, known in sorted(self._choices.items())
            if not known.is_finished
        ]
        if self._usage is not None:
            events.append(sse.event({**self._head, "choices": [], "usage": self._usage}))
        return b"".join([*events, sse.DONE])

    def _last_chunk(self, index: int, finish: str) -> bytes:
        text: dict[str, Any] = {"delta": {}} if self._path == CHAT_PATH else {"text": ""}
        return sse.event({**self._head, "choices": [{"index": index, **text, "finish_reason": finish}]})


def mend_answer(body: bytes, path: str) -> bytes:
    """A whole answer as OpenAI would send it; the same bytes where nothing is to be mended, or the body is not JSON.

    Raises NotAnAnswerError for JSON that is not an answer to a request of this path.
    """
    body = body.removeprefix(BOM)
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body
    answer = found[0] if isinstance(found, list) and len(found) == 1 else found
    if not isinstance(answer, dict):
        return body
    if answer.get("error") or answer.get("object") == "error":
        return body if answer is found else msgspec.json.encode(answer)
    if path == EMBEDDINGS_PATH:
        mended = _embeddings(answer)
    elif path in (CHAT_PATH, COMPLETIONS_PATH):
        mended = _completion(answer, path)
    else:
        return body
    return body if mended == found else msgspec.json.encode(mended)


def as_events(body: bytes, path: str) -> bytes:
    """A whole answer as the events of a stream, for a server that doesn't stream though it was asked to."""
    answer = msgspec.json.decode(body)
    usage = answer.pop("usage", None)
    answer["object"] = "chat.completion.chunk" if path == CHAT_PATH else "text_completion"
    events = []
    for choice in answer.pop("choices"):
        finish = choice.pop("finish_reason", None) or "stop"
        ends: dict[str, Any] = {"text": ""}
        if path == CHAT_PATH:
            delta = choice.pop("message")
            if isinstance(calls := delta.get("tool_calls"), list):
                delta["tool_calls"] = [{**call, "index": at} for at, call in enumerate(calls)]
            choice["delta"], ends = delta, {"delta": {}}
        events.append(sse.event({**answer, "choices": [{**choice, "finish_reason": None}]}))
        last = {"index": choice.get("index", 0), **ends, "finish_reason": finish}
        events.append(sse.event({**answer, "choices": [last]}))
    if usage is not None:
        events.append(sse.event({**answer, "choices": [], "usage": usage}))
    return b"".join([*events, sse.DONE])


def _completion(answer: dict[str, Any], path: str) -> dict[str, Any]:
    choices = answer.get("choices")
    if not isinstance(choices, list) or not choices or not all(isinstance(each, dict) for each in choices):
        raise NotAnAnswerError("it has no choices")
    if (failure := _failure(answer)) is not None:
        return {"error": failure}
    mended = {
        **answer,
        "choices": [_whole_choice(*each, path) for each in zip(choices, _indices(choices), strict=True)],
    }
    if (usage := _take_usage(mended)) is not None:
        mended["usage"] = usage
    mended["id"] = answer.get("id") or _new_id(path)
    mended["object"] = "chat.completion" if path == CHAT_PATH else "text_completion"
    mended["created"] = answer.get("created") or int(time.time())
    return mended


def _indices(choices: list[dict[str, Any]]) -> list[int]:
    """The indices of whole choices from 0 on; their places where they have none that can be used."""
    found = [each["index"] for each in choices if type(each.get("index")) is int]
    for first in (0, 1):
        if sorted(found) == list(range(first, first + len(choices))):
            return [index - first for index in found]
    return list(range(len(choices)))


def _whole_choice(choice: dict[str, Any], index: int, path: str) -> dict[str, Any]:
    choice = {**choice, "index": index}
    calls: list[Any] = []
    if path == CHAT_PATH:
        message = choice.get("message")
        known = _Choice(tool_ids=[])
        message = choice["message"] = {"content": None, **_delta(message, known, is_whole=True)}
        message["role"] = message.get("role") or "assistant"
        calls = message.get("tool_calls") or []
    elif not isinstance(choice.get("text"), str):
        choice["text"] = ""
    finish = _finish_reason(choice.get("finish_reason"), has_tools=bool(calls))
    choice["finish_reason"] = finish or ("tool_calls" if calls else "stop")
    return choice


def _embeddings(answer: dict[str, Any]) -> dict[str, Any]:
    data = answer.get("data")
    if not isinstance(data, list) or not all(isinstance(each, dict) and "embedding" in each for each in data):
        raise NotAnAnswerError("it has no embeddings")
    starts = min((each["index"] for each in data if type(each.get("index")) is int), default=0)
    rows = [
        {"object": "embedding", **each, "index": each["index"] - starts if type(each.get("index")) is int else at}
        for at, each in enumerate(data)
    ]
    return {"object": "list", **answer, "data": rows}


def _failure(chunk: dict[str, Any], *, is_error: bool = False) -> dict[str, Any] | None:
    """The error that a chunk or an answer reports in any of its places."""
    error: Any = chunk.get("error")
    if not error and isinstance(choices := chunk.get("choices"), list):
        for choice in choices:
            if not isinstance(choice, dict):
                continue
            error = choice.get("error")
            reason = choice.get("finish_reason")
            if not error and isinstance(reason, str) and reason in FAILED_REASONS:
                error = {"message": "The engine could not finish its answer.", "code": FAILED_REASONS[reason]}
            if error:
                break
    if not error and is_error:
        error = chunk
    if not error:
        return None
    if isinstance(error, dict):
        return error
    return {"message": str(error), "type": chunk.get("error_type"), "code": chunk.get("code")}


def _take_usage(chunk: dict[str, Any]) -> dict[str, Any] | None:
    """Remove the usage from a chunk, wherever it is."""
    usage = chunk.pop("usage", None)
    if isinstance(groq := chunk.get("x_groq"), dict) and isinstance(groq.get("usage"), dict):
        chunk["x_groq"] = {name: value for name, value in groq.items() if name != "usage"}
        usage = usage or groq["usage"]
    if isinstance(choices := chunk.get("choices"), list):  # Moonshot's
        for choice in choices:
            if isinstance(choice, dict) and "usage" in choice:
                usage = usage or choice["usage"]
                del choice["usage"]
    return usage if isinstance(usage, dict) and usage else None


def _delta(found: Any, known: _Choice, *, is_whole: bool = False) -> dict[str, Any]:
    delta = dict(found) if isinstance(found, dict) else {}
    if "role" in delta and (known.has_role or not isinstance(delta["role"], str)):
        del delta["role"]  # clients that join the fragments of a stream would join the roles, too
    known.has_role |= "role" in delta
    if isinstance(delta.get("content"), list):
        _join_parts(delta)
    if isinstance(calls := delta.get("tool_calls"), list):
        calls = [_tool_call(each, known, is_whole=is_whole) for each in calls if isinstance(each, dict)]
        delta["tool_calls"] = calls
        if not calls:  # an empty list is read as a call by some clients
            del delta["tool_calls"]
    return delta


def _join_parts(delta: dict[str, Any]) -> None:
    """Mistral's content parts: texts, and thoughts with texts inside."""
    texts, thoughts = [], []
    for part in delta["content"]:
        if not isinstance(part, dict):
            texts.append(str(part))
        elif part.get("type") == "thinking":
            inner = part.get("thinking")
            inner = inner if isinstance(inner, list) else [{"text": inner}]
            thoughts += [str(each.get("text") or "") for each in inner if isinstance(each, dict)]
        elif isinstance(part.get("text"), str):
            texts.append(part["text"])
    delta["content"] = "".join(texts) if texts or not thoughts else None
    if thoughts and not delta.get("reasoning_content"):
        delta["reasoning_content"] = "".join(thoughts)


def _tool_call(call: dict[str, Any], known: _Choice, *, is_whole: bool) -> dict[str, Any]:
    """A tool call, or a fragment of one: with an index and the text of its arguments, its id and name once."""
    call, ids = dict(call), known.tool_ids
    call_id = call.get("id") if isinstance(call.get("id"), str) and call["id"] else None
    index = call.get("index")
    if is_whole or type(index) is not int or not 0 <= index <= len(ids):
        if call_id in ids and call_id is not None:
            index = ids.index(call_id)
        else:
            index = len(ids) if call_id is not None or is_whole or not ids else len(ids) - 1
    is_new = index == len(ids)
    if is_new:
        ids.append(call_id or f"call_{secrets.token_hex(12)}")
    function = dict(call["function"]) if isinstance(call.get("function"), dict) else {}
    if "arguments" in function and not isinstance(function["arguments"], str):
        arguments = function["arguments"]
        function["arguments"] = "" if arguments is None else msgspec.json.encode(arguments).decode()
    if is_new:
        call["id"], call["type"] = ids[index], call.get("type") or "function"
    else:
        call.pop("id", None)
        call.pop("type", None)
        function.pop("name", None)
    call["function"] = function
    if is_whole:
        call.pop("index", None)
    else:
        call["index"] = index
    return call


def _finish_reason(reason: object, *, has_tools: bool) -> str | None:
    if not isinstance(reason, str) or not reason:
        return None
    reason = FINISH_REASONS.get(reason, reason)
    return "tool_calls" if reason == "stop" and has_tools else reason


def _new_id(path: str) -> str:
    return f"{'chatcmpl' if path == CHAT_PATH else 'cmpl'}-{secrets.token_hex(12)}"
