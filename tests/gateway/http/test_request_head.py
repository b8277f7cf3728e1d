"""What is read of a request's headers."""

from quarterdeck.gateway.http.credentials import AMBIGUOUS
from quarterdeck.gateway.http.request_head import RequestHead


def head(*headers: tuple[bytes, bytes], forward: frozenset[bytes] = frozenset()) -> RequestHead:
    return RequestHead("/v1/x", list(headers), forward)


def test_each_header_that_counts_is_found() -> None:
    made = head(
        (b"authorization", b"Bearer a"),
        (b"content-length", b"12"),
        (b"x-client-request-id", b"mine"),
        (b"content-encoding", b"gzip"),
        (b"content-type", b"text/csv"),
    )
    assert (made.authorization, made.content_length, made.client_id) == (b"Bearer a", 12, b"mine")
    assert (made.content_encoding, made.header(b"content-type"), made.header(b"accept")) == (b"gzip", b"text/csv", None)


def test_two_different_keys_are_ambiguous() -> None:
    assert head((b"authorization", b"Bearer a"), (b"authorization", b"Bearer b")).authorization == AMBIGUOUS


def test_a_length_that_is_no_number_is_unknown() -> None:
    assert head((b"content-length", b"-1")).content_length is None


def test_only_listed_headers_are_forwarded_and_cache_control_is_joined() -> None:
    made = head(
        (b"cache-control", b"no-cache"),
        (b"x-fault", b"429"),
        (b"cookie", b"c"),
        (b"cache-control", b"max-age=5"),
        forward=frozenset({b"x-fault"}),
    )
    assert made.forwarded == ((b"x-fault", b"429"),)
    assert made.cache_control == b"no-cache,max-age=5"


def test_a_key_may_come_in_azures_and_in_anthropics_header() -> None:
    for name in (b"api-key", b"x-api-key"):
        assert head((name, b"a")).authorization == b"Bearer a"
        assert head((b"authorization", b"Bearer a"), (name, b"a")).authorization == b"Bearer a"
        assert head((b"authorization", b"Bearer b"), (name, b"a")).authorization == AMBIGUOUS
        assert head((name, b"a"), forward=frozenset({b"x-other"})).forwarded == ()
