"""Joins two streams: what another endpoint continues is sent under the first one's identity.

Only resumed streams pass through here; each event is parsed and encoded again. The continuing engine received the text
so far as part of its prompt, so those tokens are moved from its prompt count to its output count.
"""

from typing import Any

from quarterdeck.protocol import sse

IDENTITY = ("id", "created", "model", "system_fingerprint")


class Seam:
    """`first`: the first object event of the answer. `tokens`: how many tokens of the new prompt are the answer so far.
    `repeated`: text that the new stream repeats at its start, and that is removed."""

    __slots__ = ("_identity", "_repeated", "_tokens")

    def __init__(self, first: bytes, *, tokens: int, repeated: str) -> None:
        chunk = sse.parse(first) or {}
        self._identity = {name: chunk[name] for name in IDENTITY if name in chunk}
        self._tokens = tokens
        self._repeated = repeated

    def join(self, whole: bytes) -> bytes:
        """Whole events of the new stream, rewritten as events of the first one."""
        return b"".join([self._rewrite(event) for event in sse.events(whole)])

    def _rewrite(self, event: bytes) -> bytes:
        chunk = sse.parse(event)
        if chunk is None or chunk.get("error"):
            return event
        has_content = False
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                has_content |= self._strip(choice)
        if choices and not has_content and not chunk.get("usage"):
            return b""
        chunk.update(self._identity)
        if isinstance(usage := chunk.get("usage"), dict):
            self._move_tokens(usage)
        return sse.event(chunk)

    def _strip(self, choice: dict[str, Any]) -> bool:
        """Remove the role and repeated text from a choice. Returns whether anything is left."""
        delta = choice.get("delta")
        holder, name = (delta, "content") if isinstance(delta, dict) else (choice, "text")
        if isinstance(delta, dict):
            delta.pop("role", None)
        if isinstance(text := holder.get(name), str):
            holder[name] = self._without_repeated(text)
        left = any(delta.values()) if isinstance(delta, dict) else bool(choice.get("text"))
        return left or bool(choice.get("finish_reason"))

    def _without_repeated(self, text: str) -> str:
        if not self._repeated or not text:
            return text
        same = 0
        while same < min(len(text), len(self._repeated)) and text[same] == self._repeated[same]:
            same += 1
        # After the first difference all text is new: what was sent can't be taken back.
        self._repeated = self._repeated[same:] if same == len(text) else ""
        return text[same:]

    def _move_tokens(self, usage: dict[str, Any]) -> None:
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is not int or type(output) is not int:
            return
        moved = min(self._tokens, prompt)
        usage["prompt_tokens"], usage["completion_tokens"] = prompt - moved, output + moved
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and type(cached := details.get("cached_tokens")) is int:
            details["cached_tokens"] = min(cached, prompt - moved)
