"""The simulated engine's error responses, with vLLM's messages and shape (a numeric code, vLLM's own types).

These are not the platform's errors (`quarterdeck.errors`): the gateway has to translate them.
"""

import http
from typing import Any

import msgspec


class VLLMError(Exception):
    """An error response: `{"error": {"message", "type", "param", "code"}}`."""

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


def invalid_request(message: str, param: str | None = None) -> VLLMError:
    return VLLMError(message, param=param)


def model_not_found(name: str) -> VLLMError:
    return VLLMError(f"The model `{name}` does not exist.", status=404, type="NotFoundError", param="model")


def route_not_found() -> VLLMError:
    return VLLMError("Not Found", status=404, type="Not Found")


def method_not_allowed(allowed: str) -> VLLMError:
    return VLLMError(
        "Method Not Allowed", status=405, type="Method Not Allowed", headers=((b"allow", allowed.encode()),)
    )


def context_too_long(context: int, max_tokens: int, prompt_tokens: int) -> VLLMError:
    return VLLMError(
        f"This model's maximum context length is {context} tokens. However, you requested {max_tokens} output tokens "
        f"and your prompt contains {prompt_tokens} input tokens, for a total of {prompt_tokens + max_tokens} tokens. "
        "Please reduce the length of the input prompt or the number of requested output tokens.",
        param="input_tokens",
    )


def queue_full(retry_after: float = 1) -> VLLMError:
    return too_many_requests("Too many requests: the waiting queue is full", retry_after)


def too_many_requests(message: str, retry_after: float) -> VLLMError:
    return VLLMError(
        message,
        status=429,
        type="TooManyRequestsError",
        headers=((b"retry-after", f"{retry_after:g}".encode()),),
    )


def service_unavailable(message: str) -> VLLMError:
    return VLLMError(message, status=503, type=http.HTTPStatus(503).phrase, headers=((b"retry-after", b"1"),))


def invalid_json(error: Exception) -> VLLMError:
    """A body that is not JSON, as FastAPI reports it through vLLM's handler."""
    detail = {"type": "json_invalid", "loc": ("body", 0), "msg": "JSON decode error", "ctx": {"error": str(error)}}
    return VLLMError(f"1 validation error:\n  {detail}", type="Bad Request", param="body.0")


def validation_error(error: msgspec.ValidationError) -> VLLMError:
    """A field of the wrong type, as pydantic reports it through vLLM's handler."""
    text, _, path = str(error).partition(" - at `$")
    steps = [step for step in path.rstrip("`").replace("[...]", "").split(".") if step]
    loc: tuple[Any, ...] = ("body", *steps)
    missing = "missing required field" in text
    if missing:
        loc = (*loc, text.rsplit("`", 2)[1])
    detail = {"type": "missing" if missing else "value_error", "loc": loc, "msg": text}
    return VLLMError(f"1 validation error:\n  {detail}", type="Bad Request", param=".".join(map(str, loc)))


def unsupported_media_type(allowed: str = "application/json") -> VLLMError:
    return VLLMError(f"1 validation error:\n  Unsupported Media Type: Only '{allowed}' is allowed", type="Bad Request")
