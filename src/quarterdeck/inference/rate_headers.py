"""`x-ratelimit-*` as OpenAI sends them. Pure."""

from quarterdeck.inference.admission import Admission
from quarterdeck.settings.limits import Limits


def rate_headers(limits: Limits, admitted: Admission) -> tuple[tuple[bytes, bytes], ...]:
    """Limit, what is left and when the bucket is full again, for requests and for tokens; nothing where unlimited."""
    headers: list[tuple[bytes, bytes]] = []
    for name, limit, left in (
        (b"requests", limits.requests_per_minute, admitted.requests_left),
        (b"tokens", limits.tokens_per_minute, admitted.tokens_left),
    ):
        if limit is None:
            continue
        left = max(0, left)
        headers += (
            (b"x-ratelimit-limit-" + name, b"%d" % limit),
            (b"x-ratelimit-remaining-" + name, b"%d" % left),
            (b"x-ratelimit-reset-" + name, b"%.3fs" % ((limit - left) * 60 / limit)),
        )
    return tuple(headers)
