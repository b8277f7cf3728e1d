"""What a caller is told when admission refuses. Pure.

A rate is 429 `rate_limit_exceeded`, to be tried again when the bucket has filled; money is 429 `insufficient_quota`,
not to be tried again; a budget that can't be looked at is 503 `limits_unavailable`, a matter of a second.
"""

from quarterdeck.accounting.admission import Admission
from quarterdeck.accounting.rate_headers import rate_headers
from quarterdeck.errors import APIError, InsufficientQuotaError, RateLimitError, ServiceUnavailableError


def refusal_of(admitted: Admission) -> APIError:
    """The error of an admission that was refused."""
    whose = _whose(admitted.scope)
    if admitted.refused == "money":
        return InsufficientQuotaError(
            f"You exceeded your current quota: the budget of {whose} is exhausted. Ask your administrator."
        )
    if admitted.refused in ("cold", "full"):
        return limits_unavailable()
    milliseconds = max(1, admitted.retry_after_ms)
    seconds = -(-milliseconds // 1000)
    what = {
        "requests": f"{admitted.requests_limit} requests per minute",
        "tokens": f"{admitted.tokens_limit} tokens per minute",
        "concurrent": f"{admitted.places} requests at once",
    }[admitted.refused or ""]
    headers = {"retry-after-ms": str(milliseconds)}
    headers |= {name.decode(): value.decode() for name, value in rate_headers(admitted)}
    return RateLimitError(
        f"Rate limit reached: {whose} may send {what}. Try again in {seconds} s.", headers=headers, retry_after=seconds
    )


def limits_unavailable() -> ServiceUnavailableError:
    """The counters can't be looked at: Redis is away, or has lost what was spent."""
    return ServiceUnavailableError("Limits can't be checked at the moment.", code="limits_unavailable")


def _whose(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return {"key": "this key", "team": f"the team '{name}'"}.get(kind, "this organisation")
