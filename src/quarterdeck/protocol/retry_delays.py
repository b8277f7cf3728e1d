"""How long a server says that it should be left alone. Pure.

* `Retry-After`: seconds, a date, or a duration (`30s`, `1m30s`); OpenAI and Azure also in milliseconds
* in the body: Gemini's `retryDelay`, or the message ("Please try again in 7.66s", "retry after 26 seconds")
* `x-ratelimit-reset-…` beside a 429: seconds, a duration or Unix time, of what has nothing left
"""

import math
import re
from collections.abc import Callable
from email.utils import parsedate_to_datetime

MAX_SECONDS = 300
"""The longest time that a caller is told: as long as an endpoint is left alone at most. Some clients sleep for as long
as they are told."""
Header = Callable[[bytes], bytes | None]
"""The value of a header by its name in lower case."""

_MILLISECONDS = (b"retry-after-ms", b"x-ms-retry-after-ms")
_LIMITS = ("x-ratelimit-%s-requests", "x-ratelimit-%s-tokens", "x-rate-limit-%s-tokens", "x-ratelimit-%s")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?(?:ms|[smhd]))+")
_PART = re.compile(r"(\d{1,9}(?:\.\d{1,9})?)(ms|[smhd])")
_DELAY = re.compile(rb'"retryDelay"\s*:\s*"(\d{1,6}(?:\.\d{1,9})?)s"')
_WORDS = re.compile(
    r"(?:try again|retry|wait)(?: again)? (?:in|after|for) "
    r"((?:\d{1,9}(?:\.\d{1,9})?(?:ms|[smhd]))+|\d{1,6}(?:\.\d{1,9})?(?= ?(?:seconds?|secs?|s)\b))",
    re.IGNORECASE,
)


def delay_of_headers(header: Header, now: float, *, is_limit: bool = False) -> float | None:
    """Seconds from `now`, Unix time. `is_limit`: the response is a 429. None: no header says it."""
    for name in _MILLISECONDS:
        if (value := header(name)) and value.isdigit():
            return int(value[:12]) / 1000
    if (stated := header(b"retry-after")) and (seconds := seconds_of(stated.decode("latin-1"), now)) is not None:
        return seconds
    if not is_limit:
        return None
    limits = [(header((name % "remaining").encode()), header((name % "reset").encode())) for name in _LIMITS]
    exhausted = [reset for remaining, reset in limits if reset and remaining == b"0"]
    found = [_until(reset.decode("latin-1"), now) for reset in exhausted or [reset for _, reset in limits if reset]]
    return min((seconds for seconds in found if seconds is not None), default=None)


def delay_of_body(body: bytes, message: str) -> float | None:
    """Seconds. None: neither the body's members nor the message say it."""
    if (found := _DELAY.search(body)) is not None:
        return float(found[1])
    if (words := _WORDS.search(message)) is not None:
        return _duration(words[1]) if words[1][-1].isalpha() else float(words[1])
    return None


def seconds_of(retry_after: str | None, now: float) -> float | None:
    """The value of a Retry-After header. None: it says nothing that can be used."""
    if not retry_after:
        return None
    try:
        seconds: float | None = float(retry_after)
    except ValueError:
        seconds = _duration(retry_after.strip().lower())
        if seconds is None:
            try:
                seconds = parsedate_to_datetime(retry_after).timestamp() - now
            except (ValueError, OverflowError):
                return None
    return seconds if seconds is not None and 0 <= seconds < math.inf else None  # not a number is neither


def header_value(seconds: float | None) -> int | None:
    """Whole seconds for our own Retry-After header, within bounds."""
    return None if seconds is None else max(1, min(math.ceil(seconds), MAX_SECONDS))


def _duration(text: str) -> float | None:
    if not _DURATION.fullmatch(text):
        return None
    return sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))


def _until(reset: str, now: float) -> float | None:
    """Seconds until a limit is reset: a duration, seconds, or Unix time in seconds or milliseconds."""
    seconds = seconds_of(reset, now)
    if seconds is not None and seconds > 1e9:
        seconds = (seconds / 1000 if seconds > 1e11 else seconds) - now
    return seconds if seconds is not None and seconds >= 0 else None
