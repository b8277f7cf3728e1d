"""A request's API key, in whichever header clients send it. Pure.

OpenAI's clients send `Authorization: Bearer KEY`, Azure's `api-key: KEY`, Anthropic's `x-api-key: KEY`. A request has
one key: with two different ones a proxy in front may have read the other one, so neither counts.
"""

KEY_HEADERS = (b"api-key", b"x-api-key")
AMBIGUOUS = b"\0"
"""In place of two different keys. No header can have this value."""


def credential(headers: list[tuple[bytes, bytes]]) -> bytes | None:
    """The value of an Authorization header with the request's key, AMBIGUOUS, or None. Names are in lower case."""
    found: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            found = value if found is None else one_of(found, value)
        elif name in KEY_HEADERS:
            found = one_of(found, b"Bearer " + value)
    return found


def one_of(found: bytes | None, value: bytes) -> bytes:
    """Of two credentials the one that has a key, or AMBIGUOUS if both have one and they differ."""
    if found is None:
        return value
    key, other = _key(found), _key(value)
    if key == other or not other:
        return found
    return AMBIGUOUS if key else value


def _key(authorization: bytes) -> bytes:
    """Without the scheme Bearer. Another scheme is a part of what is compared."""
    scheme, _, key = authorization.strip().partition(b" ")
    return key.strip() if scheme.lower() == b"bearer" else authorization.strip()
