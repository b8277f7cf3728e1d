"""The HTTP request of a call. Pure.

A model chooses the arguments: none of them may lead to another path of the API, or add a header.
"""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from quarterdeck.resources.tools.openapi.document import BODY, ApiOperation, Parameter


class ArgumentsError(ValueError):
    """Arguments that make no request. The model is given the message."""


class ApiRequest(msgspec.Struct, frozen=True):
    method: str
    target: str
    """Path and query."""
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes


def make_request(operation: ApiOperation, arguments: Mapping[str, Any]) -> ApiRequest:
    """Raises ArgumentsError."""
    known = {each.name for each in operation.parameters} | (operation.members or frozenset())
    if unknown := sorted(arguments.keys() - known):
        raise ArgumentsError(f"Unknown arguments: {', '.join(unknown)[:500]}.")
    if missing := sorted(name for name in operation.required if arguments.get(name) is None):
        raise ArgumentsError(f"Missing arguments: {', '.join(missing)}.")
    path, query = operation.path, []
    headers: list[tuple[bytes, bytes]] = [(b"accept", b"application/json, text/*;q=0.9, */*;q=0.1")]
    for parameter in operation.parameters:
        value = arguments.get(parameter.name)
        if value is None:
            continue
        if parameter.place == "path":
            path = path.replace("{" + parameter.name + "}", _segment(parameter, value))
        elif parameter.place == "query":
            query += _pairs(parameter, value)
        else:
            headers.append((parameter.name.lower().encode(), _header(parameter, value)))
    if "{" in path:
        raise ArgumentsError("An argument of the path is missing.")
    body = b""
    if operation.members is not None:
        content: Any = {name: arguments[name] for name in operation.members if name in arguments}
        if operation.members == {BODY}:
            content = arguments.get(BODY)
        if content is not None and content != {}:
            body = msgspec.json.encode(content)
            headers.append((b"content-type", b"application/json"))
    target = path + (f"?{urlencode(query)}" if query else "")
    return ApiRequest(operation.method, target, tuple(headers), body)


def _segment(parameter: Parameter, value: Any) -> str:
    text = _text(parameter, value)
    if text in ("", ".", ".."):
        raise ArgumentsError(f"Invalid value for '{parameter.name}'.")
    return quote(text, safe="")


def _pairs(parameter: Parameter, value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        return [(parameter.name, _text(parameter, value))]
    texts = [_text(parameter, each) for each in value]
    return [(parameter.name, text) for text in texts] if parameter.explodes else [(parameter.name, ",".join(texts))]


def _header(parameter: Parameter, value: Any) -> bytes:
    text = _text(parameter, value)
    if not text.isascii() or not text.isprintable():
        raise ArgumentsError(f"Invalid value for '{parameter.name}': printable characters of ASCII only.")
    return text.encode()


def _text(parameter: Parameter, value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | float):
        return str(value)
    raise ArgumentsError(f"Invalid type for '{parameter.name}': expected a string, a number or a boolean.")
