"""Embeddings from hashed words: texts that share words have a high cosine similarity; nothing is learned."""

import math
import re
from collections.abc import Sequence
from hashlib import blake2b

WORD = re.compile(r"\w+|[^\w\s]")

VIOLENT = frozenset(("attack", "bomb", "hurt", "kill", "murder", "shoot", "stab", "weapon"))


def embed(text: str, dimensions: int) -> list[float]:
    """Return a vector of norm 1."""
    vector = [0.0] * dimensions
    for word in WORD.findall(text.lower()) or [""]:
        digest = blake2b(word.encode(), digest_size=48).digest()
        for place in range(0, 48, 3):
            number = int.from_bytes(digest[place : place + 3], "big")
            vector[(number >> 1) % dimensions] += 1.0 if number & 1 else -1.0
    length = math.sqrt(sum(value * value for value in vector))
    if length == 0:
        vector[0] = length = 1.0
    return [value / length for value in vector]


def violence(text: str) -> float:
    """How much a text is of violence, 0 to 1: a classifier that knows a few words."""
    found = sum(word in VIOLENT for word in WORD.findall(text.lower()))
    return 0.02 if not found else 1 - 0.25 / found


def cosine(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(left * right for left, right in zip(one, other, strict=True))
