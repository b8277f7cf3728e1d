"""Messages and deltas of other servers: a text, what was thought before it, and calls. Pure."""

from typing import Any

from quarterdeck.protocol.foreign import json_values

_THOUGHTS = frozenset({"thinking", "reasoning", "thought", "reasoning_text"})
"""Types of content parts that are not part of the answer."""


def message_of(choice: dict[str, Any], *names: str) -> dict[str, Any]:
    """Remove a choice's message from the first of these members that has one, and return it. Empty: there is none.

    Some servers answer a stream with `message`, a whole request with `delta`, a chat with `text`.
    """
    found = [value for name in names if (value := choice.pop(name, None)) not in (None, "", {}, [])]
    message = found[0] if found else {}
    if isinstance(message, list):
        message = message[-1] if message else {}
    return dict(message) if isinstance(message, dict) else {"content": text_of(message)[0]}


def mend_content(message: dict[str, Any]) -> None:
    """Make the content a text, in place. Thoughts among its parts become `reasoning_content`."""
    content = message.get("content")
    if content is None or isinstance(content, str):
        return
    text, thoughts = text_of(content)
    message["content"] = text if text or not thoughts else None
    if thoughts and not message.get("reasoning_content"):
        message["reasoning_content"] = thoughts


def text_of(content: Any) -> tuple[str, str]:
    """The text of a content of any form, and the thoughts in it."""
    if isinstance(content, str):
        return content, ""
    if content is None:
        return "", ""
    if isinstance(content, list):
        found = [text_of(each) for each in content]
        return "".join(text for text, _ in found), "".join(thoughts for _, thoughts in found)
    if not isinstance(content, dict):
        return json_values.encode(content).decode(), ""
    kind = content.get("type")
    if isinstance(kind, str) and kind in _THOUGHTS:
        inner = next((content[name] for name in ("text", *_THOUGHTS) if content.get(name)), None)
        return "", "".join(text_of(inner))
    for name in ("text", "parts", "content"):
        if content.get(name) is not None:
            return text_of(content[name])
    return "", ""
