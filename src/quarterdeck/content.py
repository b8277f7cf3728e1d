"""Inputs and outputs of requests, which travel beside the record: never in it, nor in metrics or logs.

`inference/capture` makes a `Content` where the policy says so, the settle script keeps it in Redis beside the record,
and the worker redacts it before it is stored (`store/contents`) or exported. At the bottom of the map, like `record`.
"""

from collections.abc import Iterable
from typing import Any, Literal

import msgspec

Level = Literal["off", "hashed", "full"]
"""off: nothing is kept. hashed: sizes and SHA-256 hashes. full: the text, redacted."""
LEVELS: tuple[Level, ...] = ("off", "hashed", "full")
"""From the strictest to the most open."""


class Content(msgspec.Struct, omit_defaults=True, kw_only=True):
    """Input and output of one request. Sides are JSON, at most as long as the policy's cap."""

    level: Level
    input: bytes | None = None
    """An object of the request's members that shape the answer: `messages` or `prompt` or `input`, `tools`, …"""
    output: bytes | None = None
    """A list of choices, each with `index`, `finish_reason` and `message` or `text`; from a gateway also a whole
    answer, of which `choices_of` makes that list. None: there is no text (embeddings), or no answer."""
    input_bytes: int = 0
    """Size of the input as the client sent it."""
    output_bytes: int = 0
    """Size of the answer's text: of its choices as JSON."""
    input_hash: str = ""
    """SHA-256 of the input (`canonical`), hex; with level `hashed` only."""
    output_hash: str = ""
    is_input_cut: bool = False
    """Longer than the cap: the middle of a conversation and the ends of long texts are missing."""
    is_output_cut: bool = False
    redacted: dict[str, int] = {}
    """How often each rule replaced something. Empty in a gateway: the worker redacts."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Content).decode


def encode(content: Content) -> bytes:
    """As it waits in Redis for the worker."""
    return _encode(content)


def decode(data: bytes) -> Content:
    """The reverse of `encode`. Raises msgspec.DecodeError."""
    return _decode(data)


def strictest(levels: Iterable[Level | None]) -> Level | None:
    """The strictest of those that are set. None: none is."""
    found = [level for level in levels if level is not None]
    return min(found, key=LEVELS.index) if found else None


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and without white space: what the hashes are made of."""
    return msgspec.json.encode(value, order="sorted")


def choices_of(answer: Any) -> Any:
    """The choices of a whole answer, without what is empty, in the form of `streaming/assembly`. Any other JSON is
    returned as it is."""
    if not isinstance(answer, dict):
        return answer
    choices = answer.get("choices")
    if not isinstance(choices, list):
        return {name: value for name, value in answer.items() if name not in ("id", "created", "usage")}
    return [_choice(choice) for choice in choices if isinstance(choice, dict)]


def _choice(choice: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {"index": choice.get("index", 0)}
    if isinstance(choice.get("text"), str):
        found["text"] = choice["text"]
    if isinstance(message := choice.get("message"), dict):
        found["message"] = {name: value for name, value in message.items() if value not in (None, [], {})}
    found["finish_reason"] = choice.get("finish_reason")
    return found
