"""OpenAI's first form of tools: `functions` and `function_call`, deprecated in 2023, still sent by older clients. Pure.

vLLM ignores it in silence, and most hosted APIs never knew it. A request is translated to `tools` before anything else
reads it, so that limits, cache, records and engines know one form; the answer is translated back on its way to the
client (`FunctionCallEvents`, `as_function_answer`).
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol import sse

MEMBERS = frozenset(("functions", "function_call"))
"""Members of a request that only this form has."""

_CHOICES = ("none", "auto")
_decode_objects = msgspec.json.Decoder(list[dict[str, Any]]).decode


def with_tools(members: Mapping[str, msgspec.Raw]) -> dict[str, msgspec.Raw]:
    """The request in today's form; other members stay byte for byte. Raises BadRequestError."""
    made = {name: raw for name, raw in members.items() if name not in MEMBERS}
    functions, choice = members.get("functions"), members.get("function_call")
    if functions is not None:
        for name in ("tools", "tool_choice"):
            if name in members:
                raise BadRequestError(
                    f"Invalid parameters: '{name}' can't be combined with 'functions'.",
                    param=name,
                    code="invalid_value",
                )
        made["tools"] = _raw([{"type": "function", "function": each} for each in _functions(functions)])
        made["parallel_tool_calls"] = msgspec.Raw(b"false")  # an answer has one `function_call`
        if choice is not None:
            made["tool_choice"] = _raw(_tool_choice(msgspec.json.decode(choice)))
    elif choice is not None and msgspec.json.decode(choice) != "none":
        raise BadRequestError(
            "Invalid value for 'function_call': it is only allowed when 'functions' are specified.",
            param="function_call",
            code="invalid_value",
        )
    if "messages" in members:
        made["messages"] = _messages(members["messages"])
    return made


def as_function_answer(body: bytes) -> bytes:
    """A whole answer with `function_call` in place of `tool_calls`. Raises msgspec.DecodeError."""
    answer = msgspec.json.decode(body, type=dict[str, Any])
    choices = answer.get("choices")
    changed = [_translate(each, "message") for each in choices or () if isinstance(each, dict)]
    return msgspec.json.encode(answer) if any(changed) else body


class FunctionCallEvents:
    """Maps whole events of a chat's stream to events with `function_call` in place of `tool_calls`. Events without one
    stay byte for byte."""

    def feed(self, whole: bytes) -> bytes:
        if b"tool_calls" not in whole:
            return whole
        return b"".join(self._map(event) for event in sse.events(whole))

    def _map(self, event: bytes) -> bytes:
        chunk = sse.parse(event)
        choices = chunk.get("choices") if chunk is not None else None
        if chunk is None or not isinstance(choices, list):
            return event
        changed = [_translate(each, "delta") for each in choices if isinstance(each, dict)]
        return sse.event(chunk) if any(changed) else event


def _functions(raw: msgspec.Raw) -> list[dict[str, Any]]:
    try:
        functions = _decode_objects(raw)
    except msgspec.DecodeError:
        raise BadRequestError(
            "Invalid type for 'functions': expected an array of objects.", param="functions", code="invalid_type"
        ) from None
    for at, function in enumerate(functions):
        if not isinstance(function.get("name"), str):
            raise BadRequestError(
                f"Missing required parameter: 'functions[{at}].name'.",
                param=f"functions[{at}].name",
                code="missing_required_parameter",
            )
    return functions


def _tool_choice(choice: Any) -> Any:
    if choice in _CHOICES:
        return choice
    if isinstance(choice, dict) and isinstance(choice.get("name"), str):
        return {"type": "function", "function": {"name": choice["name"]}}
    raise BadRequestError(
        "Invalid value for 'function_call': expected 'none', 'auto' or an object with a 'name'.",
        param="function_call",
        code="invalid_value",
    )


def _messages(raw: msgspec.Raw) -> msgspec.Raw:
    """The messages with calls and results of functions as those of tools; the same bytes where there are none.

    A result follows its call. The ids, which the old form does not have, are the calls' numbers, so that a conversation
    that is repeated has the same prefix; nine letters and digits, as Mistral's templates demand.
    """
    if b"function" not in bytes(raw):
        return raw
    try:
        messages = _decode_objects(raw)
    except msgspec.DecodeError:  # refused with its place when the request is decoded
        return raw
    calls = 0
    is_changed = False
    for message in messages:
        call = message.get("function_call")
        if message.get("role") == "assistant" and "function_call" in message:
            del message["function_call"]
            is_changed = True
            if isinstance(call, dict):
                calls += 1
                message["tool_calls"] = [{"id": f"call{calls:05d}", "type": "function", "function": call}]
                message.setdefault("content", None)
        elif message.get("role") == "function" and calls:
            message["role"], message["tool_call_id"] = "tool", f"call{calls:05d}"
            is_changed = True
    return _raw(messages) if is_changed else raw


def _translate(choice: dict[str, Any], name: str) -> bool:
    """Translate a choice in place. Whether it has changed. Only the first call counts: the old form has no second."""
    message = choice.get(name)
    changed = False
    if isinstance(message, dict) and "tool_calls" in message:
        calls = message.pop("tool_calls")
        changed = True
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) and not call.get("index") else None
            if isinstance(function, dict):
                message["function_call"] = {
                    part: function[part] for part in ("name", "arguments") if function.get(part) is not None
                }
                break
    if choice.get("finish_reason") == "tool_calls":
        choice["finish_reason"] = "function_call"
        changed = True
    return changed


def _raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))
