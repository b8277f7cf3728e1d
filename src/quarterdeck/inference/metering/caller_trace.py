"""What a caller stated for the trace of its request: W3C's headers, and Langfuse's members of OpenAI's `metadata`.

The names are those of Langfuse's own OpenAI integration: `langfuse_user_id`, `langfuse_session_id`, `langfuse_tags`,
`langfuse_trace_name`, `langfuse_trace_id`. Other members are the trace's metadata. All are bounded: a record is held in
Redis' memory, and OpenAI takes sixteen members of 512 characters.
"""

import re
from collections.abc import Mapping
from itertools import islice
from typing import Any

import msgspec

from quarterdeck.protocol.trace_context import OWN, TraceContext
from quarterdeck.record import CallerTrace

MAX_ITEMS = 16
"""Tags, and members of metadata."""
MAX_NAME = 64
MAX_TAG = 200
MAX_VALUE = 512
MAX_LOOKED_AT = 64
"""Members and tags of which the first MAX_ITEMS are taken."""
MAX_LIST = 8192
"""Characters of a list of tags."""

_PREFIX = "langfuse_"
_OWN_NAMES = frozenset({"session_id", "user_id"})
"""Members that are fields of the record."""
_TRACE_ID = re.compile(r"(?!0{32})[0-9a-f]{32}")


def caller_trace(context: TraceContext | None, metadata: Mapping[str, Any] | None) -> CallerTrace | None:
    """None: nothing was stated."""
    context = context or OWN
    found = CallerTrace(context.trace_id, context.span_id, context.is_sampled, context.state)
    if metadata:
        given = _text(metadata.get("langfuse_trace_id"))
        found = msgspec.structs.replace(
            found,
            id=found.id or (given if _TRACE_ID.fullmatch(given) else ""),
            name=_text(metadata.get("langfuse_trace_name"))[:MAX_TAG],
            tags=_tags(metadata.get("langfuse_tags")),
            metadata=_rest(metadata),
        )
    return found if found != _NOTHING else None


def user_of(metadata: Mapping[str, Any]) -> str:
    """The user that metadata names. Empty: none."""
    return _text(metadata.get("langfuse_user_id"))


def session_of(metadata: Mapping[str, Any]) -> str:
    """The session that metadata names. Empty: none."""
    return _text(metadata.get("langfuse_session_id")) or _text(metadata.get("session_id"))


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _tags(value: object) -> tuple[str, ...]:
    """A list of strings, or as OpenAI's metadata has it, a string with commas or a list in JSON."""
    if isinstance(value, str):
        value = _listed(value[:MAX_LIST])
    if not isinstance(value, list):
        return ()
    tags = (tag.strip()[:MAX_TAG] for tag in value[:MAX_LOOKED_AT] if isinstance(tag, str))
    return tuple(dict.fromkeys(tag for tag in tags if tag))[:MAX_ITEMS]


def _listed(text: str) -> list[Any]:
    if text.lstrip().startswith("["):
        try:
            found: list[Any] = msgspec.json.decode(text, type=list)
        except (msgspec.DecodeError, RecursionError):
            return text.split(",")  # a text that begins with a bracket
        return found
    return text.split(",")


def _rest(metadata: Mapping[str, Any]) -> dict[str, str]:
    """Other members that are texts, numbers or booleans: OpenAI's are texts."""
    found: dict[str, str] = {}
    for name, value in islice(metadata.items(), MAX_LOOKED_AT):
        if name.startswith(_PREFIX) or name in _OWN_NAMES or not name:
            continue
        if isinstance(value, bool):
            value = "true" if value else "false"
        elif isinstance(value, int | float):
            value = str(value)
        if isinstance(value, str) and len(found) < MAX_ITEMS:
            found[name[:MAX_NAME]] = value[:MAX_VALUE]
    return found


_NOTHING = CallerTrace()
