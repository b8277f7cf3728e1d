"""Captured answers checked against the schema that a version of a prompt asks for. Pure."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jsonschema_rs
import msgspec

Check = Callable[[Any], bool]


def check_of(response_format: Mapping[str, Any] | None) -> Check | None:
    """Whether a value is what the `response_format` of a version asks for. None: it asks for nothing, or its schema is
    none."""
    kind = response_format.get("type") if response_format is not None else None
    if response_format is None or kind == "text":
        return None
    if kind == "json_object":
        return lambda value: isinstance(value, dict)
    described = response_format.get("json_schema")
    schema = described.get("schema") if isinstance(described, dict) else None
    if not isinstance(schema, dict | bool):
        return None
    try:
        # Patterns of a linear engine, and no document is fetched for a `$ref`: the schema is an admin's text.
        return jsonschema_rs.validator_for(
            schema, pattern_options=jsonschema_rs.RegexOptions(), offline=True, validate_formats=False
        ).is_valid
    except (jsonschema_rs.ValidationError, jsonschema_rs.ReferencingError, ValueError):
        return None


def count_valid(check: Check, outputs: Iterable[bytes]) -> tuple[int, int]:
    """Of captured outputs (`Content.output`): how many the schema accepts, and how many could be checked. An answer
    without text, such as a tool call, is not checked."""
    valid = checked = 0
    for output in outputs:
        text = _text(output)
        if text is None:
            continue
        checked += 1
        try:
            valid += bool(check(msgspec.json.decode(text)))
        except (msgspec.DecodeError, RecursionError):
            continue
    return valid, checked


def _text(output: bytes) -> str | None:
    """The text of the first choice."""
    try:
        choices = msgspec.json.decode(output)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(message, dict) or message.get("tool_calls") or message.get("function_call"):
        return None
    content = message.get("content")
    return content if isinstance(content, str) else None
