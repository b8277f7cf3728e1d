"""Log-probabilities of a plausible shape, the same for the same token in the same place."""

from collections.abc import Sequence
from typing import Any
from zlib import crc32

from quarterdeck.simulator.model.text_generator import SPACED, mix


def logprob(piece: str, place: int) -> float:
    return -(mix(crc32(piece.encode()) + place) & 0xFFF) / 4096


def alternatives(piece: str, place: int, count: int) -> list[tuple[str, float]]:
    """The token itself first, then less likely others."""
    found = [(piece, logprob(piece, place))]
    draw = mix(crc32(piece.encode()) ^ place)
    while len(found) < count:
        draw = mix(draw + 1)
        other = SPACED[draw & 255]
        if all(other != known for known, _ in found):
            found.append((other, found[-1][1] - 0.25 - (draw >> 8 & 255) / 256))
    return found[:count]


def chat(pieces: Sequence[str], place: int, top: int) -> dict[str, Any]:
    """The `logprobs` of a chat choice, for tokens from `place` on."""
    content = []
    for offset, piece in enumerate(pieces):
        entry = _entry(piece, logprob(piece, place + offset))
        entry["top_logprobs"] = [_entry(*each) for each in alternatives(piece, place + offset, top)] if top else []
        content.append(entry)
    return {"content": content}


def completion(pieces: Sequence[str], place: int, top: int, offset: int, prompt: Sequence[str] = ()) -> dict[str, Any]:
    """The `logprobs` of a completion choice; `prompt` is what is echoed before it."""
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
