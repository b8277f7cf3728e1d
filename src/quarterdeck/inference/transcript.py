"""The text of a stream so far, kept cheaply: bytes as they came, folded into text each 16 KB.

Needed only where an answer ends without the engine's own count: the text is tokenized then, off the hot path.
"""

from typing import Any

from quarterdeck.protocol import sse

FOLD_BYTES = 16 * 1024
MAX_TEXT_CHARACTERS = 256 * 1024
"""Past it the text is no longer kept, and the tokens are estimated from the number of events."""


class Transcript:
    """What one answer has said, over all its choices."""

    __slots__ = ("_events", "_pieces", "_size", "_text")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._text: str | None = ""
        self._events = 0

    def add(self, whole: bytes) -> None:
        """Whole events, as they are passed on."""
        self._pieces.append(whole)
        self._size += len(whole)
        if self._size >= FOLD_BYTES:
            self._fold()

    def add_answer(self, body: bytes) -> None:
        """A whole answer, where it was no stream."""
        self._keep(generated_text(sse.parse_json(body)))

    def text(self) -> str | None:
        """All text received; None where there was more than is kept."""
        self._fold()
        return self._text

    def tokens_seen(self) -> int:
        """About as many as there were events with text. Asked often, so nothing is parsed for it."""
        return self._events + sum([piece.count(b"\n\n") for piece in self._pieces])

    def _fold(self) -> None:
        said: list[str] = []
        for piece in self._pieces:
            for event in sse.events(piece):
                if text := generated_text(sse.parse(event)):
                    said.append(text)
        self._pieces.clear()
        self._size = 0
        self._events += len(said)
        self._keep("".join(said))

    def _keep(self, said: str) -> None:
        if self._text is not None:
            self._text += said
            if len(self._text) > MAX_TEXT_CHARACTERS:
                self._text = None


def generated_text(answer: dict[str, Any] | None) -> str:
    """What an answer, or a chunk of one, says: content, reasoning, the names and arguments of tool calls."""
    said: list[str] = []
    for choice in _list(answer, "choices"):
        if isinstance(choice.get("text"), str):
            said.append(choice["text"])
        message = choice.get("delta", choice.get("message"))
        if not isinstance(message, dict):
            continue
        # Some engines send the reasoning twice, under its old name and its new one.
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        said += [text for text in (reasoning, message.get("content")) if isinstance(text, str)]
        for call in _list(message, "tool_calls"):
            function = call.get("function")
            if isinstance(function, dict):
                said += [function[name] for name in ("name", "arguments") if isinstance(function.get(name), str)]
    return "".join(said)


def _list(holder: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    value = holder.get(name) if holder else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
