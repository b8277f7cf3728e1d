"""Translates an engine's errors into ours: error responses, errors inside a stream, and failures of the connection.

Engines' error bodies are parsed in `protocol/error_bodies`; which of our errors they become is decided here.
"""

import re

from quarterdeck.errors import (
    APIError,
    BadRequestError,
    EngineError,
    EngineTimeoutError,
    EngineUnavailableError,
    NotFoundError,
    RateLimitError,
)
from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.net.http_connection import UpstreamError
from quarterdeck.protocol.error_bodies import parse_error_body
from quarterdeck.protocol.sse import EventTooLongError

MAX_MESSAGE = 2000
MAX_PARAM = 200
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Codes that are passed on: they become metric labels and are stored in the ledger."""


def error_of_response(status: int, body: bytes, retry_after: bytes | None = None) -> APIError:
    """The error for a response whose status is not 200."""
    error = parse_error_body(body)
    message = (error.message or "")[:MAX_MESSAGE] or f"The engine answered with status {status}."
    is_word = isinstance(error.code, str) and not error.code.isdecimal() and _CODE.fullmatch(error.code)
    code = str(error.code) if is_word else None
    param = error.param[:MAX_PARAM] if isinstance(error.param, str) else None
    engines_own = retry_after.decode("latin-1") if retry_after else None
    return with_engine_status(_by_status(status, message, code, param, engines_own), status)


def error_of_event(data: bytes) -> APIError:
    """The error for an error object inside a 200. Its numeric code stands for the status."""
    code = parse_error_body(data).code
    status = int(code) if isinstance(code, (int, str)) and str(code).isdecimal() else 500
    return error_of_response(status if 400 <= status < 600 else 500, data)


def error_of_failure(error: UpstreamError | EventTooLongError) -> APIError:
    """The error for a connection that failed, timed out or carried no valid response."""
    if isinstance(error, EventTooLongError):
        return with_engine_status(EngineError(f"The engine's stream is broken: {error}."), 200)
    message = f"The request to the model's engine failed: {error}."
    if error.at_limit:
        return with_engine_status(EngineTimeoutError("The request timed out.", code="request_timeout"), error.status)
    if error.timed_out:
        return with_engine_status(EngineTimeoutError(message), error.status)
    failed = EngineError(message) if error.answered else EngineUnavailableError(message)
    return with_engine_status(failed, error.status)


def with_engine_status(error: APIError, status: int) -> APIError:
    """The error, with the status of the response that it stems from."""
    error.engine_status = status
    return error


def redacted(data: bytes, endpoint: Endpoint) -> bytes:
    """An engine's error body without the endpoint's API key, as some engines quote what they were sent, and with the
    public names of its adapters."""
    if endpoint.spec.api_key:
        data = data.replace(endpoint.spec.api_key.encode(), b"[redacted]")
    for name, engine_name in endpoint.spec.engine_names.items():
        data = data.replace(engine_name.encode(), name.encode())
    return data


def with_public_name(data: bytes, engine_name: str, name: str) -> bytes:
    """Answers and events with the public name of the adapter that the engine used. In a JSON string the quotes would be
    escaped, so only members match."""
    engines, public = engine_name.encode(), name.encode()
    data = data.replace(b'"model":"%b"' % engines, b'"model":"%b"' % public)
    return data.replace(b'"model": "%b"' % engines, b'"model": "%b"' % public)


def _by_status(status: int, message: str, code: str | None, param: str | None, retry_after: str | None) -> APIError:
    if status == 429:
        return RateLimitError(message, code=code or "engine_overloaded", retry_after=retry_after)
    if status == 404:
        return NotFoundError(message, param=param, code=code or "model_not_found")
    if status in (400, 413, 422):
        return BadRequestError(message, param=param, code=code or _code_of(message))
    if status in (408, 504):
        return EngineTimeoutError(message)
    if status == 503:
        return EngineUnavailableError(message, retry_after=retry_after)
    # 401 and 403 mean that the endpoint refuses the *gateway's* key: the caller can't fix that, and the message may
    # quote part of the key.
    return EngineError(f"The engine answered with status {status}." if status in (401, 403) else message)


def _code_of(message: str) -> str | None:
    """OpenAI's code for an error that vLLM describes in its message only."""
    words = message.lower()
    if "maximum context length" in words or "max_model_len" in words or "maximum model length" in words:
        return "context_length_exceeded"
    return None
