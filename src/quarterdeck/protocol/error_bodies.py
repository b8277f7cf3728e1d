"""Error bodies as engines send them, read into one shape.

* OpenAI, vLLM  `{"error": {"message", "type", "param", "code"}}`
* older vLLM    `{"object": "error", "message", "type", "param", "code"}`
* Ollama        `{"error": "message"}`
* FastAPI       `{"detail": "message"}`, `{"detail": [{"loc": [...], "msg": "message"}, ...]}`
"""

import msgspec

MAX_TEXT = 2000
"""Bytes of a body that is not JSON which are taken for the message."""


class ErrorBody(msgspec.Struct):
    """An engine's error. `param` and `code` may be of any type: vLLM's code is the HTTP status, OpenAI's a word."""

    message: str | None = None
    param: object = None
    code: object = None


class _Body(msgspec.Struct):
    """All shapes at once."""

    error: ErrorBody | str | None = None
    message: str | None = None
    detail: object = None
    param: object = None
    code: object = None


def parse_error_body(body: bytes) -> ErrorBody:
    """Read an error body of any shape; a body that is not JSON is the message itself."""
    try:
        found = msgspec.json.decode(body, type=_Body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorBody(body[:MAX_TEXT].decode("utf-8", "replace"))
    if isinstance(found.error, ErrorBody):
        return found.error
    return ErrorBody(found.error or found.message or _detail(found.detail), found.param, found.code)


def _detail(detail: object) -> str:
    if isinstance(detail, str):
        return detail
    if not isinstance(detail, list):
        return ""
    found = [item for item in detail if isinstance(item, dict) and isinstance(item.get("msg"), str)]
    return "; ".join(f"{'.'.join(map(str, item.get('loc', ())))}: {item['msg']}" for item in found)
