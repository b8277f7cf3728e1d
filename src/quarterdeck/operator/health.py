"""The operator's port: liveness, readiness and metrics. Plain ASGI, without authentication."""

from collections.abc import Callable, Mapping

import msgspec

from quarterdeck.net.asgi import Receive, Scope, Send, send_response
from quarterdeck.telemetry.metrics import CONTENT_TYPE


class HealthApp:
    """`parts` names what is not ready and why (or `ok`); `is_alive` is False if a restart would help."""

    def __init__(
        self,
        is_alive: Callable[[], bool],
        parts: Callable[[], Mapping[str, str]],
        facts: Callable[[], Mapping[str, object]],
        render: Callable[[], bytes],
    ) -> None:
        self._is_alive, self._parts, self._facts, self._render = is_alive, parts, facts, render

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _send(send, 405, {"status": "method_not_allowed"})
        elif scope["path"] == "/healthz":
            alive = self._is_alive()
            await _send(send, 200 if alive else 503, {"status": "ok" if alive else "stuck"})
        elif scope["path"] == "/readyz":
            parts = self._parts()
            is_ready = all(state == "ok" for state in parts.values())
            await _send(send, 200 if is_ready else 503, {"ready": is_ready, "parts": parts, **self._facts()})
        elif scope["path"] == "/metrics":
            await send_response(send, 200, self._render(), [(b"content-type", CONTENT_TYPE.encode())])
        else:
            await _send(send, 404, {"status": "not_found"})


async def _send(send: Send, status: int, body: Mapping[str, object]) -> None:
    await send_response(send, status, msgspec.json.encode(body), [(b"content-type", b"application/json")])
