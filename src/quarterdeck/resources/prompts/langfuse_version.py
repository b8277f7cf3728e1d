"""A version of a prompt as Langfuse has it. Pure."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec


@dataclass(frozen=True, slots=True)
class LangfuseContent:
    """What a version at Langfuse consists of."""

    prompt: str | Sequence[Mapping[str, Any]] = field(repr=False)
    """Text; or messages with `role` and `content`, and placeholders with `name` and the type `placeholder`."""
    config: Any = field(default=None, repr=False)

    @property
    def type(self) -> str:
        return "text" if isinstance(self.prompt, str) else "chat"

    @property
    def fingerprint(self) -> str:
        """Equal for versions that Langfuse would answer alike."""
        prompt = self.prompt
        if not isinstance(prompt, str):
            prompt = [_plain(message) for message in prompt]
        value = [self.type, prompt, _numbers(self.config or {})]
        return hashlib.sha256(msgspec.json.encode(value, order="sorted")).hexdigest()


def is_placeholder(message: Mapping[str, Any]) -> bool:
    return message.get("type") == "placeholder"


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """Without the type, which the server adds to plain messages."""
    if is_placeholder(message):
        return {"placeholder": message.get("name")}
    return {"role": message.get("role"), "content": message.get("content")}


def _numbers(value: Any) -> Any:
    """1.0 as 1: Langfuse's server does not tell them apart."""
    if isinstance(value, Mapping):
        return {name: _numbers(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_numbers(each) for each in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value
