"""Members of a request that OpenAI takes for absent, and that engines refuse. Pure.

SDK objects that are dumped and sent back carry a null for each field that was not set. And agents without tools send
`tools: []`, which vLLM refuses, as OpenAI does, and a `tool_choice` for no tool.

A null is dropped where it can only mean "not set": as a member of the request, of a message and of a tool call. In a
message's `content`, in JSON schemas and in metadata it says something.
"""

from collections.abc import Mapping

import msgspec

from quarterdeck.protocol.requests import MAX_ITEMS, too_many

NULL = msgspec.Raw(b"null")
_WITH_TOOLS = {"tools": ("tool_choice", "parallel_tool_calls"), "functions": ("function_call",)}
"""Members that say nothing without the tools."""

_Object = dict[str, msgspec.Raw]
_decode_objects = msgspec.json.Decoder(list[_Object]).decode


def has_absent(members: Mapping[str, msgspec.Raw]) -> bool:
    """Whether a member of the request itself is to be dropped."""
    return NULL in members.values() or _is_empty(members, "tools") or _is_empty(members, "functions")


def without_absent(members: Mapping[str, msgspec.Raw]) -> _Object:
    """The members that count: tools that are null or an empty list take their choice with them. Others stay byte for
    byte. Raises msgspec.DecodeError for messages of another shape, and BadRequestError for too many of them."""
    found = {name: raw for name, raw in members.items() if raw != NULL}
    for name, others in _WITH_TOOLS.items():
        if _is_empty(found, name) or members.get(name) == NULL:
            for each in (name, *others):
                found.pop(each, None)
    if "messages" in found and b"null" in bytes(found["messages"]):
        messages = _decode_objects(found["messages"])
        if len(messages) > MAX_ITEMS:
            raise too_many("messages", len(messages))
        found["messages"] = _raw([_message(each) for each in messages])
    return found


def _message(message: _Object) -> _Object:
    found = {name: raw for name, raw in message.items() if raw != NULL or name == "content"}
    if "tool_calls" in found and b"null" in bytes(found["tool_calls"]):
        calls = _decode_objects(found["tool_calls"])
        found["tool_calls"] = _raw([{key: raw for key, raw in call.items() if raw != NULL} for call in calls])
    return found


def _raw(value: list[_Object]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def _is_empty(members: Mapping[str, msgspec.Raw], name: str) -> bool:
    raw = members.get(name)
    return raw is not None and memoryview(raw).nbytes < 20 and b"".join(bytes(raw).split()) == b"[]"
