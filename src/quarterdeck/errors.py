"""Every error a caller can see.

* APIError                     500  server_error
  - BadRequestError            400  invalid_request_error
    + RequestTimeoutError      408
    + RequestTooLargeError     413
  - AuthenticationError        401  authentication_error
  - PermissionDeniedError      403  permission_error
  - NotFoundError              404  invalid_request_error
    + MethodNotAllowedError    405
  - ConflictError              409  invalid_request_error
  - RateLimitError             429  rate_limit_error
    + InsufficientQuotaError   429  insufficient_quota     a budget is exhausted: trying again is in vain
  - ServiceUnavailableError    503  server_error           a part of ours is away
  - EngineError                502  engine_error
    + EngineUnavailableError   503
    + EngineTimeoutError       504

The names are the OpenAI SDK's: we raise NotFoundError, the caller catches `openai.NotFoundError`. Each door translates
the tree once: the gateway into an envelope or a stream event, the worker into a job's error.
"""

from collections.abc import Mapping
from typing import ClassVar


class APIError(Exception):
    """What went wrong, in the words of OpenAI's error object.

    `param` names the request's field, `code` is the machine's word for the cause, `headers` travel with the answer.
    """

    status: int = 500
    type: str = "server_error"
    engine_status: int = 0
    """What an engine answered with, where this tells of its answer. 0: none came."""
    default_code: ClassVar[str | None] = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code if code is not None else self.default_code
        self.headers = dict(headers or {})


class BadRequestError(APIError):
    status, type = 400, "invalid_request_error"


class RequestTimeoutError(BadRequestError):
    status, default_code = 408, "request_timeout"


class RequestTooLargeError(BadRequestError):
    status, default_code = 413, "request_too_large"


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
        # The SDKs try a 429 again unless they are told not to.
        super().__init__(message, param=param, code=code, headers={"x-should-retry": "false", **(headers or {})})


class ServiceUnavailableError(APIError):
    status = 503


class EngineError(APIError):
    """An engine answered, and wrongly; or was lost while it answered."""

    status, type, default_code = 502, "engine_error", "engine_error"


class EngineUnavailableError(EngineError):
    """Nobody answers for the model now. Safe to try elsewhere: the engine saw nothing, or refused."""

    status, default_code = 503, "engine_unavailable"


class EngineTimeoutError(EngineError):
    status, default_code = 504, "engine_timeout"


def envelope(error: APIError) -> dict[str, dict[str, str | None]]:
    """OpenAI's error object: `{"error": {"message", "type", "param", "code"}}`."""
    return {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code},
    }
