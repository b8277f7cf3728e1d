"""The headers by which a client sees how much it has left."""

from quarterdeck.accounting.admission import Admission
from quarterdeck.accounting.rate_headers import rate_headers


def test_each_limit_says_what_is_left_and_when_it_is_full_again() -> None:
    admitted = Admission(None, 0, requests_left=45, requests_limit=60, tokens_left=250, tokens_limit=1000)
    assert dict(rate_headers(admitted)) == {
        b"x-ratelimit-limit-requests": b"60",
        b"x-ratelimit-remaining-requests": b"45",
        b"x-ratelimit-reset-requests": b"15.000s",
        b"x-ratelimit-limit-tokens": b"1000",
        b"x-ratelimit-remaining-tokens": b"250",
        b"x-ratelimit-reset-tokens": b"45.000s",
    }


def test_what_is_not_limited_has_no_header() -> None:
    assert rate_headers(Admission(None, 0)) == ()
    assert len(rate_headers(Admission(None, 0, tokens_left=5, tokens_limit=5))) == 3


def test_a_bucket_that_was_overdrawn_has_nothing_left() -> None:
    headers = dict(rate_headers(Admission(None, 0, tokens_left=-500, tokens_limit=1000)))
    assert headers[b"x-ratelimit-remaining-tokens"] == b"0"
    assert headers[b"x-ratelimit-reset-tokens"] == b"60.000s"


def test_an_exhausted_budget_that_only_warns_is_told() -> None:
    assert dict(rate_headers(Admission(None, 0, warned="org"))) == {b"x-quarterdeck-budget": b"warned"}
