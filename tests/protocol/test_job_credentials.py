"""A job credential is valid for a few minutes, with its own secret, as it was signed."""

import base64

import pytest

from quarterdeck.protocol.job_credentials import (
    PREFIX,
    SECONDS,
    SKEW_SECONDS,
    InvalidJobCredentialError,
    JobClaims,
    sign,
    verify,
)

NOW = 1_790_000_000.0
SECRET = b"s" * 32
CLAIMS = JobClaims("key_1", "default", "job_1", "req_1", NOW + SECONDS, "resp_1", 2, -1)


def test_a_credential_is_read_as_it_was_signed() -> None:
    token = sign(CLAIMS, SECRET).encode()
    assert verify(token, SECRET, NOW) == CLAIMS
    assert len(token) < 900  # it fits into the bound of an Authorization header


@pytest.mark.parametrize("now", [NOW + SECONDS + SKEW_SECONDS + 1, NOW - SKEW_SECONDS - 1])
def test_a_credential_is_refused_after_its_time_and_long_before_it(now: float) -> None:
    with pytest.raises(InvalidJobCredentialError, match="expired"):
        verify(sign(CLAIMS, SECRET).encode(), SECRET, now)


def test_a_credential_that_was_changed_or_signed_with_another_secret_is_refused() -> None:
    token = sign(CLAIMS, SECRET).encode()
    body, _, signature = token.removeprefix(PREFIX).partition(b".")
    other = base64.urlsafe_b64encode(base64.urlsafe_b64decode(body).replace(b"key_1", b"key_2"))
    for bad in (PREFIX + other + b"." + signature, PREFIX + body, PREFIX + body + b".", token[:-1], b"", PREFIX):
        with pytest.raises(InvalidJobCredentialError):
            verify(bad, SECRET, NOW)
    with pytest.raises(InvalidJobCredentialError):
        verify(token, b"t" * 32, NOW)


def test_a_signed_credential_without_claims_is_refused() -> None:
    from quarterdeck.protocol import job_credentials

    body = base64.urlsafe_b64encode(b"{}")
    token = PREFIX + body + b"." + job_credentials._signature(body, SECRET).encode()
    with pytest.raises(InvalidJobCredentialError, match="malformed"):
        verify(token, SECRET, NOW)
