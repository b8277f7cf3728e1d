"""The worker's own port: liveness, readiness and metrics. Plain ASGI; only metrics may need a token."""

import asyncio
import hmac
import math
import time
from collections.abc import Awaitable, Callable, Mapping

import msgspec

from quarterdeck.net.asgi import Receive, Scope, Send, send_response
from quarterdeck.telemetry.metrics import CONTENT_TYPE, HELD_SECONDS
from quarterdeck.worker.conditions import Condition

CHECK_SECONDS = 2.0
"""A part whose check takes longer counts as unavailable."""


class StatusApp:
    """`checks` raise if a part is unavailable; `refresh` updates gauges before `render` is called.

    `jobs` have no effect on readiness. One that fails is named while all parts are available, unless it failed last
    before they were: it has not retried yet. `sinks` is added to the answer as it is. `metrics_token`: the bearer token
    of `/metrics`. None: it needs none.
    """

    def __init__(
        self,
        checks: Mapping[str, Callable[[], Awaitable[None]]],
        refresh: Callable[[], Awaitable[None]],
        render: Callable[[], bytes],
        *,
        jobs: Mapping[str, Condition] = {},
        sinks: Callable[[], Mapping[str, object]] = dict,
        metrics_token: str | None = None,
        check_seconds: float = CHECK_SECONDS,
        held_seconds: float = HELD_SECONDS,
    ) -> None:
        self._checks = checks
        self._jobs = jobs
        self._available_since: float | None = -math.inf
        """When all parts were first seen available again. None: they are not."""
        self._refresh = refresh
        self._render = render
        self._sinks = sinks
        self._authorization = None if metrics_token is None else f"Bearer {metrics_token}".encode()
        self._check_seconds = check_seconds
        self._held_seconds = held_seconds
        self._refreshing = asyncio.Lock()
        self._held: bytes | None = None
        self._held_at = 0.0
        self._checking = asyncio.Lock()
        self._states: dict[str, str] = {}
        self._states_until = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            await _send(send, 405, _json({"status": "method_not_allowed"}))
        elif scope["path"] == "/healthz":
            await _send(send, 200, _json({"status": "ok"}))
        elif scope["path"] == "/readyz":
            parts = await self._parts()
            is_ready = all(state == "ok" for state in parts.values())
            parts = parts | self._failing_jobs(is_available=is_ready)
            answer: dict[str, object] = {"ready": is_ready, "parts": parts}
            if sinks := self._sinks():
                answer["trace_sinks"] = sinks
            await _send(send, 200 if is_ready else 503, _json(answer))
        elif scope["path"] == "/metrics" and not self._may_read_metrics(scope):
            await _send(send, 401, _json({"status": "unauthorized"}))
        elif scope["path"] == "/metrics":
            await _send(send, 200, await self._metrics(), CONTENT_TYPE)
        else:
            await _send(send, 404, _json({"status": "not_found"}))

    def _may_read_metrics(self, scope: Scope) -> bool:
        if self._authorization is None:
            return True
        given: bytes = dict(scope["headers"]).get(b"authorization", b"")
        return hmac.compare_digest(given, self._authorization)

    async def _metrics(self) -> bytes:
        """At most once in HELD_SECONDS: a refresh calls Redis for every organisation."""
        async with self._refreshing:
            now = time.monotonic()
            if self._held is None or now - self._held_at >= HELD_SECONDS:
                await self._refresh()
                self._held, self._held_at = self._render(), now
            return self._held

    def _failing_jobs(self, *, is_available: bool) -> dict[str, str]:
        if not is_available:  # the checks say why
            self._available_since = None
            return {}
        since = self._available_since
        if since is None:
            since = self._available_since = time.monotonic()
        return {name: job.reason for name, job in self._jobs.items() if job.reason and job.failed_at > since}

    async def _parts(self) -> dict[str, str]:
        """Checked at most once in `held_seconds`: the port needs no key."""
        async with self._checking:
            if time.monotonic() >= self._states_until:
                states = await asyncio.gather(*(self._state(check) for check in self._checks.values()))
                self._states = dict(zip(self._checks, states, strict=True))
                self._states_until = time.monotonic() + self._held_seconds
            return self._states

    async def _state(self, check: Callable[[], Awaitable[None]]) -> str:
        try:
            async with asyncio.timeout(self._check_seconds):
                await check()
        except TimeoutError:
            return "timed out"
        except Exception as error:  # an error boundary: a failed check is the state of its part
            return str(error) or type(error).__name__
        return "ok"


async def _send(send: Send, status: int, body: bytes, content_type: str = "application/json") -> None:
    await send_response(send, status, body, [(b"content-type", content_type.encode())])


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)
