"""`x-ratelimit-*` as OpenAI sends them, and word of a budget that only warns. Pure."""

from quarterdeck.inference.admission import Admission

REQUESTS = (b"x-ratelimit-limit-requests", b"x-ratelimit-remaining-requests", b"x-ratelimit-reset-requests")
TOKENS = (b"x-ratelimit-limit-tokens", b"x-ratelimit-remaining-tokens", b"x-ratelimit-reset-tokens")
WARNED = ((b"x-quarterdeck-budget", b"warned"),)


def rate_headers(admitted: Admission) -> tuple[tuple[bytes, bytes], ...]:
    """Limit, what is left and when the bucket is full again, for requests and for tokens; nothing where unlimited.

    Of several scopes with a limit, that of the one with the least left.
    """
    headers: tuple[tuple[bytes, bytes], ...] = WARNED if admitted.warned else ()
    if admitted.requests_limit:
        headers += _limit(REQUESTS, admitted.requests_limit, admitted.requests_left)
    if admitted.tokens_limit:
        headers += _limit(TOKENS, admitted.tokens_limit, admitted.tokens_left)
    return headers


def _limit(names: tuple[bytes, bytes, bytes], limit: int, left: int) -> tuple[tuple[bytes, bytes], ...]:
    left = max(left, 0)
    return (
        (names[0], b"%d" % limit),
        (names[1], b"%d" % left),
        (names[2], b"%.3fs" % ((limit - left) * 60 / limit)),
    )
