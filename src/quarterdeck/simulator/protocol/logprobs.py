"""Plausible log-probabilities, a function of the token and its position."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from quarterdeck.simulator.model.text_generator import SPACED, mix_bits


def logprob(piece: str, place: int) -> float:
    return -(mix_bits(crc32(piece.encode()) + place) & 0xFFF) / 4096


def alternatives(piece: str, place: int, count: int) -> list[tuple[str, float]]:
    """Return `count` tokens: the token itself, then less likely ones."""
    found = [(piece, logprob(piece, place))]
    draw = mix_bits(crc32(piece.encode()) ^ place)
    while len(found) < count:
        draw = mix_bits(draw + 1)
        other = SPACED[draw & 255]
        if all(other != known for known, _ in found):
            found.append((other, found[-1][1] - 0.25 - (draw >> 8 & 255) / 256))
    return found[:count]


def chat(pieces: Sequence[str], place: int, top: int) -> dict[str, Any]:
    """Return the `logprobs` of a chat choice whose first piece is at position `place`."""
    content = []
    for offset, piece in enumerate(pieces):
        entry = _entry(piece, logprob(piece, place + offset))
        entry["top_logprobs"] = [_entry(*each) for each in alternatives(piece, place + offset, top)] if top else []
        content.append(entry)
    return {"content": content}


def completion(pieces: Sequence[str], place: int, top: int, offset: int, prompt: Sequence[str] = ()) -> dict[str, Any]:
    """Return the `logprobs` of a completion choice; `prompt` is the prompt that is echoed before it."""
    offsets: list[int] = []
    values: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    for index, piece in enumerate([*prompt, *pieces]):
        offsets.append(offset)
        offset += len(piece)
        if prompt and index == 0:
            values.append(None)
            tops.append(None)
        else:
            where = place + index
            values.append(logprob(piece, where))
            tops.append(dict(alternatives(piece, where, max(top, 1))))
    return {"text_offset": offsets, "token_logprobs": values, "tokens": [*prompt, *pieces], "top_logprobs": tops}


def _entry(piece: str, value: float) -> dict[str, Any]:
    return {"token": piece, "logprob": value, "bytes": list(piece.encode())}
