"""The errors of the simulated engine, in vLLM's words and shapes (a numeric code, types of its own).

Not the platform's `errors.py`: these are what the gateway has to put right.
"""

import http
from typing import Any

import msgspec


class Refusal(Exception):
    """An answer that is an error: `{"error": {"message", "type", "param", "code"}}`."""

    def __init__(
        self,
        message: str,
        *,
        status: int = 400,
        type: str = "BadRequestError",
        param: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.type = type
        self.param = param
        self.headers = headers

    def body(self) -> bytes:
        return msgspec.json.encode(
            {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.status}}
        )


def invalid(message: str, param: str | None = None) -> Refusal:
    return Refusal(message, param=param)


def unknown_model(name: str) -> Refusal:
    return Refusal(f"The model `{name}` does not exist.", status=404, type="NotFoundError", param="model")


def no_route() -> Refusal:
    return Refusal("Not Found", status=404, type="Not Found")


def wrong_method(allowed: str) -> Refusal:
    return Refusal("Method Not Allowed", status=405, type="Method Not Allowed", headers=((b"allow", allowed.encode()),))


def too_long(context: int, max_tokens: int, prompt_tokens: int) -> Refusal:
    return Refusal(
        f"This model's maximum context length is {context} tokens. However, you requested {max_tokens} output tokens "
        f"and your prompt contains {prompt_tokens} input tokens, for a total of {prompt_tokens + max_tokens} tokens. "
        "Please reduce the length of the input prompt or the number of requested output tokens.",
        param="input_tokens",
    )


def queue_full(retry_after: float = 1) -> Refusal:
    return too_many("Too many requests: the waiting queue is full", retry_after)


def too_many(message: str, retry_after: float) -> Refusal:
    return Refusal(
        message,
        status=429,
        type="TooManyRequestsError",
        headers=((b"retry-after", f"{retry_after:g}".encode()),),
    )


def unavailable(message: str) -> Refusal:
    return Refusal(message, status=503, type=http.HTTPStatus(503).phrase, headers=((b"retry-after", b"1"),))


def unreadable(error: Exception) -> Refusal:
    """A body that is not JSON, as FastAPI tells it through vLLM's handler."""
    detail = {"type": "json_invalid", "loc": ("body", 0), "msg": "JSON decode error", "ctx": {"error": str(error)}}
    return Refusal(f"1 validation error:\n  {detail}", type="Bad Request", param="body.0")


def wrong_type(error: msgspec.ValidationError) -> Refusal:
    """A field of the wrong type, as pydantic tells it through vLLM's handler."""
    text, _, path = str(error).partition(" - at `$")
    steps = [step for step in path.rstrip("`").replace("[...]", "").split(".") if step]
    loc: tuple[Any, ...] = ("body", *steps)
    missing = "missing required field" in text
    if missing:
        loc = (*loc, text.rsplit("`", 2)[1])
    detail = {"type": "missing" if missing else "value_error", "loc": loc, "msg": text}
    return Refusal(f"1 validation error:\n  {detail}", type="Bad Request", param=".".join(map(str, loc)))


def unsupported_media_type() -> Refusal:
    return Refusal(
        "1 validation error:\n  Unsupported Media Type: Only 'application/json' is allowed", type="Bad Request"
    )
