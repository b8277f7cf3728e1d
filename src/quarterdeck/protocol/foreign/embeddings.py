"""Embeddings of other servers: one for each input, in their order, encoded as the request asks. Pure."""

import base64
import binascii
import struct
from typing import Any

from quarterdeck.protocol.foreign.expected import Expected, NotAnAnswerError
from quarterdeck.protocol.foreign.usage import mend_usage

NOT_COUNTED = {"prompt_tokens": 0, "total_tokens": 0}
"""The usage of a server that sends none: clients' types require it. It is not taken for a count (`parse_usage`)."""


def mend_embeddings(answer: dict[str, Any], expected: Expected) -> dict[str, Any]:
    """Raises NotAnAnswerError where an embedding is missing: clients pair them with their inputs by position."""
    data = answer.get("data")
    rows: list[dict[str, Any]] = data if isinstance(data, list) else []
    if not rows or not all(isinstance(row, dict) and "embedding" in row for row in rows):
        raise NotAnAnswerError("it has no embeddings")
    if expected.choices and len(rows) != expected.choices:
        raise NotAnAnswerError(f"it has {len(rows)} embeddings for {expected.choices} inputs")
    rows = [
        {**row, "object": "embedding", "index": index, "embedding": _encoded(row["embedding"], expected.encoding)}
        for row, index in zip(rows, _indices(rows), strict=True)
    ]
    if any(row["index"] != at for at, row in enumerate(rows)):
        rows.sort(key=lambda row: int(row["index"]))
    mended = {**answer, "object": "list", "data": rows}
    mended["usage"] = mend_usage(answer.get("usage"), is_embedding=True) or NOT_COUNTED
    if not isinstance(answer.get("model"), str):
        mended["model"] = expected.model
    mended.pop("error", None)
    return mended


def _indices(data: list[dict[str, Any]]) -> list[int]:
    """From 0 on; their places where they have none that can be used."""
    found = [row["index"] for row in data if type(row.get("index")) is int]
    for first in (0, 1):
        if sorted(found) == list(range(first, first + len(data))):
            return [index - first for index in found]
    return list(range(len(data)))


def _encoded(embedding: Any, encoding: str) -> Any:
    """Numbers or text, as `encoding` says. Raises NotAnAnswerError for what is neither."""
    if isinstance(embedding, dict):
        embedding = embedding.get("float") or embedding.get("base64")
    if isinstance(embedding, list) and len(embedding) == 1 and isinstance(embedding[0], list):
        embedding = embedding[0]
    if isinstance(embedding, list) and embedding and isinstance(embedding[0], int | float):
        return embedding if encoding == "float" else _to_base64(embedding)
    if isinstance(embedding, str) and embedding:
        return embedding if encoding == "base64" else _to_numbers(embedding)
    raise NotAnAnswerError("an embedding is missing")


def _to_base64(numbers: list[Any]) -> str:
    try:
        return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()
    except (struct.error, OverflowError) as error:
        raise NotAnAnswerError("an embedding is no list of numbers") from error


def _to_numbers(text: str) -> list[float]:
    try:
        packed = base64.b64decode(text, validate=True)
        return list(struct.unpack(f"<{len(packed) // 4}f", packed))
    except (binascii.Error, struct.error, ValueError) as error:
        raise NotAnAnswerError("an embedding is neither a list of numbers nor base64") from error
