"""The items of a response's input, checked and completed to what `input_items` and conversations show. Pure.

Every item gets an id. What a chat completion can't express is refused with a message that names what is served.
"""

from collections.abc import Callable, Sequence
from typing import Any

from quarterdeck.errors import BadRequestError
from quarterdeck.protocol.requests import MAX_ITEMS, too_many

Item = dict[str, Any]
NewId = Callable[[str], str]
"""Makes an id with this prefix (`ids.object_id`)."""

SERVED = (
    *("message", "function_call", "function_call_output", "reasoning", "compaction", "item_reference"),
    *("mcp_list_tools", "mcp_call", "mcp_approval_request", "mcp_approval_response"),
)
ROLES = ("user", "assistant", "system", "developer")
INPUT_PARTS = ("input_text", "input_image", "input_file", "input_audio")
OUTPUT_PARTS = ("output_text", "refusal")
PREFIXES = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "reasoning": "rs",
    "compaction": "cmp",
    "mcp_list_tools": "mcpl",
    "mcp_call": "mcp",
    "mcp_approval_request": "mcpr",
    "mcp_approval_response": "mcpa",
}
"""Of the ids of items, by type."""
MAX_ID = 128
MAX_LISTED = 2000
"""Tools of an `mcp_list_tools` item."""
_STATES = ("in_progress", "completed", "incomplete")


def read_items(given: str | Sequence[Item] | None, new_id: NewId, *, where: str = "input") -> list[Item]:
    """Complete items; references stay as they are. Raises BadRequestError."""
    if given is None:
        return []
    if isinstance(given, str):
        return [_message({"role": "user", "content": given}, where, new_id)]
    if len(given) > MAX_ITEMS:
        raise too_many(where, len(given))
    return [_item(item, f"{where}[{index}]", new_id) for index, item in enumerate(given)]


def _item(item: Item, where: str, new_id: NewId) -> Item:
    if not isinstance(item, dict):
        raise _invalid(where, "an object")
    kind = item.get("type")
    if kind is None:
        kind = "message" if "role" in item else "item_reference" if set(item) <= {"id", "type"} else None
    if kind not in SERVED:
        raise BadRequestError(
            f"Unsupported item type: '{str(kind)[:100]}'. Served item types: {', '.join(SERVED)}.",
            param=f"{where}.type",
            code="unsupported_item",
        )
    made = _READERS[kind](item, where, new_id)
    return made


def _message(item: Item, where: str, new_id: NewId) -> Item:
    role = item.get("role")
    if role not in ROLES:
        served = ", ".join(f"'{name}'" for name in ROLES)
        raise BadRequestError(
            f"Invalid value: '{str(role)[:100]}'. Supported values are: {served}.",
            param=f"{where}.role",
            code="invalid_value",
        )
    content = item.get("content")
    if content is None:
        raise _missing(f"{where}.content")
    made: Item = {
        "id": _id(item, where, "message", new_id),
        "type": "message",
        "status": _status(item, where),
        "role": role,
    }
    if isinstance(content, str):
        made["content"] = [_text_part(content, role)]
    elif isinstance(content, list):
        parts = [_part(part, f"{where}.content[{index}]", role) for index, part in enumerate(content)]
        made["content"] = parts
    else:
        raise _invalid(f"{where}.content", "a string or an array")
    if item.get("phase") in ("commentary", "final_answer"):
        made["phase"] = item["phase"]
    return made


def _text_part(text: str, role: str) -> Item:
    if role == "assistant":
        return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    return {"type": "input_text", "text": text}


def _part(part: Any, where: str, role: str) -> Item:
    if not isinstance(part, dict):
        raise _invalid(where, "an object")
    kind = part.get("type")
    served = OUTPUT_PARTS if role == "assistant" else INPUT_PARTS
    if role == "assistant" and kind == "input_text":  # OpenAI takes it as well
        return _text_part(_text(part, "text", where), role)
    if kind not in served:
        names = ", ".join(f"'{name}'" for name in served)
        raise BadRequestError(
            f"Invalid value: '{str(kind)[:100]}'. Supported values are: {names}.",
            param=f"{where}.type",
            code="invalid_value",
        )
    if kind in ("input_text", "output_text"):
        return _text_part(_text(part, "text", where), role)
    if kind == "refusal":
        return {"type": kind, "refusal": _text(part, "refusal", where)}
    if kind == "input_audio":
        audio = part.get("input_audio")
        if not isinstance(audio, dict):
            raise _missing(f"{where}.input_audio")
        data = {name: _text(audio, name, f"{where}.input_audio") for name in ("data", "format")}
        return {"type": kind, "input_audio": data}
    return _image(part, where) if kind == "input_image" else _file(part, where)


def _image(part: Item, where: str) -> Item:
    detail = part.get("detail") or "auto"
    if detail not in ("auto", "low", "high", "original"):
        raise _invalid(f"{where}.detail", "'auto', 'low', 'high' or 'original'")
    if (file_id := _file_id(part, "image_url", where)) is not None:
        return {"type": "input_image", "file_id": file_id, "detail": detail, "image_url": None}
    url = part.get("image_url")
    if not isinstance(url, str):
        raise _missing(f"{where}.image_url") if url is None else _invalid(f"{where}.image_url", "a string")
    return {"type": "input_image", "image_url": url, "detail": detail}


def _file(part: Item, where: str) -> Item:
    if (file_id := _file_id(part, "file_data", where)) is not None:
        return {"type": "input_file", "file_id": file_id}
    if part.get("file_url") is not None:
        raise BadRequestError(
            f"Unsupported parameter: '{where}.file_url'. Send the file as 'file_data'.",
            param=f"{where}.file_url",
            code="unsupported_parameter",
        )
    made: Item = {"type": "input_file", "file_data": _text(part, "file_data", where)}
    if part.get("filename") is not None:
        made["filename"] = _text(part, "filename", where)
    return made


def _file_id(part: Item, other: str, where: str) -> str | None:
    """The file that a part names. Raises BadRequestError."""
    found = part.get("file_id")
    if found is None:
        return None
    if part.get(other) is not None:
        raise BadRequestError(
            f"Only one of '{where}.file_id' and '{where}.{other}' is taken.",
            param=f"{where}.file_id",
            code="mutually_exclusive_parameters",
        )
    if not isinstance(found, str) or not is_id(found):
        raise _invalid(f"{where}.file_id", "the id of a file")
    return found


def _function_call(item: Item, where: str, new_id: NewId) -> Item:
    made = {
        "id": _id(item, where, "function_call", new_id),
        "type": "function_call",
        "status": _status(item, where),
        **{name: _text(item, name, where) for name in ("arguments", "call_id", "name")},
    }
    if (namespace := _optional_text(item, "namespace", where)) is not None:
        made["namespace"] = namespace
    return made


def _function_call_output(item: Item, where: str, new_id: NewId) -> Item:
    output = item.get("output")
    if isinstance(output, list):
        output = [_part(part, f"{where}.output[{index}]", "user") for index, part in enumerate(output)]
    elif not isinstance(output, str):
        raise _missing(f"{where}.output") if output is None else _invalid(f"{where}.output", "a string or an array")
    return {
        "id": _id(item, where, "function_call_output", new_id),
        "type": "function_call_output",
        "status": _status(item, where),
        "call_id": _text(item, "call_id", where),
        "output": output,
    }


def _reasoning(item: Item, where: str, new_id: NewId) -> Item:
    made: Item = {"id": _id(item, where, "reasoning", new_id), "type": "reasoning"}
    for name, kind in (("summary", "summary_text"), ("content", "reasoning_text")):
        parts = item.get(name)
        if parts is None:
            parts = []
        if not isinstance(parts, list):
            raise _invalid(f"{where}.{name}", "an array")
        for index, part in enumerate(parts):
            if not isinstance(part, dict) or part.get("type") != kind:
                raise _invalid(f"{where}.{name}[{index}]", f"an object of type '{kind}'")
        made[name] = [
            {"type": kind, "text": _text(part, "text", f"{where}.{name}[{index}]")} for index, part in enumerate(parts)
        ]
    made["status"] = _status(item, where)
    if (encrypted := item.get("encrypted_content")) is not None:
        if not isinstance(encrypted, str):
            raise _invalid(f"{where}.encrypted_content", "a string")
        made["encrypted_content"] = encrypted
    return made


def _reference(item: Item, where: str, new_id: NewId) -> Item:
    return {"type": "item_reference", "id": _text(item, "id", where)}


def _mcp_list_tools(item: Item, where: str, new_id: NewId) -> Item:
    tools = item.get("tools")
    if not isinstance(tools, list) or len(tools) > MAX_LISTED:
        raise _invalid(f"{where}.tools", f"an array of at most {MAX_LISTED} tools")
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict) or not isinstance(tool.get("name"), str):
            raise _invalid(f"{where}.tools[{index}]", "a tool with a name")
    made = _of_server(item, where, new_id) | {"tools": tools}
    if (error := _optional_text(item, "error", where)) is not None:
        made["error"] = error
    return made


def _mcp_call(item: Item, where: str, new_id: NewId) -> Item:
    error = item.get("error")
    if error is not None and not isinstance(error, str | dict):
        raise _invalid(f"{where}.error", "an object")
    status = item.get("status")
    if status not in (None, *_STATES, "calling", "failed"):
        raise _invalid(f"{where}.status", "'in_progress', 'completed', 'incomplete', 'calling' or 'failed'")
    return _of_server(item, where, new_id) | {
        "status": status or ("failed" if error else "completed"),
        "name": _text(item, "name", where),
        "arguments": _text(item, "arguments", where),
        "approval_request_id": _optional_text(item, "approval_request_id", where),
        "output": _optional_text(item, "output", where),
        "error": error,
    }


def _mcp_approval_request(item: Item, where: str, new_id: NewId) -> Item:
    named = {name: _text(item, name, where) for name in ("name", "arguments")}
    return _of_server(item, where, new_id) | named


def _mcp_approval_response(item: Item, where: str, new_id: NewId) -> Item:
    approve = item.get("approve")
    if not isinstance(approve, bool):
        raise _missing(f"{where}.approve") if approve is None else _invalid(f"{where}.approve", "a boolean")
    return {
        "id": _id(item, where, "mcp_approval_response", new_id),
        "type": "mcp_approval_response",
        "approval_request_id": _text(item, "approval_request_id", where),
        "approve": approve,
        "reason": _optional_text(item, "reason", where),
    }


def _of_server(item: Item, where: str, new_id: NewId) -> Item:
    kind = item["type"]
    return {"id": _id(item, where, kind, new_id), "type": kind, "server_label": _text(item, "server_label", where)}


def _compaction(item: Item, where: str, new_id: NewId) -> Item:
    """Its content is read where its organisation is known (`sealed`)."""
    content = _text(item, "encrypted_content", where)
    return {"id": _id(item, where, "compaction", new_id), "type": "compaction", "encrypted_content": content}


_READERS: dict[str, Callable[[Item, str, NewId], Item]] = {
    "message": _message,
    "function_call": _function_call,
    "function_call_output": _function_call_output,
    "reasoning": _reasoning,
    "compaction": _compaction,
    "item_reference": _reference,
    "mcp_list_tools": _mcp_list_tools,
    "mcp_call": _mcp_call,
    "mcp_approval_request": _mcp_approval_request,
    "mcp_approval_response": _mcp_approval_response,
}


def _id(item: Item, where: str, kind: str, new_id: NewId) -> str:
    """The item's own id, as for an output that the client sends back, or a new one."""
    given = item.get("id")
    if given is None:
        return new_id(PREFIXES[kind])
    if not isinstance(given, str) or not is_id(given):
        raise _invalid(f"{where}.id", f"a string of 1 to {MAX_ID} characters of ASCII")
    return given


def is_id(text: str) -> bool:
    """Whether an object can have this id. PostgreSQL can't look for a text with NUL."""
    return 0 < len(text) <= MAX_ID and text.isascii() and text.isprintable()


def _status(item: Item, where: str) -> str:
    status = item.get("status")
    if status is None:
        return "completed"
    if status not in _STATES:
        raise _invalid(f"{where}.status", "'in_progress', 'completed' or 'incomplete'")
    return str(status)


def _text(value: Item, name: str, where: str) -> str:
    found = value.get(name)
    if found is None:
        raise _missing(f"{where}.{name}")
    if not isinstance(found, str):
        raise _invalid(f"{where}.{name}", "a string")
    return found


def _optional_text(value: Item, name: str, where: str) -> str | None:
    return None if value.get(name) is None else _text(value, name, where)


def _missing(param: str) -> BadRequestError:
    return BadRequestError(f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter")


def _invalid(param: str, expected: str) -> BadRequestError:
    return BadRequestError(f"Invalid type for '{param}': expected {expected}.", param=param, code="invalid_type")
