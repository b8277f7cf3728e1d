"""Ids and secrets: of requests, traces, API keys and other objects.

Random, not sequential: an id does not reveal how many there are, and gateways need not coordinate.
"""

import hashlib
import secrets
from itertools import chain
from os import urandom


class RequestIds:
    """Request ids: `req_` and 128 random bits in hex, which are also the request's trace id.

    They are made 256 at a time and handed out by `next`, because thousands are needed per second.
    """

    def __init__(self) -> None:
        self.next = chain.from_iterable(iter(_request_ids, [])).__next__


def _request_ids() -> list[str]:
    digits = urandom(16 * 256).hex()
    return ["req_" + digits[at : at + 32] for at in range(0, len(digits), 32)]


def object_id(prefix: str) -> str:
    """An object's id: `<prefix>_` (key, team, …) and 96 random bits in hex."""
    return f"{prefix}_{urandom(12).hex()}"


def step_request_id(subject: str, step: str | int) -> str:
    """The request id of a step of a job: the same each time that the step is repeated."""
    return "req_" + hashlib.sha256(f"{subject}:{step}".encode()).hexdigest()[:32]


def derived_id(prefix: str, subject: str, number: int) -> str:
    """The id of the nth object of its kind that belongs to another: the same each time that it is made."""
    return f"{prefix}_{hashlib.sha256(f'{subject}/{prefix}/{number}'.encode()).hexdigest()[:24]}"


def new_file_id() -> str:
    """A file's id, with OpenAI's hyphen: clients tell files from other objects by `file-`."""
    return f"file-{urandom(12).hex()}"


def api_key() -> str:
    """A new API key: 256 random bits, with a prefix that secret scanners recognise."""
    return "sk-qd-" + secrets.token_urlsafe(32)


def digest(secret: str | bytes) -> str:
    """SHA-256 of a secret in hex. A key has 256 bits of entropy, so a slow or salted hash would add nothing."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()
