"""The chat template: renders messages to one text, as ChatML does (SmolLM2's, with tools).

A continued answer renders to the rendered prompt plus the partial text; because of that, a resumed stream continues
where the broken one stopped.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

Message = Mapping[str, Any]

OPENING = "<|im_start|>assistant\n"


def text_of(content: Any) -> str:
    """Return a message's text: the string, or the text parts of a list, with placeholders for other parts."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = []
    for part in content:
        if isinstance(part, str):
            parts.append(part)
        elif part.get("type") in ("text", "input_text", "output_text", "refusal"):
            parts.append(str(part.get("text") or part.get("refusal") or ""))
        else:
            parts.append(f"<{part.get('type', 'unknown')}>")
    return "\n".join(parts)


def render(
    messages: Sequence[Message],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
) -> str:
    lines: list[str] = []
    if tools:
        lines.append("<|im_start|>system\nTools:\n")
        lines.extend(msgspec.json.encode(tool).decode() + "\n" for tool in tools)
        lines.append("<|im_end|>\n")
    last = len(messages) - 1
    for index, message in enumerate(messages):
        lines.append(f"<|im_start|>{message['role']}\n{text_of(message.get('content'))}")
        for call in message.get("tool_calls") or ():
            function = call.get("function", call)
            lines.append(f"<tool_call>\n{msgspec.json.encode(function).decode()}\n</tool_call>")
        if not (continue_final_message and index == last):
            lines.append("<|im_end|>\n")
    if add_generation_prompt and not continue_final_message:
        lines.append(OPENING)
    return "".join(lines)


def last_user_text(messages: Sequence[Message]) -> str:
    for message in reversed(messages):
        if message["role"] == "user":
            return text_of(message.get("content"))
    return text_of(messages[-1].get("content")) if messages else ""
