"""JSON as other servers write it: Python's NaN and Infinity, halves of characters, bytes that are no UTF-8. Pure."""

import json
from typing import Any

import msgspec

INVALID: Any = object()
"""In place of a value: the text is not JSON, however leniently it is read."""


def decode(text: bytes) -> Any:
    """The value of a JSON text, or INVALID. NaN and Infinity, which clients can't read, become null."""
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        pass
    try:
        return json.loads(text.decode("utf-8", "replace"), parse_constant=lambda name: None)
    except (ValueError, RecursionError):
        return INVALID


def encode(value: Any) -> bytes:
    """Compact JSON. Half a character becomes U+FFFD, two halves their character."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        return msgspec.json.encode(_whole_characters(value))


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same JSON, whatever the order of members: 7.0 is not 7."""
    try:
        return one == other and (msgspec.json.encode(one, order="sorted") == msgspec.json.encode(other, order="sorted"))
    except UnicodeEncodeError:
        return False


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_whole_characters(name): _whole_characters(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_whole_characters(each) for each in value]
    return value
