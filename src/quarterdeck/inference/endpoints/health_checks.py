"""Asks endpoints of the file whether they live, so that a dead one is known before a request finds it.

One task for all of them; a few questions at a time. Who is not to be asked (`health:` is not given) is left to what
failed requests say of it.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from quarterdeck.inference.endpoints.sources import Endpoint
from quarterdeck.net.http_client import HttpClient, Timeouts, UpstreamError, request_head

log = logging.getLogger(__name__)

AT_ONCE = 16
"""Questions under way. A hundred dead endpoints take a hundred times two seconds of waiting, not of the loop."""
LOOK_SECONDS = 0.1
"""Between two looks at who is due."""
MAX_BYTES = 64 * 1024


class HealthChecks:
    """`endpoints` is asked at each look: a reload may have replaced them."""

    def __init__(self, endpoints: Callable[[], Sequence[Endpoint]], client: HttpClient) -> None:
        self._endpoints = endpoints
        self._client = client
        self._due: dict[Endpoint, float] = {}
        self._failures: dict[Endpoint, int] = {}
        self._asking: dict[Endpoint, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Ask until cancelled."""
        try:
            while True:
                self.look(asyncio.get_running_loop().time())
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            for task in self._asking.values():
                task.cancel()

    def look(self, now: float) -> None:
        """Begin to ask who is due, as far as there is room."""
        asked = [endpoint for endpoint in self._endpoints() if endpoint.health is not None]
        if self._due.keys() - set(asked):
            self._due = {endpoint: self._due[endpoint] for endpoint in asked if endpoint in self._due}
            self._failures = {endpoint: self._failures[endpoint] for endpoint in asked if endpoint in self._failures}
        due = [each for each in asked if self._due.get(each, 0.0) <= now and each not in self._asking]
        due.sort(
            key=lambda each: self._due.get(each, 0.0)
        )  # who has waited longest: the first must not starve the last
        for endpoint in due[: AT_ONCE - len(self._asking)]:
            self._begin(endpoint, now)

    def _begin(self, endpoint: Endpoint, now: float) -> None:
        if endpoint.health is None:
            return
        self._due[endpoint] = now + endpoint.health.interval_seconds
        task = self._asking[endpoint] = asyncio.get_running_loop().create_task(self.ask(endpoint))
        task.add_done_callback(lambda _: self._asking.pop(endpoint, None))

    async def ask(self, endpoint: Endpoint) -> None:
        """One question and what follows from its answer."""
        check = endpoint.health
        if check is None:
            return
        why = await self._why_not(endpoint, check.path, check.timeout_seconds)
        failures = self._failures[endpoint] = 0 if why is None else self._failures.get(endpoint, 0) + 1
        if why is None and not endpoint.is_alive:
            endpoint.is_alive = True
            log.info("the endpoint answers its health check again", extra={"endpoint": endpoint.id})
        elif failures >= check.failures and endpoint.is_alive:
            endpoint.is_alive = False
            log.warning("the endpoint is dead: %s", why, extra={"endpoint": endpoint.id})

    async def _why_not(self, endpoint: Endpoint, path: str, seconds: float) -> str | None:
        """What is wrong with it; None: nothing."""
        head = request_head("GET", endpoint.origin, path, endpoint.own_headers()) + b"\r\n"
        try:
            async with asyncio.timeout(seconds):
                connection = await self._client.request(endpoint.origin, head, b"", Timeouts(seconds, seconds, seconds))
                try:
                    await connection.read_all(MAX_BYTES)
                finally:
                    self._client.release(endpoint.origin, connection)
        except UpstreamError as error:
            return str(error)
        except TimeoutError:
            return f"no answer in {seconds:g} s"
        return None if connection.status < 400 else f"it answered {connection.status}"
