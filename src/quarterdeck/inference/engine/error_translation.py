"""Translates an engine's errors into ours: error responses, errors inside a stream, and failures of the connection.

Engines' error bodies are parsed in `protocol/error_bodies`; which of our errors they become is decided here. The caller
is blamed for the request only: never for the endpoint's key, its account's quota, its address or its model's name,
which are the gateway's configuration.
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
    ServiceUnavailableError,
)
from quarterdeck.inference.endpoints.endpoint import Endpoint, EndpointSpec
from quarterdeck.net.http_connection import UpstreamError
from quarterdeck.protocol.error_bodies import MAX_MESSAGE, parse_error_body
from quarterdeck.protocol.retry_delays import delay_of_body, header_value
from quarterdeck.protocol.sse import EventTooLongError

MAX_PARAM = 200
ACCOUNT_REST_SECONDS = 60.0
"""How long an endpoint is left alone whose key is refused or whose account has no quota left. A minute: such things are
put right by people."""
QUOTA_CODES = frozenset(
    {
        *("insufficient_quota", "insufficient_user_quota", "insufficient_balance", "billing_hard_limit_reached"),
        *("billing_not_active", "quota_exceeded", "credits_exhausted", "payment_required"),
    }
)
"""The endpoint's account can't pay."""
FULL_CODES = frozenset(
    {
        *("rate_limit_exceeded", "rate_limit_error", "rate_limited", "rate_limit_reached", "requests", "tokens"),
        *("RESOURCE_EXHAUSTED", "too_many_requests"),
    }
)
OVERLOAD_CODES = frozenset(
    {
        *("overloaded", "overloaded_error", "server_is_overloaded", "model_overloaded", "service_unavailable_error"),
        *("service_unavailable", "UNAVAILABLE", "slow_down"),
    }
)
_OVERLOADED = (498, 529)
"""Groq's and Anthropic's status for "too much to do"."""
_PAGE = re.compile(r"\s*<(!doctype|html|head|body|\?xml)", re.IGNORECASE)
_NO_SUCH_API = re.compile(r"(?:The|This) model does not support (?:the )?[\w ()]+ API")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
"""Codes that are passed on: they become metric labels and are stored in the ledger."""
KEY_CODES = frozenset({"invalid_api_key", "api_key_invalid", "account_deactivated"})
ACCOUNT_CODES = frozenset({"Arrearage", "AllocationQuota.FreeTierOnly"})
"""DashScope's codes for an account that can't pay."""
THROTTLE_CODES = frozenset({"ThrottlingException", "Throttling", "Throttling.RateQuota", "Throttling.AllocationQuota"})
"""Codes of AWS and Alibaba for a rate limit, also with status 400."""
MODEL_CODES = frozenset({"model_not_found", "model_not_exist", "invalid_model", "model_decommissioned"})
"""The configured model is not there. A refusal of the whole request names it as if the caller had."""
_KEY_WORDS = (
    *("api key not valid", "incorrect api key", "invalid api key", "api key is invalid", "api key expired"),
    "user location is not supported",
)
_QUOTA_WORDS = (
    *("enable billing", "insufficient balance", "insufficient credit", "credit balance is too low", "in arrears"),
    *("account is in good standing", "exceeded your monthly"),
)
_MODEL_WORDS = re.compile(
    "model not exist|not a valid model|invalid model|model .{1,200} (?:does not exist|not found|not supported)"
    "|decommissioned"
)
_LENGTH_WORDS = (
    "maximum context length",
    "max_model_len",
    "maximum model length",
    "maximum prompt length",
    "exceeds the context length",
    "exceeds the available context size",
    "longer than the model's context length",
    "context length is only",
    "context the overflows",
    "exceeds the maximum number of tokens",
    "too large for model with",
    "reduce the length of the messages",
    "`inputs` must have less than",
    "`max_new_tokens` must be <=",
    "prompt is too long",
)
"""What vLLM, xAI, Ollama, llama.cpp, SGLang, LM Studio, Gemini, Mistral, Groq, TGI and others say of a long prompt."""


def error_of_response(
    status: int, body: bytes, delay: float | None = None, spec: EndpointSpec | None = None
) -> APIError:
    """The error for a response whose status is not 200. `delay`: the seconds that its headers ask for. `spec`: the
    endpoint's; None: of vLLM."""
    error = parse_error_body(body)
    message = (error.message or "")[:MAX_MESSAGE]
    if not message or _PAGE.match(message):  # a proxy's web page: its words don't concern the caller
        message = f"The engine answered with status {status}."
    is_word = isinstance(error.code, str) and not error.code.isdecimal() and _CODE.fullmatch(error.code)
    code = str(error.code) if is_word else None
    param = error.param[:MAX_PARAM] if isinstance(error.param, str) else None
    if delay is None:
        delay = delay_of_body(body, message)
    if spec is not None and spec.kind != "vllm":
        account = _of_account(status, message, code, body, delay)
        if account is not None:
            account.is_of_model = account.is_refusal and _names(message, spec.upstream_model or spec.model)
            return with_engine_status(account, status)
    translated = _by_status(status, message, code, param, header_value(delay))
    translated.rest_seconds = delay
    translated.is_refusal = (
        isinstance(translated, RateLimitError)
        or status in _OVERLOADED
        or (status == 503 and translated.rest_seconds is not None)
        or translated.code == "engine_insufficient_quota"
    )
    if status in (401, 402, 403) or translated.code == "engine_insufficient_quota":
        translated.is_refusal, translated.rest_seconds = True, ACCOUNT_REST_SECONDS
    return with_engine_status(translated, status)


def is_unsupported(status: int, body: bytes) -> bool:
    """Whether an engine says that it has no such route, or that its model has not. No model is missing."""
    if status not in (400, 404, 501):
        return False
    words = (parse_error_body(body).message or "").strip(" .")
    return words.lower() in ("not found", "404 page not found") or _NO_SUCH_API.fullmatch(words) is not None


def unsupported_model(endpoint: Endpoint, path: str, status: int) -> APIError:
    """A model that generates has no embeddings. vLLM has the routes of pooling only where it serves a pooling model."""
    message = f"The model '{endpoint.spec.model}' does not support {path}."
    return with_engine_status(BadRequestError(message, param="model", code="unsupported_model"), status)


def error_of_event(data: bytes, spec: EndpointSpec | None = None) -> APIError:
    """The error for an error object inside a 200. Its numeric code stands for the status, some words as well."""
    code = parse_error_body(data).code
    status = int(code) if isinstance(code, (int, str)) and str(code).isdecimal() else 500
    if code in FULL_CODES or code in QUOTA_CODES:
        status = 429
    elif code in OVERLOAD_CODES:
        status = 529
    return error_of_response(status if 400 <= status < 600 else 500, data, spec=spec)


def error_of_failure(error: UpstreamError | EventTooLongError) -> APIError:
    """The error for a connection that failed, timed out or carried no valid response."""
    if isinstance(error, EventTooLongError):
        return with_engine_status(EngineError(f"The engine's stream is broken: {error}."), 200)
    if error.is_local:
        return ServiceUnavailableError("The gateway has no free connection to the model's engine.", code="overloaded")
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


def _by_status(status: int, message: str, code: str | None, param: str | None, retry_after: int | None) -> APIError:
    if status == 402 or code in QUOTA_CODES:
        # The message speaks to the owner of the account ("check your plan and billing details").
        return EngineUnavailableError(
            "The engine's account has no quota left.", code="engine_insufficient_quota", retry_after=retry_after
        )
    if status == 429:
        return RateLimitError(message, code=code or "engine_overloaded", retry_after=retry_after)
    if status in _OVERLOADED:
        return EngineUnavailableError(message, code="engine_overloaded", retry_after=retry_after or 1)
    if status == 404:
        return NotFoundError(message, param=param, code=code or "model_not_found")
    if status in (400, 413, 422):
        refused = BadRequestError(message, param=param, code=_code_of(message, code))
        refused.status = status
        return refused
    if status in (408, 504, 522, 524):
        return EngineTimeoutError(message)
    if status == 503:
        return EngineUnavailableError(message, retry_after=retry_after)
    # 401 and 403 mean that the endpoint refuses the *gateway's* key: the caller can't fix that, and the message may
    # quote part of the key.
    return EngineError(f"The engine answered with status {status}." if status in (401, 403) else message)


def _of_account(status: int, message: str, code: str | None, body: bytes, delay: float | None) -> APIError | None:
    """The error where a hosted server blames the gateway's configuration, or refuses content, with an odd status."""
    words = message.lower()
    if status == 403 and (b'"flagged_input"' in body or code == "content_filter"):  # OpenRouter's moderation
        return BadRequestError(message, code="content_filter")
    error: APIError | None = None
    is_poor = any(each in words for each in _QUOTA_WORDS) or code in ACCOUNT_CODES
    is_full = status == 429 or (status == 400 and code in THROTTLE_CODES)
    if is_full and not is_poor and code not in QUOTA_CODES:  # the message may name our organization and its limits
        error = RateLimitError(
            "The model's endpoint is at its rate limit. Try again later.",
            code="engine_overloaded",
            retry_after=header_value(delay),
        )
        error.is_refusal, error.rest_seconds = True, delay
        return error
    if status == 400 and (code in KEY_CODES or any(each in words for each in _KEY_WORDS)):  # xAI, Gemini
        error = EngineError("The engine refused the gateway's credentials.")
    elif status in (400, 429) and is_poor:
        error = EngineUnavailableError("The engine's account has no quota left.", code="engine_insufficient_quota")
    if error is not None:
        error.is_refusal, error.rest_seconds = True, ACCOUNT_REST_SECONDS
        return error
    # The configuration names the address and the model.
    if status == 404 or (status in (400, 422) and (code in MODEL_CODES or _MODEL_WORDS.search(words))):
        return EngineError("The engine does not know the configured model or address.")
    return None


def _names(message: str, model: str) -> bool:
    """Whether a message names a model, as OpenAI's and Groq's of their rate limits do."""
    return re.search(rf"(?<![\w.-]){re.escape(model)}(?![\w-])", message) is not None


def _code_of(message: str, code: str | None) -> str | None:
    """OpenAI's code for an error that an engine describes in its message only."""
    words = message.lower()
    if code == "exceed_context_size_error" or (
        code in (None, "invalid_request_error") and any(each in words for each in _LENGTH_WORDS)
    ):
        return "context_length_exceeded"
    return code
