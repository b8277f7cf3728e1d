"""Whole answers of servers that are not vLLM, as OpenAI would send them. Pure. Streams: `streams`."""

import time
from typing import Any

from quarterdeck.protocol.foreign import json_values
from quarterdeck.protocol.foreign.embeddings import mend_embeddings
from quarterdeck.protocol.foreign.events import BOM
from quarterdeck.protocol.foreign.expected import (
    CHAT_PATH,
    COMPLETIONS_PATH,
    EMBEDDINGS_PATH,
    Expected,
    NotAnAnswerError,
)
from quarterdeck.protocol.foreign.failures import failure_of
from quarterdeck.protocol.foreign.finish_reasons import finish_reason
from quarterdeck.protocol.foreign.messages import mend_content, message_of
from quarterdeck.protocol.foreign.streams import created_of, new_id
from quarterdeck.protocol.foreign.tool_calls import whole_calls
from quarterdeck.protocol.foreign.usage import take_usage


def mend_answer(body: bytes, expected: Expected) -> bytes:
    """A whole answer as OpenAI would send it; the same bytes where nothing is to be mended, or the body is not JSON.

    Raises NotAnAnswerError for JSON that is not an answer to a request of this path.
    """
    body = body.removeprefix(BOM)
    found = json_values.decode(body)
    answer = found[0] if isinstance(found, list) and len(found) == 1 else found
    if not isinstance(answer, dict):
        return body
    if (failure := failure_of(answer)) is not None:
        return body if failure is answer.get("error") else json_values.encode({"error": failure})
    if expected.path == EMBEDDINGS_PATH:
        mended = mend_embeddings(answer, expected)
    elif expected.path in (CHAT_PATH, COMPLETIONS_PATH):
        mended = _completion(answer, expected)
    else:
        return body
    is_plain = b"NaN" not in body and b"Infinity" not in body
    return body if is_plain and json_values.is_same(mended, found) else json_values.encode(mended)


def _completion(answer: dict[str, Any], expected: Expected) -> dict[str, Any]:
    choices = answer.get("choices")
    choices = [each for each in choices if isinstance(each, dict)] if isinstance(choices, list) else []
    if not choices:
        raise NotAnAnswerError("it has no choices")
    mended = {name: value for name, value in answer.items() if name != "error"}
    mended["choices"] = [_choice(*each, expected.path) for each in zip(choices, _indices(choices), strict=True)]
    had_usage = "usage" in mended
    usage = take_usage(mended)
    if usage is not None or had_usage:
        mended["usage"] = usage
    found = answer.get("id")
    mended["id"] = (found if isinstance(found, str) else str(found)) if found else new_id(expected.path)
    mended["object"] = "chat.completion" if expected.path == CHAT_PATH else "text_completion"
    created = created_of(answer)
    mended["created"] = int(time.time()) if created is None else created
    if not isinstance(answer.get("model"), str) or not answer["model"]:
        mended["model"] = expected.model
    return mended


def _indices(choices: list[dict[str, Any]]) -> list[int]:
    """The indices of whole choices from 0 on; their places where they have none that can be used."""
    found = [each["index"] for each in choices if type(each.get("index")) is int]
    for first in (0, 1):
        if sorted(found) == list(range(first, first + len(choices))):
            return [index - first for index in found]
    return list(range(len(choices)))


def _choice(choice: dict[str, Any], index: int, path: str) -> dict[str, Any]:
    choice = {**choice, "index": index}
    reason = choice.get("finish_reason") or choice.pop("finishReason", None)
    message: dict[str, Any] = {}
    if path == CHAT_PATH:
        message = choice["message"] = _message(choice)
    elif not isinstance(choice.get("text"), str):
        choice["text"] = ""
    has_tools, has_function = bool(message.get("tool_calls")), bool(message.get("function_call"))
    finish = finish_reason(reason, has_tools=has_tools, has_function=has_function)
    choice["finish_reason"] = finish or finish_reason("stop", has_tools=has_tools, has_function=has_function)
    return choice


def _message(choice: dict[str, Any]) -> dict[str, Any]:
    """The message of a whole choice, from where it is. Raises NotAnAnswerError where there is none."""
    if not any(choice.get(name) is not None for name in ("message", "messages", "delta", "text")):
        raise NotAnAnswerError("a choice has no message")
    message = message_of(choice, "message", "messages", "delta", "text")
    message = {"content": None, **message, "role": "assistant"}
    mend_content(message)
    if "tool_calls" in message:
        calls = whole_calls(message["tool_calls"])
        if calls:
            message["tool_calls"] = calls
        else:  # an empty list is read as a call by some clients
            del message["tool_calls"]
    return message
