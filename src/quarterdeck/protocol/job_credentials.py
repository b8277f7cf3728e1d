"""Credentials with which a worker calls the gateway for a job: what it may do, signed, for a few minutes. Pure.

The gateway acts as the key that pays for the job, if that is still valid. So no process stores a key's secret.
"""

import base64
import binascii
import hashlib
import hmac

import msgspec

PREFIX = b"qd-job."
SECONDS = 300.0
"""How long a credential may be used to begin a request."""
SKEW_SECONDS = 60.0
"""By which the clocks of gateway and worker may differ."""


class JobClaims(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a request of a job may do."""

    key: str
    """The id of the key that it acts as."""
    org: str
    job: str
    request: str
    """The request's id. A step that is repeated has the same id, so its cost is counted once."""
    until: float
    """Unix seconds."""
    response: str | None = None
    """The background response that the request executes."""
    attempt: int = 0
    """Of the job."""
    priority: int | None = None
    """In the queues for engines, instead of the key's; -1 is below all keys."""


class InvalidJobCredentialError(ValueError):
    """It is malformed or expired, or another secret has signed it."""


def sign(claims: JobClaims, secret: bytes) -> str:
    """The credential: a bearer token."""
    body = base64.urlsafe_b64encode(msgspec.json.encode(claims))
    return f"{PREFIX.decode()}{body.decode()}.{_signature(body, secret)}"


def verify(token: bytes, secret: bytes, now: float) -> JobClaims:
    """Raises InvalidJobCredentialError."""
    body, _, signature = token.removeprefix(PREFIX).partition(b".")
    if not token.startswith(PREFIX) or not hmac.compare_digest(signature, _signature(body, secret).encode()):
        raise InvalidJobCredentialError("bad signature")
    try:
        claims = msgspec.json.decode(base64.urlsafe_b64decode(body), type=JobClaims)
    except (binascii.Error, msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise InvalidJobCredentialError("malformed") from error
    if not now - SKEW_SECONDS <= claims.until <= now + SECONDS + SKEW_SECONDS:
        raise InvalidJobCredentialError("expired")
    return claims


def _signature(body: bytes, secret: bytes) -> str:
    return hmac.new(secret, PREFIX + body, hashlib.sha256).hexdigest()
