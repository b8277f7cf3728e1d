"""The text of a stream so far, kept cheaply: bytes as they came, folded into text each 16 KB.

Needed only where a stream ends without the engine's own count: the text is tokenized then, off the hot path.
"""

from typing import Any

from quarterdeck.protocol import sse

FOLD_BYTES = 16 * 1024
MAX_TEXT_BYTES = 256 * 1024
"""Past it the text is no longer kept, and the tokens are estimated from the number of events."""


class Transcript:
    """What one stream has said, over all its choices."""

    __slots__ = ("_pieces", "_size", "_text", "_text_size", "events")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self._text: list[str] | None = []
        self._text_size = 0
        self.events = 0
        """Events with text that were folded: about as many as tokens."""

    def add(self, whole: bytes) -> None:
        """Whole events, as they are passed on."""
        self._pieces.append(whole)
        self._size += len(whole)
        if self._size >= FOLD_BYTES:
            self._fold()

    def text(self) -> str | None:
        """All text received; None where there was more than is kept."""
        self._fold()
        return None if self._text is None else "".join(self._text)

    def _fold(self) -> None:
        for piece in self._pieces:
            for event in sse.events(piece):
                said = generated_text(sse.parse(event))
                if said:
                    self.events += 1
                    self._keep(said)
        self._pieces.clear()
        self._size = 0

    def _keep(self, said: str) -> None:
        if self._text is None:
            return
        self._text.append(said)
        self._text_size += len(said)
        if self._text_size > MAX_TEXT_BYTES:
            self._text = None


def generated_text(chunk: dict[str, Any] | None) -> str:
    """What a chunk of chat or completions adds: content, reasoning, the arguments of tool calls."""
    said: list[str] = []
    for choice in _list(chunk, "choices"):
        if isinstance(choice.get("text"), str):
            said.append(choice["text"])
        delta = choice.get("delta")
        if not isinstance(delta, dict):
            continue
        said += [
            delta[name] for name in ("reasoning_content", "reasoning", "content") if isinstance(delta.get(name), str)
        ]
        for call in _list(delta, "tool_calls"):
            function = call.get("function")
            if isinstance(function, dict):
                said += [function[name] for name in ("name", "arguments") if isinstance(function.get(name), str)]
    return "".join(said)


def _list(holder: dict[str, Any] | None, name: str) -> list[dict[str, Any]]:
    value = holder.get(name) if holder else None
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []
