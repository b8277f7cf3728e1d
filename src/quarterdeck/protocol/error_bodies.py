"""Error bodies as engines send them, read into one shape.

* OpenAI, vLLM, Groq  `{"error": {"message", "type", "param", "code"}}`
* Gemini              `[{"error": {"message", "status", "code", "details": [{"retryDelay": "7s"}]}}]`
* Azure's front       `{"statusCode": 429, "message"}`
* older vLLM, SGLang  `{"object": "error", "message", "type", "param", "code"}`
* Mistral             `{"object": "error", "message": {"detail": [...]}, "type", "code"}`
* Ollama, LM Studio   `{"error": "message"}`; TGI adds `error_type`; xAI `code`
* FastAPI             `{"detail": "message"}`, `{"detail": [{"loc": [...], "msg": "message"}, ...]}`
* Cloudflare, Rails   `{"errors": [{"message", "code"}]}`, `{"errors": {"field": ["message"]}}`
* RFC 9457            `{"title", "detail", "status"}`

A code that is missing or a mere number is replaced by the error's type where that is one of `TELLING_TYPES`.
"""

import msgspec

from quarterdeck.protocol import validation_errors

MAX_MESSAGE = 2000
"""Characters of an engine's message that are passed on; bytes of a body that is not JSON."""
MAX_DEPTH = 4
"""How deep a message may be wrapped in other messages."""
TELLING_TYPES = frozenset(
    {
        *("insufficient_quota", "billing_not_active", "rate_limit_exceeded", "rate_limit_error", "overloaded_error"),
        *(
            "overloaded",
            "service_unavailable_error",
            "exceed_context_size_error",
            "requests",
            "tokens",
            "invalid_model",
        ),
    }
)
"""Error types that say more than the status."""


class ErrorBody(msgspec.Struct):
    """An engine's error. `param` and `code` may be of any type: vLLM's code is the HTTP status, OpenAI's a word."""

    message: str | None = None
    param: object = None
    code: object = None


def is_error(answer: dict[str, object]) -> bool:
    """Whether the object of a 200, or of an event, is an error."""
    return bool(answer.get("error")) or answer.get("object") == "error"


def parse_error_body(body: bytes) -> ErrorBody:
    """Read an error body of any shape; a body that is not JSON is the message itself."""
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorBody(body[:MAX_MESSAGE].decode("utf-8", "replace"))
    if isinstance(found, list) and found:
        found = found[0]
    if isinstance(found, str):
        return ErrorBody(found[:MAX_MESSAGE])
    if not isinstance(found, dict):
        return ErrorBody()
    error = found.get("error")
    if isinstance(error, dict):
        return _readable(ErrorBody(_message(error), error.get("param"), _code(error)))
    return _readable(ErrorBody(_message(found) or "", found.get("param"), _code(found)))


def _readable(error: ErrorBody) -> ErrorBody:
    """vLLM's text of pydantic's problems as one sentence."""
    sentence = validation_errors.from_text(error.message or "")
    if sentence is None:
        return error
    return ErrorBody(sentence.message, sentence.param or error.param, sentence.code or error.code)


def _code(error: dict[str, object]) -> object:
    code = error.get("code")
    if code is None or isinstance(code, int | float) or (isinstance(code, str) and code.isdecimal()):
        for name in ("type", "error_type"):
            if (kind := error.get(name)) in TELLING_TYPES:
                return kind
    if code is None and isinstance(kind := error.get("__type"), str):  # AWS
        return kind.rpartition("#")[2]
    return error.get("statusCode") if code is None else code


def _message(error: dict[str, object], depth: int = 0) -> str | None:
    """The words, however deep they are wrapped: FastAPI's lists, and JSON inside a string."""
    for name in ("error", "message", "msg", "detail", "errors", "error_message", "error_msg", "text", "title"):
        value = error.get(name)
        if isinstance(value, str) and value:
            if value[:1] in ("{", "[") and depth < MAX_DEPTH and (inner := _inner(value, depth)):
                return inner
            return value
        if isinstance(value, dict) and depth < MAX_DEPTH and (inner := _message(value, depth + 1)):
            return inner
        if isinstance(value, dict) and name == "errors":
            return "; ".join(f"{field}: {words}" for field, each in value.items() if (words := _listed(_list(each))))
        if isinstance(value, list) and (words := _listed(value)):
            return words
    return None


def _inner(text: str, depth: int) -> str | None:
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return None
    if isinstance(found, list) and found:
        found = found[0]
    return _message(found, depth + 1) if isinstance(found, dict) else None


def _listed(detail: list[object]) -> str:
    """A list of FastAPI's errors, of objects with a message, or of texts."""
    found: list[str] = []
    for item in detail:
        if isinstance(item, dict):
            words = item.get("msg") or item.get("message")
            where = ".".join(map(str, _list(item.get("loc"))))
            if isinstance(words, str):
                found.append(f"{where}: {words}" if where else words)
    return "; ".join(found or [item for item in detail if isinstance(item, str)])


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
