"""What a stream of a chat completion says: text, reasoning, the state of a model that loads, and usage. Pure."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import click

from quarterdeck.cli.client import error_message
from quarterdeck.cli.output import printable

STATE = ": model "
"""Begins the comment with which a gateway says that a stream waits for its model."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of an answer. `waiting`: why there is none yet, such as "chat is loading (about 40 s)"."""

    kind: Literal["text", "reasoning", "waiting"]
    text: str


@dataclass(slots=True)
class Usage:
    """What the stream's last event counts."""

    input_tokens: int
    output_tokens: int
    reasoning_tokens: int = 0


def pieces(lines: Iterable[str]) -> Iterator[Piece | Usage]:
    """The parts of a stream, as they come. Raises ClickException for an error event or an incomplete stream."""
    for line in lines:
        if line.startswith(STATE):
            if text := waiting_text(line.removeprefix(STATE)):
                yield Piece("waiting", text)
            continue
        if not line.startswith("data:"):
            continue
        data = line.removeprefix("data:").strip()
        if data == "[DONE]":
            return
        try:
            event = json.loads(data)
        except ValueError:
            raise click.ClickException("the answer is not a stream of JSON events") from None
        if message := error_message(event):
            raise click.ClickException(printable(message, keep="\n"))
        yield from _parts(event)
    raise click.ClickException("the answer is incomplete: the stream ended early")


def _parts(event: dict[str, Any]) -> Iterator[Piece | Usage]:
    for choice in event.get("choices") or ():
        delta = choice.get("delta") or {}
        if text := delta.get("reasoning_content") or delta.get("reasoning"):
            yield Piece("reasoning", str(text))
        if text := delta.get("content"):
            yield Piece("text", str(text))
    if isinstance(usage := event.get("usage"), dict):
        details = usage.get("completion_tokens_details") or {}
        counts = usage.get("prompt_tokens"), usage.get("completion_tokens"), details.get("reasoning_tokens")
        yield Usage(*(int(count or 0) for count in counts))


def waiting_text(data: str) -> str:
    """The comment's JSON in words; nothing where it is none."""
    try:
        found = json.loads(data)
    except ValueError:
        return ""
    if not isinstance(found, dict):
        return ""
    state = str(found.get("detail") or found.get("state") or "loading").replace("_", " ")
    seconds = found.get("seconds_left")
    about = f" (about {round(seconds)} s)" if isinstance(seconds, int | float) else ""
    return printable(f"{found.get('model', 'the model')} is {state}{about}")


def stats_text(usage: Usage | None, first: float | None, total: float, cost: str | None) -> str:
    """Tokens, speed and cost of an answer in one line. `first` and `total`: seconds to the first token and the end."""
    parts = []
    if usage is not None:
        parts.append(f"{usage.input_tokens} + {usage.output_tokens} tokens")
        if usage.reasoning_tokens:
            parts.append(f"{usage.reasoning_tokens} of them reasoning")
        if first is not None and total > first and usage.output_tokens > 1:
            parts.append(f"{(usage.output_tokens - 1) / (total - first):.1f} tokens/s")
    if first is not None:
        parts.append(f"first after {first:.2f} s")
    parts.append(f"{total:.2f} s")
    if cost is not None:
        parts.append(f"${cost}")
    return ", ".join(parts)
