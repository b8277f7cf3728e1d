"""Whole answers as streams and streams as whole answers, for servers that do one where the other was asked for. Pure.

Both ends have OpenAI's form: `answers` and `streams` have mended them.
"""

from typing import Any

import msgspec

from quarterdeck.protocol import sse
from quarterdeck.protocol.foreign.expected import CHAT_PATH, NotAnAnswerError


def as_events(body: bytes, path: str) -> bytes:
    """A whole answer as the events of a stream."""
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


def as_answer(events: bytes, path: str) -> bytes:
    """The events of a stream as a whole answer. An error event is an error object.

    Raises NotAnAnswerError for a stream that ends before `[DONE]`.
    """
    if not events.endswith(sse.DONE):
        last = sse.parse(events[events.rstrip(b"\n").rfind(b"\n\n") + 1 :].lstrip(b"\n"))
        if last is not None and "error" in last:
            return msgspec.json.encode(last)
        raise NotAnAnswerError("it is a stream that ends before it is complete")
    answer: dict[str, Any] = {}
    choices: dict[int, dict[str, Any]] = {}
    for event in sse.events(events):
        if (chunk := sse.parse(event)) is None:
            continue
        answer |= {name: value for name, value in chunk.items() if name != "choices"}
        for choice in chunk["choices"]:
            _join_choice(choices.setdefault(choice["index"], {"index": choice["index"]}), choice, path)
    answer["object"] = "chat.completion" if path == CHAT_PATH else "text_completion"
    answer["choices"] = [choices[index] for index in sorted(choices)]
    return msgspec.json.encode(answer)


def _join_choice(whole: dict[str, Any], choice: dict[str, Any], path: str) -> None:
    for name, value in choice.items():
        if name == "delta":
            _join(whole.setdefault("message", {"role": "assistant", "content": None}), value)
        elif name == "text":
            whole["text"] = whole.get("text", "") + value
        elif name == "logprobs" and isinstance(value, dict):
            whole["logprobs"] = logprobs = whole.get("logprobs") or {}
            _join(logprobs, value)
        elif value is not None or name not in whole:
            whole[name] = value
    if path == CHAT_PATH:
        whole.setdefault("message", {"role": "assistant", "content": None})


def _join(whole: dict[str, Any], part: dict[str, Any]) -> None:
    """Add what a delta holds: texts are joined, lists extended, calls joined by their index."""
    for name, value in part.items():
        known = whole.get(name)
        if name == "tool_calls":
            _join_calls(whole.setdefault("tool_calls", []), value)
        elif name == "role" or known is None:
            whole[name] = value
        elif isinstance(known, str) and isinstance(value, str):
            whole[name] = known + value
        elif isinstance(known, list) and isinstance(value, list):
            known.extend(value)
        elif isinstance(known, dict) and isinstance(value, dict):
            _join(known, value)
        elif value is not None:
            whole[name] = value


def _join_calls(calls: list[dict[str, Any]], fragments: list[dict[str, Any]]) -> None:
    for fragment in fragments:
        part = {name: value for name, value in fragment.items() if name != "index"}
        if fragment["index"] >= len(calls):
            calls.append(part)
        else:
            _join(calls[fragment["index"]], part)
