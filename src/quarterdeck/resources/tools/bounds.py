"""What of a server's words reaches the model, the database and terminals: bounded, without control characters. Pure.

Servers are not trusted: they may be a caller's own.
"""

import re
from typing import Any

import msgspec

from quarterdeck.resources.tools.servers import Json, ServerTool

MAX_DESCRIPTION = 8192
"""Characters of a tool's description."""
MAX_SCHEMA_BYTES = 64 * 1024
MAX_DEPTH = 60
"""Levels of a schema."""
NAME = re.compile(r"[A-Za-z0-9_./-]{1,128}")
"""Names of tools, as MCP recommends them."""

_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_SURROGATE = re.compile("[\ud800-\udfff]")
_HINTS = ("title", "readOnlyHint", "destructiveHint", "idempotentHint", "openWorldHint")


def clean(text: str) -> str:
    """Without control characters (line breaks and tabs stay), marks that reverse text, and lone surrogates."""
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))


def cut(text: str, max_bytes: int) -> str:
    """A result of at most about `max_bytes`, which says that it was cut."""
    text = clean(text)
    if len(text) * 4 <= max_bytes or len(encoded := text.encode()) <= max_bytes:
        return text
    kept = encoded[:max_bytes].decode(errors="ignore")
    return f"{kept}\n[The result was cut: {len(encoded)} bytes, of which {max_bytes} are shown.]"


def checked_tool(name: str, description: object, schema: object, annotations: object) -> ServerTool | None:
    """A tool as it is shown to models. None: it can't be used."""
    if not NAME.fullmatch(name) or not isinstance(schema, dict) or _depth(schema) > MAX_DEPTH:
        return None
    if len(msgspec.json.encode(schema)) > MAX_SCHEMA_BYTES:
        return None
    text = clean(description)[:MAX_DESCRIPTION] if isinstance(description, str) else None
    return ServerTool(name, _cleaned(schema), text or None, _hints(annotations))


def _hints(annotations: object) -> Json | None:
    """The members that MCP defines."""
    if not isinstance(annotations, dict):
        return None
    found: Json = {}
    for name in _HINTS:
        value = annotations.get(name)
        if isinstance(value, bool):
            found[name] = value
        elif name == "title" and isinstance(value, str):
            found[name] = clean(value)[:200]
    return found or None


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(str(name)): _cleaned(each) for name, each in value.items()}
    return [_cleaned(each) for each in value] if isinstance(value, list) else value


def _depth(value: Any) -> int:
    """The levels of a value, without recursion: it may be nested as deeply as its parser takes."""
    deepest, waiting = 0, [(value, 1)]
    while waiting:
        each, level = waiting.pop()
        deepest = max(deepest, level)
        if isinstance(each, dict):
            waiting += [(inner, level + 1) for inner in each.values()]
        elif isinstance(each, list):
            waiting += [(inner, level + 1) for inner in each]
    return deepest
