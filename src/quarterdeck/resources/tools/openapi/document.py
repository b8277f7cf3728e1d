"""OpenAPI documents (3.0 and 3.1): operations as tools. Pure.

An operation's parameters and the members of its JSON body are the arguments of its tool. References are resolved within
the document only.
"""

from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urljoin

import msgspec

from quarterdeck.resources.tools.bounds import NAME, checked_tool
from quarterdeck.resources.tools.servers import Json, ServerTool
from quarterdeck.settings.tools import check_url

METHODS = ("get", "put", "post", "delete", "patch")
BODY = "body"
"""The argument that is the whole body, where the body's members can't be arguments."""

Place = Literal["path", "query", "header"]


class DocumentError(ValueError):
    """A document that describes no usable operation. The message says what is wrong with it."""


class Parameter(msgspec.Struct, frozen=True):
    name: str
    place: Place
    is_required: bool
    explodes: bool = True


class ApiOperation(msgspec.Struct, frozen=True):
    """An operation as a tool. `members`: arguments that are members of the body; None: there is no body."""

    tool: ServerTool
    method: str
    path: str
    parameters: tuple[Parameter, ...]
    members: frozenset[str] | None = None
    required: frozenset[str] = frozenset()


def read_operations(document: Json, names: tuple[str, ...]) -> dict[str, ApiOperation]:
    """The operations with these ids. Raises DocumentError."""
    version = document.get("openapi")
    if not isinstance(version, str) or not version.startswith(("3.0", "3.1")):
        raise DocumentError("not an OpenAPI 3.0 or 3.1 document")
    found: dict[str, ApiOperation] = {}
    for path, item in _object(document.get("paths"), "paths").items():
        item = _resolved(document, item)
        if not isinstance(item, dict):
            continue
        for method in METHODS:
            operation = item.get(method)
            if isinstance(operation, dict) and (name := operation.get("operationId")) in names:
                shared = item.get("parameters") or []
                found[str(name)] = _operation(document, str(name), method, path, operation, shared)
    missing = [name for name in names if name not in found]
    if missing:
        raise DocumentError(f"no operation with the operationId {', '.join(map(repr, missing))}")
    return {name: found[name] for name in names}


def server_url(document: Json, source: str = "") -> str:
    """The first server of a document, without a slash at its end. Raises DocumentError."""
    servers = document.get("servers")
    if not isinstance(servers, list) or not servers or not isinstance(servers[0], dict):
        raise DocumentError("it names no server: set `url`")
    try:
        return check_url(urljoin(source, str(servers[0].get("url")))).rstrip("/")
    except ValueError as error:
        raise DocumentError(f"its server can't be used ({error}): set `url`") from error


def _operation(document: Json, name: str, method: str, path: str, operation: Json, shared: list[Any]) -> ApiOperation:
    if not NAME.fullmatch(name):
        raise DocumentError(f"operationId {name[:100]!r} can't be a tool's name")
    properties: Json = {}
    required: list[str] = []
    parameters: dict[tuple[str, str], Parameter] = {}
    for given in (*shared, *(operation.get("parameters") or [])):
        each = _object(_resolved(document, given), f"{name}: a parameter")
        place, title = each.get("in"), str(each.get("name"))
        if place == "cookie":
            if each.get("required"):
                raise DocumentError(f"{name}: parameters in cookies are not supported")
            continue
        if place not in ("path", "query", "header"):
            raise DocumentError(f"{name}: parameter {title!r} has no place")
        if place == "header" and title.lower() in ("authorization", "accept", "content-type", "host", "cookie"):
            continue
        is_required = bool(each.get("required")) or place == "path"
        parameters[place, title] = Parameter(title, place, is_required, bool(each.get("explode", True)))
        schema = _object(_resolved(document, each.get("schema") or {"type": "string"}), f"{name}: {title}")
        text = each.get("description")
        properties[title] = {**schema, **({"description": text} if isinstance(text, str) else {})}
        if is_required:
            required.append(title)
    members = _body(document, name, operation, properties, required)
    schema = {"type": "object", "properties": properties, "required": list(dict.fromkeys(required))}
    text = "\n".join(str(operation[each]) for each in ("summary", "description") if operation.get(each))
    hints = {"readOnlyHint": method == "get"}
    tool = checked_tool(name, text or f"{method.upper()} {path}", schema, hints)
    if tool is None:
        raise DocumentError(f"{name}: its parameters are too large")
    return ApiOperation(tool, method.upper(), path, tuple(parameters.values()), members, frozenset(schema["required"]))


def _body(document: Json, name: str, operation: Json, properties: Json, required: list[str]) -> frozenset[str] | None:
    """Add the arguments of the body. Returns their names; None: there is no body."""
    body = _resolved(document, operation.get("requestBody"))
    if not isinstance(body, dict):
        return None
    content = body.get("content") or {}
    kind = next((each for each in content if each.partition(";")[0].strip() == "application/json"), None)
    if kind is None:
        if body.get("required"):
            raise DocumentError(f"{name}: its body is not JSON")
        return None
    schema = _object(_resolved(document, content[kind].get("schema") or {}), f"{name}: its body")
    members = schema.get("properties")
    if isinstance(members, dict) and members and not members.keys() & properties.keys():
        properties |= members
        if body.get("required"):
            required += [each for each in schema.get("required") or [] if each in members]
        return frozenset(members)
    properties[BODY] = schema
    if body.get("required"):
        required.append(BODY)
    return frozenset({BODY})


def _resolved(document: Json, value: Any, within: tuple[str, ...] = ()) -> Any:
    """A value with its references replaced. A reference within itself becomes a schema that takes anything."""
    if isinstance(value, list):
        return [_resolved(document, each, within) for each in value]
    if not isinstance(value, dict):
        return value
    reference = value.get("$ref")
    if not isinstance(reference, str):
        return {name: _resolved(document, each, within) for name, each in value.items()}
    if reference in within:
        return {}
    if not reference.startswith("#/"):
        raise DocumentError(f"reference {reference[:200]!r} leads out of the document")
    found: Any = document
    for part in reference[2:].split("/"):
        part = part.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or part not in found:
            raise DocumentError(f"reference {reference[:200]!r} leads nowhere")
        found = found[part]
    return _resolved(document, found, (*within, reference))


def _object(value: Any, what: str) -> Json:
    if not isinstance(value, dict):
        raise DocumentError(f"{what} is not an object")
    return value
