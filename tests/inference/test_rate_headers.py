"""The headers by which a client sees how much it has left."""

from quarterdeck.inference.admission import Admission
from quarterdeck.inference.rate_headers import rate_headers
from quarterdeck.settings.limits import Limits


def admitted(requests_left: int = -1, tokens_left: int = -1) -> Admission:
    return Admission(None, 0, requests_left, tokens_left, 0)


def test_each_limit_says_what_is_left_and_when_it_is_full_again() -> None:
    limits = Limits(requests_per_minute=60, tokens_per_minute=1000)
    assert dict(rate_headers(limits, admitted(45, 250))) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"45",
        b"x-ratelimit-reset-requests": b"15.000s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"250",
        b"x-ratelimit-reset-tokens": b"45.000s",
    }


def test_what_is_not_limited_has_no_header() -> None:
    assert rate_headers(Limits(concurrent_requests=5), admitted()) == ()
    assert len(rate_headers(Limits(tokens_per_minute=5), admitted(-1, 5))) == 3


def test_a_bucket_that_was_overdrawn_has_nothing_left() -> None:
    headers = dict(rate_headers(Limits(tokens_per_minute=1000), admitted(-1, -500)))
    assert headers[b"x-ratelimit-remaining-tokens"] == b"0"
    assert headers[b"x-ratelimit-reset-tokens"] == b"60.000s"
