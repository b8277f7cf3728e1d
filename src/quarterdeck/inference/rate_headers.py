"""`x-ratelimit-*` as OpenAI sends them, and word of a budget that only warns. Pure."""

from quarterdeck.inference.admission import Admission

WARNED = ((b"x-quarterdeck-budget", b"warned"),)


def rate_headers(admitted: Admission) -> tuple[tuple[bytes, bytes], ...]:
    """Limit, what is left and when the bucket is full again, for requests and for tokens; nothing where unlimited.

    Of several scopes with a limit, that of the one with the least left.
    """
    headers: tuple[tuple[bytes, bytes], ...] = WARNED if admitted.warned else ()
    if admitted.requests_limit:
        headers += _limit(b"requests", admitted.requests_limit, admitted.requests_left)
    if admitted.tokens_limit:
        headers += _limit(b"tokens", admitted.tokens_limit, admitted.tokens_left)
    return headers


def _limit(name: bytes, limit: int, left: int) -> tuple[tuple[bytes, bytes], ...]:
    left = max(0, left)
    return (
        (b"x-ratelimit-limit-" + name, b"%d" % limit),
        (b"x-ratelimit-remaining-" + name, b"%d" % left),
        (b"x-ratelimit-reset-" + name, b"%.3fs" % ((limit - left) * 60 / limit)),
    )
