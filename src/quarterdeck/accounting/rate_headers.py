"""`x-ratelimit-*` headers as OpenAI sends them, and `x-quarterdeck-budget` for a budget that only warns. Pure."""

from quarterdeck.accounting.admission import Admission

WARNED: tuple[tuple[bytes, bytes], ...] = ((b"x-quarterdeck-budget", b"warned"),)


def rate_headers(admitted: Admission) -> tuple[tuple[bytes, bytes], ...]:
    """Limit, remainder and the seconds until the bucket is full again, for requests and tokens; none where unlimited.

    Where several scopes have a limit, the one with the least left is reported.
    """
    headers = WARNED if admitted.warned else ()
    if limit := admitted.requests_limit:
        left = max(admitted.requests_left, 0)
        headers += (
            (b"x-ratelimit-limit-requests", b"%d" % limit),
            (b"x-ratelimit-remaining-requests", b"%d" % left),
            (b"x-ratelimit-reset-requests", b"%.3fs" % ((limit - left) * 60 / limit)),
        )
    if limit := admitted.tokens_limit:
        left = max(admitted.tokens_left, 0)
        headers += (
            (b"x-ratelimit-limit-tokens", b"%d" % limit),
            (b"x-ratelimit-remaining-tokens", b"%d" % left),
            (b"x-ratelimit-reset-tokens", b"%.3fs" % ((limit - left) * 60 / limit)),
        )
    return headers
