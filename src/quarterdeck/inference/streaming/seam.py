"""Makes one stream of two: what another endpoint says goes on under the first one's name.

Only streams that were resumed come by here; each event is parsed and written anew. The engine that goes on was given
the text so far as its prompt, so its counts are moved: those tokens are output, and were never prompt.
"""

from typing import Any

from quarterdeck.protocol import sse

IDENTITY = ("id", "created", "model", "system_fingerprint")


class Seam:
    """`first`: the first object event of the answer. `tokens`: how many of the new prompt's are the answer so far.
    `repeated`: what is said again, and not passed on again."""

    __slots__ = ("_identity", "_repeated", "_tokens")

    def __init__(self, first: bytes, *, tokens: int, repeated: str) -> None:
        chunk = sse.parse(first) or {}
        self._identity = {name: chunk[name] for name in IDENTITY if name in chunk}
        self._tokens = tokens
        self._repeated = repeated

    def join(self, whole: bytes) -> bytes:
        """Whole events of the new stream, as events of the old one."""
        return b"".join([self._joined(event) for event in sse.events(whole)])

    def _joined(self, event: bytes) -> bytes:
        chunk = sse.parse(event)
        if chunk is None or chunk.get("error"):
            return event
        says = False
        choices = chunk.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict):
                says |= self._say(choice)
        if choices and not says and not chunk.get("usage"):
            return b""
        chunk.update(self._identity)
        if isinstance(usage := chunk.get("usage"), dict):
            self._move(usage)
        return sse.event(chunk)

    def _say(self, choice: dict[str, Any]) -> bool:
        """Take off what was said before: the role and what is repeated. Says whether anything is left."""
        delta = choice.get("delta")
        holder, name = (delta, "content") if isinstance(delta, dict) else (choice, "text")
        if isinstance(delta, dict):
            delta.pop("role", None)
        if isinstance(text := holder.get(name), str):
            holder[name] = self._unrepeated(text)
        left = any(delta.values()) if isinstance(delta, dict) else bool(choice.get("text"))
        return left or bool(choice.get("finish_reason"))

    def _unrepeated(self, text: str) -> str:
        if not self._repeated or not text:
            return text
        same = 0
        while same < min(len(text), len(self._repeated)) and text[same] == self._repeated[same]:
            same += 1
        # Once it says something else, the rest is new: what was passed on can't be taken back.
        self._repeated = self._repeated[same:] if same == len(text) else ""
        return text[same:]

    def _move(self, usage: dict[str, Any]) -> None:
        prompt, output = usage.get("prompt_tokens"), usage.get("completion_tokens")
        if type(prompt) is not int or type(output) is not int:
            return
        moved = min(self._tokens, prompt)
        usage["prompt_tokens"], usage["completion_tokens"] = prompt - moved, output + moved
        details = usage.get("prompt_tokens_details")
        if isinstance(details, dict) and type(cached := details.get("cached_tokens")) is int:
            details["cached_tokens"] = min(cached, prompt - moved)
