"""One key, in any of the headers that clients use."""

import pytest

from quarterdeck.errors import AuthenticationError
from quarterdeck.gateway.auth.decision import secret_of
from quarterdeck.gateway.http.credentials import AMBIGUOUS, credential

A, B = b"Bearer a", b"Bearer b"


@pytest.mark.parametrize(
    ("headers", "found"),
    [
        ([], None),
        ([(b"authorization", A)], A),
        ([(b"authorization", A), (b"authorization", b"bearer  a ")], A),
        ([(b"authorization", A), (b"authorization", B)], AMBIGUOUS),
        ([(b"api-key", b"a")], A),
        ([(b"x-api-key", b"a")], A),
        ([(b"x-api-key", b"a"), (b"api-key", b"a"), (b"authorization", A)], A),
        ([(b"x-api-key", b"a"), (b"api-key", b"b")], AMBIGUOUS),
        ([(b"authorization", A), (b"api-key", b"b"), (b"x-api-key", b"a")], AMBIGUOUS),
        ([(b"authorization", A), (b"api-key", b"")], A),
        ([(b"authorization", b"Bearer"), (b"api-key", b"a")], A),
        ([(b"authorization", b""), (b"api-key", b"a")], A),
        ([(b"authorization", b"Basic abc"), (b"api-key", b"a")], AMBIGUOUS),
        ([(b"authorization", b"a"), (b"api-key", b"a")], b"a"),
        ([(b"x-other", b"a")], None),
    ],
)
def test_the_credential_of_a_request(headers: list[tuple[bytes, bytes]], found: bytes | None) -> None:
    assert credential(headers) == found


def test_two_different_keys_are_refused_and_not_repeated() -> None:
    with pytest.raises(AuthenticationError) as caught:
        secret_of(credential([(b"authorization", b"Bearer sk-canary-1"), (b"api-key", b"sk-canary-2")]))
    assert caught.value.code == "ambiguous_api_key"
    assert "canary" not in caught.value.message
