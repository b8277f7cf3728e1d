"""Names for things that are made here: requests, traces, keys.

Random, not counted: nobody learns from an id how many there are, and no two gateways need to agree.
"""

import hashlib
import secrets
from itertools import chain
from os import urandom


class RequestIds:
    """`req_` and 128 random bits in hex; the hex part is the request's trace id as well.

    For one who needs thousands a second: they are made 256 at a time, and `next` only hands one out.
    """

    def __init__(self) -> None:
        self.next = chain.from_iterable(iter(_request_ids, [])).__next__


def _request_ids() -> list[str]:
    digits = urandom(16 * 256).hex()
    return ["req_" + digits[at : at + 32] for at in range(0, len(digits), 32)]


def object_id(prefix: str) -> str:
    """`<prefix>_` and 96 random bits in hex: key_…, team_…."""
    return f"{prefix}_{urandom(12).hex()}"


def api_key() -> str:
    """A new secret: 256 random bits, recognisable by its prefix to secret scanners."""
    return "sk-qd-" + secrets.token_urlsafe(32)


def digest(secret: str | bytes) -> str:
    """SHA-256 in hex. A key has 256 bits of entropy, so a slow or salted hash would add nothing."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()
