"""Keeps web pages away from ports that need no key.

A page that a user of this machine visits can send requests to ports on loopback: across origins, which browsers mark
with `origin` or `sec-fetch-site`, or through a DNS name of its own that resolves to 127.0.0.1 (DNS rebinding), which
only the `host` header shows.
"""

import ipaddress
import json
import re

from quarterdeck.errors import APIError, PermissionDeniedError, envelope
from quarterdeck.net.asgi import ASGIApp, Receive, Scope, Send, send_response

_HOST = re.compile(rb"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::[0-9]{1,5})?")
_FOREIGN_SITES = (b"cross-site", b"same-site")


class BrowserGuard:
    """Answers 403 to requests of web pages. `is_loopback`: the port listens on loopback, where `host` is an IP address
    or `localhost`; elsewhere it may be any name of a service."""

    def __init__(self, app: ASGIApp, *, is_loopback: bool) -> None:
        self._app = app
        self._is_loopback = is_loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and (error := self._refusal(scope)) is not None:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": error.message})
            else:
                body = json.dumps(envelope(error)).encode()
                headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
                await send_response(send, error.status, body, headers)
            return
        await self._app(scope, receive, send)

    def _refusal(self, scope: Scope) -> APIError | None:
        for name, value in scope["headers"]:
            if name == b"origin" or (name == b"sec-fetch-site" and value in _FOREIGN_SITES):
                return PermissionDeniedError(
                    "Requests of web pages are not allowed on this port.", code="origin_not_allowed"
                )
            if name == b"host" and self._is_loopback and not is_local_host(value):
                return PermissionDeniedError(
                    "The Host header must be an IP address or localhost.", code="host_not_allowed"
                )
        return None


def is_local_host(value: bytes) -> bool:
    """Whether a Host header is one that no DNS name of a web page can have."""
    found = _HOST.fullmatch(value)
    if found is None:
        return False
    host = found[1].decode("latin-1").lower()
    if host == "localhost":
        return True
    try:
        ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return False
    return True
