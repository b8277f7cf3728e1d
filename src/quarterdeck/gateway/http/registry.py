"""Routes that the request lifecycle serves: whatever may run long, stream, or take a large body.

A route is a method, a path and a handler: `handler(head, body) → Reply`, whole or streamed. Drain, cancellation on
disconnect, timeouts, back-pressure, request ids, counts and errors are the lifecycle's, so a handler only raises
APIError or returns. A new one is added in `app.create_app`. Routes of plain objects (CRUD) stay with FastAPI.
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import msgspec

from quarterdeck.errors import APIError, envelope
from quarterdeck.gateway.http.body_stream import BodyStream
from quarterdeck.gateway.http.request_head import RequestHead
from quarterdeck.inference.call import Reply
from quarterdeck.protocol import sse
from quarterdeck.settings.config import GatewayConfig

MIB = 1024 * 1024

_PARAMETER = re.compile(r"\{(\w+)(:path)?\}")


class BodyPolicy(msgspec.Struct, frozen=True):
    """How a request's body is read."""

    max_bytes: int | None = None
    """None: the setting `max_body_mb`. A larger body is a 413."""
    seconds: float | None = None
    """For the whole body, or for each piece of a streamed one. None: the setting `client_body_timeout_seconds`."""
    takes_media: bool = False
    """It may have pictures, audio and files, which the handler tells from the rest: `max_media_body_mb` bounds it."""
    is_streamed: bool = False
    """The handler reads it piece by piece; else it is read into memory before the handler is called."""
    holds_bytes: int = 0
    """Memory that the handler of a streamed body holds for it, beside that of `BodyStream`."""

    def bounds(self, gateway: GatewayConfig) -> tuple[int, float]:
        """Bytes and seconds, where `gateway` is in force."""
        most = gateway.max_body_mb
        if self.takes_media:
            most = max(most, gateway.max_media_body_mb)
        return self.max_bytes or most * MIB, self.seconds or gateway.client_body_timeout_seconds


class ErrorFormat(msgspec.Struct, frozen=True):
    """How a route's clients read errors."""

    envelope: Callable[[APIError], object]
    """The body of a response."""
    event: Callable[[APIError], bytes]
    """The last event of a stream that has begun."""


OPENAI = ErrorFormat(envelope, sse.error_event)


class Route(msgspec.Struct, frozen=True, eq=False):
    """Made by `buffered` and `streamed`."""

    path: str
    """As it stands in the URL; `{name}` is a parameter of one segment, `{name:path}` of one or more."""
    handler: Callable[[RequestHead, Any], Awaitable[Reply]]
    body: BodyPolicy
    method: str
    errors: ErrorFormat = OPENAI

    @classmethod
    def buffered(
        cls,
        path: str,
        handler: Callable[[RequestHead, bytes], Awaitable[Reply]],
        *,
        method: str = "POST",
        max_bytes: int | None = None,
        seconds: float | None = None,
        takes_media: bool = False,
        errors: ErrorFormat = OPENAI,
    ) -> "Route":
        """A route whose handler gets the whole body."""
        return cls(path, handler, BodyPolicy(max_bytes, seconds, takes_media), method, errors)

    @classmethod
    def streamed(
        cls,
        path: str,
        handler: Callable[[RequestHead, BodyStream], Awaitable[Reply]],
        *,
        method: str = "POST",
        max_bytes: int | None = None,
        seconds: float | None = None,
        holds_bytes: int = 0,
    ) -> "Route":
        """A route whose handler reads the body piece by piece, as for an upload. A handler whose bound is a setting of
        its own calls `BodyStream.limit_to`."""
        return cls(path, handler, BodyPolicy(max_bytes, seconds, is_streamed=True, holds_bytes=holds_bytes), method)


class Registry:
    """The registered routes of a gateway.

    `posts` are the POST routes without parameters, by request target: the front takes these.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self.routes = tuple(routes)
        self.posts: dict[bytes, Route] = {}
        self._exact: dict[tuple[str, str], Route] = {}
        self._templates: list[tuple[re.Pattern[str], Route]] = []
        for route in self.routes:
            if _PARAMETER.search(route.path):
                self._templates.append((_pattern(route.path), route))
                continue
            self._exact[route.method, route.path] = route
            if route.method == "POST":
                self.posts[route.path.encode("ascii")] = route
        self._paths = frozenset(path for _, path in self._exact)

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        """The route of a request and the values of its path's parameters. HEAD is GET, of whose answer the server sends
        no body."""
        if method == "HEAD":
            method = "GET"
        if (route := self._exact.get((method, path))) is not None:
            return route, {}
        for pattern, route in self._templates:
            if route.method == method and (match := pattern.fullmatch(path)):
                return route, match.groupdict()
        return None

    def knows(self, path: str) -> bool:
        """Whether a route has this path, for any method."""
        return path in self._paths or any(pattern.fullmatch(path) for pattern, _ in self._templates)


def _pattern(template: str) -> re.Pattern[str]:
    pattern, at = "", 0
    for parameter in _PARAMETER.finditer(template):
        segments = ".+" if parameter[2] else "[^/]+"
        pattern += f"{re.escape(template[at : parameter.start()])}(?P<{parameter[1]}>{segments})"
        at = parameter.end()
    return re.compile(pattern + re.escape(template[at:]))
