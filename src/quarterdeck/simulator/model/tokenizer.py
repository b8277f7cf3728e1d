"""A tokenizer without a vocabulary: pieces of at most six bytes, each with its own id.

It scans from left to right without context, so a text cut between two tokens has the same tokens on both sides. Usage
counts therefore equal what /tokenize returns for the text, and a partial answer can be continued.
An id is the piece's bytes after a byte of 1, as an integer (below 2^49, exact in every JSON parser).
"""

import re
from collections.abc import Iterable, Sequence

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
"""Ids 0, 1 and 2."""

UNKNOWN = "\ufffd"

_SPECIAL = re.compile("(" + "|".join(re.escape(piece) for piece in SPECIAL) + ")")
_SPECIAL_IDS = {piece: number for number, piece in enumerate(SPECIAL)}
_PIECE = re.compile(
    r" [A-Za-z0-9_]{1,5}|[A-Za-z0-9_]{1,6}"
    r"| [!-/:-@\[-^`{-~]{1,3}|[!-/:-@\[-^`{-~]{1,4}"
    r"| ?[^\x00-\x7f]"
    r"|[\x00-\x20\x7f]{1,6}"
)


def split(text: str) -> list[str]:
    """Return the text's tokens as strings; joined, they are the text."""
    if "<|" not in text:
        return _PIECE.findall(text)
    pieces: list[str] = []
    for index, part in enumerate(_SPECIAL.split(text)):
        if index % 2:
            pieces.append(part)
        else:
            pieces.extend(_PIECE.findall(part))
    return pieces


def token_id(piece: str) -> int:
    special = _SPECIAL_IDS.get(piece)
    return special if special is not None else int.from_bytes(b"\x01" + piece.encode(), "big")


def piece_of(token: int) -> str:
    """Return the text of an id; U+FFFD for an id that no text has."""
    if 0 <= token < len(SPECIAL):
        return SPECIAL[token]
    data = token.to_bytes((token.bit_length() + 7) // 8 or 1, "big") if token > 0 else b""
    if len(data) < 2 or data[0] != 1:
        return UNKNOWN
    return data[1:].decode(errors="replace")


def decode(tokens: Iterable[int]) -> str:
    return "".join(piece_of(token) for token in tokens)


def pieces_of(tokens: Sequence[int]) -> list[str]:
    return [piece_of(token) for token in tokens]
