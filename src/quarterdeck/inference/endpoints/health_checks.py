"""Active health checks of endpoints, so that a dead one is known before a request fails there.

One task checks all endpoints, a few at a time, and reports changes to their breakers. An endpoint without `health:` is
judged by failed requests only.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts, UpstreamError
from quarterdeck.net.http_origin import request_head

log = logging.getLogger(__name__)

MAX_CONCURRENT = 16
"""Checks in progress. A hundred dead endpoints cost a hundred timeouts of waiting, but no more work than this."""
TICK_SECONDS = 0.1
"""Between two looks for endpoints that are due."""
MAX_BYTES = 64 * 1024
"""Of a check's answer."""


class HealthChecks:
    """`endpoints` is called at each tick: the set changes with the configuration."""

    def __init__(
        self, endpoints: Callable[[], Sequence[Endpoint]], client: HttpClient, *, tick_seconds: float = TICK_SECONDS
    ) -> None:
        self._endpoints = endpoints
        self._client = client
        self._tick_seconds = tick_seconds
        self._due: dict[Endpoint, float] = {}
        """The loop's time of the next check."""
        self._failures: dict[Endpoint, int] = {}
        """In a row."""
        self._running: dict[Endpoint, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Check until cancelled."""
        try:
            while True:
                self.start_due(asyncio.get_running_loop().time())
                await asyncio.sleep(self._tick_seconds)
        finally:
            for task in self._running.values():
                task.cancel()

    def start_due(self, now: float) -> None:
        """Start the checks that are due, up to `MAX_CONCURRENT`."""
        checked = [endpoint for endpoint in self._endpoints() if endpoint.spec.health is not None]
        if self._due.keys() - set(checked):
            self._due = {endpoint: self._due[endpoint] for endpoint in checked if endpoint in self._due}
            self._failures = {endpoint: self._failures[endpoint] for endpoint in checked if endpoint in self._failures}
        due = [each for each in checked if self._due.get(each, 0.0) <= now and each not in self._running]
        due.sort(key=lambda each: self._due.get(each, 0.0))  # the longest overdue first, so that none starves
        for endpoint in due[: MAX_CONCURRENT - len(self._running)]:
            self._start(endpoint, now)

    def _start(self, endpoint: Endpoint, now: float) -> None:
        if endpoint.spec.health is None:
            return
        self._due[endpoint] = now + endpoint.spec.health.interval_seconds
        task = self._running[endpoint] = asyncio.get_running_loop().create_task(self.check(endpoint))
        task.add_done_callback(lambda _: self._running.pop(endpoint, None))

    async def check(self, endpoint: Endpoint) -> None:
        """Send one check and report a change of the endpoint's health to its breaker."""
        config = endpoint.spec.health
        if config is None:
            return
        try:
            failure = await self._send(endpoint, config.path, config.timeout_seconds)
        except UpstreamError as error:  # this process has no connection left, which says nothing of the endpoint
            log.warning("could not check an endpoint: %s", error, extra={"endpoint": endpoint.id})
            return
        failures = self._failures[endpoint] = 0 if failure is None else self._failures.get(endpoint, 0) + 1
        breaker = endpoint.breaker
        if failure is None and not breaker.is_alive:
            breaker.record_health(is_alive=True)
            log.info("endpoint healthy again", extra={"endpoint": endpoint.id})
        elif failures >= config.failures and breaker.is_alive:
            breaker.record_health(is_alive=False)
            log.warning("endpoint unhealthy: %s", failure, extra={"endpoint": endpoint.id})

    async def _send(self, endpoint: Endpoint, path: str, seconds: float) -> str | None:
        """Why the check failed. None: it succeeded. Raises UpstreamError where no check could be sent."""
        origin = endpoint.address.origin
        head = request_head("GET", origin, path, endpoint.address.headers) + b"\r\n"
        try:
            async with asyncio.timeout(seconds):
                connection = await self._client.request(origin, head, b"", Timeouts(seconds, seconds, seconds))
                try:
                    await connection.read_all(MAX_BYTES)
                finally:
                    self._client.release(origin, connection)
        except UpstreamError as error:
            if error.is_local:
                raise
            return str(error)
        except TimeoutError:
            return f"no answer within {seconds:g} s"
        return None if connection.status < 400 else f"status {connection.status}"
