"""Content → span attributes: the input and output of a request, in the forms that trace backends read.

Langfuse reads `langfuse.observation.input` and `.output`, Phoenix `input.value` and `output.value` (OpenInference), and
OpenTelemetry's GenAI conventions name `gen_ai.input.messages` and `gen_ai.output.messages`, whose messages have parts.
The content was redacted before (`worker/contents`).
"""

from typing import Any

import msgspec

from quarterdeck.content import Content
from quarterdeck.telemetry.traces import otlp_encoding as otlp

_langfuse = {side: otlp.text(f"langfuse.observation.{side}") for side in ("input", "output")}
_openinference = {side: otlp.text(f"{side}.value") for side in ("input", "output")}
_mime = {side: otlp.text(f"{side}.mime_type")("application/json") for side in ("input", "output")}
_gen_ai = {side: otlp.text(f"gen_ai.{side}.messages") for side in ("input", "output")}
_hash = {side: otlp.text(f"langfuse.observation.metadata.{side}_sha256") for side in ("input", "output")}
_cut = {side: otlp.text(f"langfuse.observation.metadata.{side}_cut")("true") for side in ("input", "output")}


def attributes_of(content: Content) -> bytes:
    """The encoded attributes of the call's span. Of hashed content: the hashes."""
    parts: list[bytes] = []
    sides = (
        ("input", content.input, content.input_hash, content.is_input_cut),
        ("output", content.output, content.output_hash, content.is_output_cut),
    )
    for side, data, digest, is_cut in sides:
        if digest:
            parts.append(_hash[side](digest))
        if data is None:
            continue
        value = msgspec.json.decode(data)
        shown = msgspec.json.encode(_shown_input(value) if side == "input" else _shown_output(value)).decode()
        messages = input_messages(value) if side == "input" else output_messages(value)
        parts += (_langfuse[side](shown), _openinference[side](shown), _mime[side])
        if messages:
            parts.append(_gen_ai[side](msgspec.json.encode(messages).decode()))
        if is_cut:
            parts.append(_cut[side])
    return b"".join(parts)


def input_messages(value: Any) -> list[dict[str, Any]]:
    """`gen_ai.input.messages` of a request's members."""
    if not isinstance(value, dict):
        return []
    if isinstance(messages := value.get("messages"), list):
        return [_message(each) for each in messages if isinstance(each, dict)]
    text = value.get("prompt", value.get("input"))
    texts = text if isinstance(text, list) else [] if text is None else [text]
    return [{"role": "user", "parts": [{"type": "text", "content": each}]} for each in texts if isinstance(each, str)]


def output_messages(value: Any) -> list[dict[str, Any]]:
    """`gen_ai.output.messages` of an answer's choices."""
    found = []
    for choice in value if isinstance(value, list) else ():
        if not isinstance(choice, dict):
            continue
        message = choice.get("message")
        if not isinstance(message, dict):
            message = {"role": "assistant", "content": choice.get("text")}
        found.append({**_message(message), "finish_reason": choice.get("finish_reason") or ""})
    return found


def _message(message: dict[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    parts: list[dict[str, Any]] = []
    if isinstance(thought := message.get("reasoning_content") or message.get("reasoning"), str):
        parts.append({"type": "reasoning", "content": thought})
    if role == "tool":
        parts.append({"type": "tool_call_response", "id": message.get("tool_call_id"), "response": content})
    elif isinstance(content, str) and content:
        parts.append({"type": "text", "content": content})
    elif isinstance(content, list):
        parts += [_part(each) for each in content]
    if isinstance(refusal := message.get("refusal"), str):
        parts.append({"type": "refusal", "content": refusal})
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) else ():
        if isinstance(call, dict) and isinstance(function := call.get("function"), dict):
            named = {"id": call.get("id"), "name": function.get("name"), "arguments": function.get("arguments")}
            parts.append({"type": "tool_call", **named})
    return {"role": role or "user", "parts": parts}


def _part(part: Any) -> dict[str, Any]:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return {"type": "text", "content": part["text"]}
    return part if isinstance(part, dict) else {"type": "text", "content": str(part)}


def _shown_input(value: Any) -> Any:
    """A request with only messages is shown as these, one with only a prompt as that."""
    return next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 else value


def _shown_output(value: Any) -> Any:
    """The message or text of a single choice."""
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return value[0].get("message", value[0].get("text"))
    return value
