"""Our errors in Anthropic's form: `{"type": "error", "error": {"type", "message"}}`. Pure."""

from collections.abc import Mapping

from quarterdeck.errors import APIError
from quarterdeck.protocol import sse

TYPES: Mapping[int, str] = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}
"""By status. Other statuses below 500 are `invalid_request_error`, others `api_error`."""


def envelope(error: APIError) -> dict[str, object]:
    kind = TYPES.get(error.status) or ("invalid_request_error" if error.status < 500 else "api_error")
    return {"type": "error", "error": {"type": kind, "message": error.message}}


def error_event(error: APIError) -> bytes:
    """The event for a failure after the answer has begun."""
    return b"event: error\n" + sse.event(envelope(error))
