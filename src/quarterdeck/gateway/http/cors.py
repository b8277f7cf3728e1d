"""Headers for browsers whose page is of another origin (CORS). Pure.

A browser asks first, without a key, whether the page may send the request (preflight). Then it shows the page an answer
only if the answer names the page's origin, errors and streams included.
"""

import re
from collections.abc import Sequence

from quarterdeck.settings.cors import ANY, CorsConfig

Header = tuple[bytes, bytes]

METHODS = b"DELETE, GET, HEAD, PATCH, POST, PUT"
MAX_REQUESTED = 4096
"""Bytes of the list of headers that a preflight may ask for."""
_REQUESTED = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, \t-]+")
_VARY = (b"vary", b"origin")


class Cors:
    """The headers by origin, where any origin is configured."""

    def __init__(self, config: CorsConfig) -> None:
        exposed = (b"access-control-expose-headers", ", ".join(config.expose_headers).encode("ascii"))
        self._exposed = (exposed,) if config.expose_headers else ()
        self._max_age = (b"access-control-max-age", b"%d" % config.max_age_seconds)
        self._is_open = ANY in config.origins
        self._origins = frozenset(origin.encode("ascii") for origin in config.origins)

    def headers(self, headers: Sequence[Header]) -> tuple[Header, ...]:
        """Of the answer to a request that has these headers, with names in lower case."""
        origin = _one(headers, b"origin")
        if origin is None or not self._is_allowed(origin):
            return (_VARY,)
        return (_VARY, self._allowed(origin), *self._exposed)

    def preflight(self, headers: Sequence[Header]) -> tuple[Header, ...] | None:
        """Headers of the answer to an OPTIONS request. None: it is no preflight of an origin that is allowed."""
        origin, method = _one(headers, b"origin"), _one(headers, b"access-control-request-method")
        if origin is None or method is None or not self._is_allowed(origin):
            return None
        answer = [
            (b"vary", b"origin, access-control-request-headers"),
            self._allowed(origin),
            (b"access-control-allow-methods", METHODS),
            self._max_age,
        ]
        # Every header may be sent: the key's own, and those that SDKs describe themselves with.
        requested = _one(headers, b"access-control-request-headers")
        if requested and len(requested) <= MAX_REQUESTED and _REQUESTED.fullmatch(requested):
            answer.append((b"access-control-allow-headers", requested))
        return tuple(answer)

    def _is_allowed(self, origin: bytes) -> bool:
        return self._is_open or origin.lower() in self._origins

    def _allowed(self, origin: bytes) -> Header:
        return b"access-control-allow-origin", b"*" if self._is_open else origin


def cors_of(config: CorsConfig) -> Cors | None:
    """None: no origin is allowed."""
    return Cors(config) if config.origins else None


def _one(headers: Sequence[Header], name: bytes) -> bytes | None:
    return next((value for key, value in headers if key == name), None)
