"""The errors of refused admissions. Pure.

A rate limit is 429 `rate_limit_exceeded`, to be retried when the bucket has refilled; a budget without room is 429
`insufficient_quota`, to be retried only if requests in flight hold what is missing; a budget that is not known at the
moment is 503 `limits_unavailable`.
"""

from quarterdeck.accounting.admission import Admission
from quarterdeck.accounting.rate_headers import rate_headers
from quarterdeck.accounting.scopes import split_scope
from quarterdeck.errors import APIError, InsufficientQuotaError, RateLimitError, ServiceUnavailableError

MAX_RETRY_MS = 60_000
"""The window of limits. A bucket that requests have overdrawn takes longer, but SDKs ignore a longer Retry-After."""


def refusal_of(admitted: Admission, *, asked: int = 0) -> APIError:
    """The error of an admission that was refused. `asked`: the money it asked for, in 10⁻⁶ $."""
    subject = _subject(admitted.scope)
    if admitted.refused == "money":
        error = InsufficientQuotaError(f"You exceeded your current quota: {_money_reason(admitted, subject, asked)}")
        if _has_room_later(admitted, asked):
            error.headers["x-should-retry"], error.retry_after = "true", 1
        return error
    if admitted.refused in ("cold", "full"):
        return limits_unavailable()
    milliseconds = min(max(1, admitted.retry_after_ms), MAX_RETRY_MS)
    seconds = -(-milliseconds // 1000)
    most, unit = {
        "requests": (admitted.requests_limit, "requests per minute"),
        "tokens": (admitted.tokens_limit, "tokens per minute"),
        "concurrent": (admitted.places, "concurrent requests"),
    }[admitted.refused or ""]
    limit = f"{most} {unit}"
    if 0 < admitted.granted < most:
        limit += f", of which {admitted.granted} are granted while the limiter is unavailable"
    headers = {"retry-after-ms": str(milliseconds)}
    headers |= {name.decode(): value.decode() for name, value in rate_headers(admitted)}
    return RateLimitError(
        f"Rate limit reached for {subject}: {limit}. Please try again in {seconds} s.",
        headers=headers,
        retry_after=seconds,
    )


def limits_unavailable() -> ServiceUnavailableError:
    """Limits and budgets are not known: Redis is away, or has lost what was spent."""
    return ServiceUnavailableError("Limits cannot be checked at the moment. Please retry.", code="limits_unavailable")


def _has_room_later(admitted: Admission, asked: int) -> bool:
    """Whether the budget may have room when the requests in flight have ended, which cost less than is held."""
    return admitted.money_held > 0 and asked <= admitted.money_left + admitted.money_held


def _money_reason(admitted: Admission, subject: str, asked: int) -> str:
    if not admitted.money_left and not admitted.money_held:
        return f"the budget of {subject} is exhausted. Please contact your administrator."
    reason = f"this request may cost up to {_dollars(asked)}, and the budget of {subject} has "
    reason += f"{_dollars(admitted.money_left)} left"
    if admitted.money_held:
        reason += f" while {_dollars(admitted.money_held)} is held for requests in flight"
    if _has_room_later(admitted, asked):
        return f"{reason}. Please retry when they have ended, or ask for fewer output tokens."
    return f"{reason}. Please ask for fewer output tokens, or contact your administrator."


def _dollars(money: int) -> str:
    """At least two decimals: $0.05, $1.50, $0.000001."""
    text = f"{money / 1_000_000:.6f}"
    whole, _, part = text.partition(".")
    return f"${whole}.{part.rstrip('0').ljust(2, '0')}"


def records_unavailable() -> ServiceUnavailableError:
    """Neither Redis nor the spool's disk takes records: a request could be served, but not accounted for."""
    return ServiceUnavailableError(
        "Requests cannot be recorded at the moment. Please retry.", code="records_unavailable"
    )


def _subject(scope: str) -> str:
    kind, name, _ = split_scope(scope)
    return {"key": "this API key", "team": f"the team '{name}'"}.get(kind, "this organisation")
