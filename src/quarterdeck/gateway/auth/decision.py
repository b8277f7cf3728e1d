"""Whether a key may be used: pure decisions on a header, and on a key's row at a point in time."""

from typing import NamedTuple

from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import AuthenticationError
from quarterdeck.gateway.http.credentials import AMBIGUOUS
from quarterdeck.resources.tenancy.principals import principal_of
from quarterdeck.settings.config import Config
from quarterdeck.store.keys import KeyRow

MAX_HEADER = 1024
"""Bytes of an Authorization header that may hold a key of ours; a longer one is not looked up."""


class Fault(NamedTuple):
    """Why a key that exists is refused."""

    outcome: str
    """For the metric of authentications."""
    message: str


REPLACED = Fault("revoked", "This API key has been replaced by another.")
REVOKED = Fault("revoked", "This API key has been revoked.")
EXPIRED = Fault("expired", "This API key has expired.")


def fault_of(row: KeyRow, now: float, *, digest: str | None = None) -> Fault | None:
    """None: the key is valid. `digest` is of the secret that was presented; it differs from the row's after a
    rotation. `now` in Unix seconds."""
    if digest is not None and row.digest != digest:
        return REPLACED
    if row.revoked is not None:
        return REVOKED
    if row.expires is not None and row.expires <= now:
        return EXPIRED
    return None


def decide(row: KeyRow, config: Config, now: float, *, revision: int, digest: str | None = None) -> Principal | Fault:
    """The principal of a key, or why it is refused."""
    return fault_of(row, now, digest=digest) or principal_of(row, config, revision)


def secret_of(authorization: bytes | None) -> bytes:
    """The key of an Authorization header. Raises AuthenticationError, whose message repeats nothing of the header."""
    if not authorization:
        raise AuthenticationError(
            "You didn't provide an API key. Provide it in an Authorization header: 'Authorization: Bearer YOUR_KEY'.",
            code="missing_api_key",
        )
    if authorization == AMBIGUOUS:
        raise AuthenticationError(
            "The request has two different API keys. Send one of the headers Authorization, api-key and x-api-key.",
            code="ambiguous_api_key",
        )
    scheme, _, secret = authorization.partition(b" ")
    secret = secret.strip()
    if scheme.lower() != b"bearer" or not secret:
        raise AuthenticationError(
            "The Authorization header must read 'Bearer YOUR_KEY'.", code="invalid_authorization_header"
        )
    if len(authorization) > MAX_HEADER:
        raise incorrect_key()
    return secret


def incorrect_key() -> AuthenticationError:
    """For a key that does not exist."""
    return refusal("Incorrect API key provided.")


def refusal(message: str) -> AuthenticationError:
    return AuthenticationError(message, code="invalid_api_key")
