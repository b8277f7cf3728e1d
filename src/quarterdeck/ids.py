"""Names for things that are made here: requests, traces, keys.

Random, not counted: nobody learns from an id how many there are, and no two gateways need to agree.
"""

import hashlib
import secrets
from os import urandom


def request_id() -> str:
    """`req_` and 128 random bits in hex; the hex part is the request's trace id as well."""
    return "req_" + urandom(16).hex()


def object_id(prefix: str) -> str:
    """`<prefix>_` and 96 random bits in hex: key_…, team_…."""
    return f"{prefix}_{urandom(12).hex()}"


def api_key() -> str:
    """A new secret: 256 random bits, recognisable by its prefix to secret scanners."""
    return "sk-qd-" + secrets.token_urlsafe(32)


def digest(secret: str | bytes) -> str:
    """SHA-256 in hex. A key has 256 bits of entropy, so a slow or salted hash would add nothing."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()
