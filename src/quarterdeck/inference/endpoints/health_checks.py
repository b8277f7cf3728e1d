"""Active health checks of endpoints, so that a dead one is known before a request fails there.

One task checks all endpoints, a few at a time, and reports changes to their breakers. Of a configured endpoint without
`health:` it only checks that a connection can be opened, and only while no request succeeds there.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from quarterdeck.inference.endpoints.endpoint import Endpoint
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts, UpstreamError
from quarterdeck.net.http_origin import request_head

log = logging.getLogger(__name__)

PROBE_SECONDS = 5.0
"""Between two checks of an endpoint without `health:`."""
PROBE_TIMEOUT_SECONDS = 2.0
PROBE_FAILURES = 2
"""Consecutive time-outs that make it unhealthy. One refused connection or unknown host does."""
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
        self._calls: dict[Endpoint, int] = {}
        """Calls that the breaker had counted at the last probe."""
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
        checked = [
            endpoint for endpoint in self._endpoints() if endpoint.spec.health is not None or endpoint.spec.is_probed
        ]
        if self._due.keys() - set(checked):
            self._due = {endpoint: self._due[endpoint] for endpoint in checked if endpoint in self._due}
            self._failures = {endpoint: self._failures[endpoint] for endpoint in checked if endpoint in self._failures}
            self._calls = {endpoint: self._calls[endpoint] for endpoint in checked if endpoint in self._calls}
        due = [each for each in checked if self._due.get(each, 0.0) <= now and each not in self._running]
        due.sort(key=lambda each: self._due.get(each, 0.0))  # the longest overdue first, so that none starves
        for endpoint in due[: MAX_CONCURRENT - len(self._running)]:
            self._start(endpoint, now)

    def _start(self, endpoint: Endpoint, now: float) -> None:
        config = endpoint.spec.health
        self._due[endpoint] = now + (PROBE_SECONDS if config is None else config.interval_seconds)
        task = self._running[endpoint] = asyncio.get_running_loop().create_task(self.check(endpoint))
        task.add_done_callback(lambda _: self._running.pop(endpoint, None))

    async def check(self, endpoint: Endpoint) -> None:
        """Send one check and report a change of the endpoint's health to its breaker."""
        config = endpoint.spec.health
        needed = PROBE_FAILURES if config is None else config.failures
        try:
            if config is not None:
                failure = await self._send(endpoint, config.path, config.timeout_seconds)
            else:
                failure, is_certain = await self._probe(endpoint)
                needed = 1 if is_certain else needed
        except UpstreamError as error:  # this process has no connection left, which says nothing of the endpoint
            log.warning("could not check an endpoint: %s", error, extra={"endpoint": endpoint.id})
            return
        failures = self._failures[endpoint] = 0 if failure is None else self._failures.get(endpoint, 0) + 1
        breaker = endpoint.breaker
        if failure is None and not breaker.is_alive:
            breaker.record_health(is_alive=True)
            log.info("endpoint healthy again", extra={"endpoint": endpoint.id})
        elif failure is not None and failures >= needed and breaker.is_alive:
            breaker.record_health(is_alive=False, error=failure)
            log.warning("endpoint unhealthy: %s", failure, extra={"endpoint": endpoint.id})

    async def _probe(self, endpoint: Endpoint) -> tuple[str | None, bool]:
        """Why no connection could be opened, and whether that is certain. Raises UpstreamError where none was tried."""
        breaker = endpoint.breaker
        before, self._calls[endpoint] = self._calls.get(endpoint, 0), breaker.calls
        if breaker.calls != before and not breaker.failures:
            return None, True
        try:
            await self._client.reach(endpoint.address.origin, PROBE_TIMEOUT_SECONDS)
        except UpstreamError as error:
            if error.is_local:
                raise
            return str(error), not error.timed_out
        return None, True

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
