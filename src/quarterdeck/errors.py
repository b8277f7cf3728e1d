"""Every error a caller can see.

* APIError                     500  server_error
  - BadRequestError            400  invalid_request_error
    + RequestTimeoutError      408
    + RequestTooLargeError     413
    + (headers too large)      431
    + UnsupportedMediaTypeError 415
  - AuthenticationError        401  authentication_error
  - PermissionDeniedError      403  permission_error
  - NotFoundError              404  invalid_request_error
    + MethodNotAllowedError    405
  - ConflictError              409  invalid_request_error
  - RateLimitError             429  rate_limit_error
    + InsufficientQuotaError   429  insufficient_quota     a budget is exhausted: a retry would fail as well
  - NotServedError             501  invalid_request_error  a part of the API that is not served here
  - ServiceUnavailableError    503  server_error           a dependency is unavailable
    + StorageUnavailableError  503                         the storage of files is
    + StorageFullError         507
  - EngineError                502  engine_error
    + EngineUnavailableError   503
    + EngineTimeoutError       504

The names are the OpenAI SDK's: we raise NotFoundError, the caller catches `openai.NotFoundError`. A door
translates the tree once: the gateway into an envelope or a stream event, the engine door into an envelope. An engine's
400, 413 or 422 is a BadRequestError with that status.
"""

from collections.abc import Mapping
from typing import ClassVar

RETRY_AFTER_SECONDS: Mapping[str, int] = {
    # Over within a second: a dependency restarts, a request ends, another gateway takes the retry.
    "auth_unavailable": 1,
    "cache_unavailable": 1,
    "engine_unavailable": 1,
    "limits_unavailable": 1,
    "overloaded": 1,
    "records_unavailable": 1,
    "shutting_down": 1,
    "storage_unavailable": 1,
    # A model has to start, or a queue has to move.
    "model_not_ready": 5,
    "queue_full": 5,
    "queue_timeout": 5,
}
"""Retry-After by error code. An error that knows better (a rate limit, an engine's own header) passes `retry_after`;
one of any other code has no such header."""


class APIError(Exception):
    """An error in the shape of OpenAI's error object.

    `param` is the request's field at fault, `code` the machine-readable cause, `headers` are sent with the response.
    `retry_after` is the value of its Retry-After header: seconds, or an engine's own words. None: by its code
    (RETRY_AFTER_SECONDS).
    """

    status: int = 500
    type: str = "server_error"
    engine_status: int = 0
    """The status of the engine's response, where this error stems from one. 0: there was none."""
    is_refusal: bool = False
    """Whether the endpoint works, but takes no requests for now: it is full, or its account has no quota left. Another
    endpoint may be asked without adding to an outage."""
    rest_seconds: float | None = None
    """For how long it takes none, if it said so."""
    is_of_model: bool = False
    """Whether its refusal is of this model only: other models of its account may be served."""
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
        retry_after: int | str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.headers = dict(headers or {})
        self.retry_after = retry_after if retry_after is not None else RETRY_AFTER_SECONDS.get(self.code or "")


class BadRequestError(APIError):
    status, type = 400, "invalid_request_error"


class RequestTimeoutError(BadRequestError):
    status, default_code = 408, "request_timeout"


class RequestTooLargeError(BadRequestError):
    status, default_code = 413, "request_too_large"


class UnsupportedMediaTypeError(BadRequestError):
    status, default_code = 415, "unsupported_media_type"


class AuthenticationError(APIError):
    status, type, default_code = 401, "authentication_error", "invalid_api_key"


class PermissionDeniedError(APIError):
    status, type = 403, "permission_error"


class NotFoundError(APIError):
    status, type = 404, "invalid_request_error"


class MethodNotAllowedError(NotFoundError):
    status, default_code = 405, "method_not_allowed"


class ConflictError(APIError):
    status, type = 409, "invalid_request_error"


class RateLimitError(APIError):
    status, type, default_code = 429, "rate_limit_error", "rate_limit_exceeded"


class InsufficientQuotaError(RateLimitError):
    type, default_code = "insufficient_quota", "insufficient_quota"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        # The SDKs retry a 429 unless this header forbids it.
        super().__init__(message, param=param, code=code, headers={"x-should-retry": "false", **(headers or {})})


class NotServedError(APIError):
    """A part of OpenAI's API that is not served, or not configured here."""

    status, type, default_code = 501, "invalid_request_error", "not_served"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        # The SDKs retry a 5xx unless this header forbids it.
        super().__init__(message, param=param, code=code, headers={"x-should-retry": "false"})


class ServiceUnavailableError(APIError):
    status = 503


class StorageUnavailableError(ServiceUnavailableError):
    """The storage of files can't be read or written at the moment."""

    default_code = "storage_unavailable"


class StorageFullError(ServiceUnavailableError):
    status, default_code = 507, "storage_full"

    def __init__(self, message: str, *, param: str | None = None, code: str | None = None) -> None:
        # The SDKs retry a 5xx unless this header forbids it, and a retry sends the whole file again.
        super().__init__(message, param=param, code=code, headers={"x-should-retry": "false"})


class EngineError(APIError):
    """An engine's response was wrong, or broke off."""

    status, type, default_code = 502, "engine_error", "engine_error"


class EngineUnavailableError(EngineError):
    """No engine accepted the request. Another may be tried: this one never saw it, or refused it."""

    status, default_code = 503, "engine_unavailable"


class EngineTimeoutError(EngineError):
    status, default_code = 504, "engine_timeout"


def envelope(error: APIError) -> dict[str, dict[str, str | None]]:
    """OpenAI's error object: `{"error": {"message", "type", "param", "code"}}`."""
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
    }
