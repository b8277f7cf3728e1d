"""`x-ratelimit-*` headers as OpenAI sends them, and `x-quarterdeck-budget` for a budget that only warns. Pure."""

from functools import lru_cache

from quarterdeck.accounting.admission import Admission

WARNED: tuple[tuple[bytes, bytes], ...] = ((b"x-quarterdeck-budget", b"warned"),)


def rate_headers(admitted: Admission) -> tuple[tuple[bytes, bytes], ...]:
    """Limit, remainder and the seconds until the bucket is full again, for requests and tokens; none where unlimited.

    Where several scopes have a limit, the one with the least left is reported.
    """
    headers = WARNED if admitted.warned else ()
    if limit := admitted.requests_limit:
        left = admitted.requests_left
        headers += (
            _limit(b"x-ratelimit-limit-requests", limit),
            (b"x-ratelimit-remaining-requests", b"%d" % left if left > 0 else b"0"),
            (b"x-ratelimit-reset-requests", _reset(limit, left)),
        )
    if limit := admitted.tokens_limit:
        left = admitted.tokens_left
        headers += (
            _limit(b"x-ratelimit-limit-tokens", limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % left if left > 0 else b"0"),
            (b"x-ratelimit-reset-tokens", _reset(limit, left)),
        )
    return headers


@lru_cache(maxsize=1024)
def _limit(name: bytes, limit: int) -> tuple[bytes, bytes]:
    return name, b"%d" % limit


def _reset(limit: int, left: int) -> bytes:
    """Seconds until the bucket is full again. In whole milliseconds: a float takes three times as long to write."""
    milliseconds = round((limit - left) * 60_000 / limit) if left > 0 else 60_000
    return b"0.%03ds" % milliseconds if milliseconds < 1000 else b"%d.%03ds" % divmod(milliseconds, 1000)
