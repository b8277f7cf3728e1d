"""The errors of refused admissions. Pure.

A rate limit is 429 `rate_limit_exceeded`, to be retried when the bucket has refilled; an exhausted budget is 429
`insufficient_quota`, not to be retried; a budget that is not known at the moment is 503 `limits_unavailable`.
"""

from quarterdeck.accounting.admission import Admission
from quarterdeck.accounting.rate_headers import rate_headers
from quarterdeck.errors import APIError, InsufficientQuotaError, RateLimitError, ServiceUnavailableError

MAX_RETRY_MS = 60_000
"""The window of limits. A bucket that requests have overdrawn takes longer, but SDKs ignore a longer Retry-After."""


def refusal_of(admitted: Admission) -> APIError:
    """The error of an admission that was refused."""
    subject = _subject(admitted.scope)
    if admitted.refused == "money":
        return InsufficientQuotaError(
            f"You exceeded your current quota: the budget of {subject} is exhausted. Please contact your administrator."
        )
    if admitted.refused in ("cold", "full"):
        return limits_unavailable()
    milliseconds = min(max(1, admitted.retry_after_ms), MAX_RETRY_MS)
    seconds = -(-milliseconds // 1000)
    limit = {
        "requests": f"{admitted.requests_limit} requests per minute",
        "tokens": f"{admitted.tokens_limit} tokens per minute",
        "concurrent": f"{admitted.places} concurrent requests",
    }[admitted.refused or ""]
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


def _subject(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return {"key": "this API key", "team": f"the team '{name}'"}.get(kind, "this organisation")
