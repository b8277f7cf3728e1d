"""Delivers webhooks from the outbox: leases what is due, signs and posts it, and records the outcome.

A 2xx is done; 410 disables the endpoint; all else is repeated with exponential pauses for a day. An endpoint of which
nothing has succeeded for three days is disabled. Any number of workers
may deliver: a lease makes each attempt once.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Callable
from urllib.parse import urlsplit

from quarterdeck.resources.webhooks.events import RETRY_SECONDS, signed_headers
from quarterdeck.settings.webhooks import WebhooksConfig
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.webhook_outbox import LeasedDelivery, State, WebhookOutbox
from quarterdeck.store.webhooks import WebhookEndpoint
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition, pause
from quarterdeck.worker.webhook_sender import Answer, WebhookSender, WebhookSendError

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
"""Between two looks for deliveries: one look-up in a partial index that is mostly empty."""
AT_ONCE = 32
"""Deliveries at once of one worker."""
PER_ENDPOINT = 4
"""Of them to one endpoint: one that hangs leaves the others their places."""
PER_ORG = AT_ONCE // 2
"""Of them of one organisation: all its receivers may hang. Half of it is leased at once, and no more is while more
than half of it runs."""
LEASE_SECONDS = 90.0
"""Longer than any delivery takes. That of a worker that died is made again after it."""
DEAD_SECONDS = 3 * RETRY_SECONDS
"""An endpoint of which no delivery has succeeded for so long is disabled: each event to it costs twelve attempts."""
FIRST_PAUSE, PAUSE_FACTOR, MOST_PAUSE = 5.0, 4.0, 4 * 3600.0
"""Seconds: 5, 20, 80, 320, 21 minutes, 85 minutes, 4 hours, then each 4 hours: 12 attempts in a day."""
JITTER = 0.2
CLEAN_SECONDS = 600.0
KEEP_SECONDS = 30 * 86_400.0
"""How long finished deliveries can be listed."""


def pause_after(attempts: int, chance: float, retry_after: float | None = None) -> float:
    """Seconds to the next attempt after this many. `chance`: 0 to 1, spreads repetitions. Pure."""
    planned = min(FIRST_PAUSE * PAUSE_FACTOR ** min(attempts - 1, 20), MOST_PAUSE)
    return max(planned * (1 + JITTER * chance), retry_after or 0.0)


class WebhookLoop:
    """`settings` may change at any time."""

    def __init__(
        self,
        outbox: WebhookOutbox,
        sender: WebhookSender,
        settings: Callable[[], WebhooksConfig],
        condition: Condition,
        metrics: WorkerMetrics,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._outbox = outbox
        self._sender = sender
        self._settings = settings
        self._condition = condition
        self._metrics = metrics
        self._wall = wall
        self._running: dict[asyncio.Task[None], WebhookEndpoint] = {}
        """Deliveries in progress, with their endpoints."""
        self._cleaned = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        try:
            while not stop.is_set():
                if not await self._start():
                    await pause(stop, POLL_SECONDS)
                elif self._running:
                    await asyncio.wait(self._running, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if self._running:  # each ends within its timeout
                await asyncio.wait(self._running)
        finally:
            for task in self._running:
                task.cancel()

    async def turn(self) -> int:
        """Make what is due. Returns how many deliveries that were."""
        count = await self._start()
        if self._running:
            await asyncio.wait(self._running)
        return count

    async def _start(self) -> int:
        """Lease deliveries and start them. Returns how many."""
        try:
            now = self._wall()
            if now - self._cleaned >= CLEAN_SECONDS:
                has_more = await self._outbox.clean(now=now, keep_seconds=KEEP_SECONDS)
                self._cleaned = self._cleaned if has_more else now
            if len(self._running) >= AT_ONCE:
                return 0
            of_org = Counter(endpoint.org for endpoint in self._running.values())
            leased = await self._outbox.lease(
                now=now,
                seconds=LEASE_SECONDS,
                limit=AT_ONCE - len(self._running),
                per_endpoint=PER_ENDPOINT,
                per_org=PER_ORG // 2,
                busy={endpoint.id for endpoint in self._running.values()},
                busy_orgs=[org for org, count in of_org.items() if count > PER_ORG // 2],
            )
            self._condition.ok()
        except DatabaseUnavailableError as error:
            self._condition.failed(str(error))
            return 0
        except Exception as error:  # an error boundary, as in org_loop: it must not end the worker
            self._condition.failed(f"{type(error).__name__}: {error}", trace=error)
            return 0
        for each in leased:
            task = asyncio.create_task(self._deliver(each))
            self._running[task] = each.endpoint
            task.add_done_callback(self._running.pop)
        return len(leased)

    async def _deliver(self, leased: LeasedDelivery) -> None:
        """One attempt. Where its outcome can't be recorded, it is made again when the lease is over."""
        try:
            answer, error = await self._attempt(leased)
            await self._record(leased, answer, error)
        except DatabaseUnavailableError as failure:
            self._condition.failed(str(failure))
        except Exception as failure:  # an error boundary, as above
            self._condition.failed(f"{type(failure).__name__}: {failure}", trace=failure)

    async def _attempt(self, leased: LeasedDelivery) -> tuple[Answer | None, str | None]:
        now = self._wall()
        body = leased.body.encode()
        headers = signed_headers(leased.delivery.event, int(now), body, leased.endpoint.secrets(now))
        try:
            answer = await self._sender.post(leased.endpoint.url, headers, body, self._settings().timeout_seconds)
        except WebhookSendError as error:
            return None, str(error)
        return answer, None if 200 <= answer.status < 300 else f"HTTP {answer.status}"

    async def _record(self, leased: LeasedDelivery, answer: Answer | None, error: str | None) -> None:
        now, delivery = self._wall(), leased.delivery
        state: State
        if error is None:
            state = "delivered"
        elif now < delivery.retry_until and not (answer is not None and answer.status == 410):
            state = "pending"
        else:
            state = "failed"
        retry_after = None if answer is None else answer.retry_after
        due = min(now + pause_after(delivery.attempts + 1, random.random(), retry_after), delivery.retry_until)  # noqa: S311  # no secret
        status = None if answer is None else answer.status
        if not await self._outbox.finish(leased, state, now=now, due=due, status=status, error=error):
            log.warning("a delivery took longer than its lease", extra={"delivery": delivery.id})
            return
        self._metrics.webhook_attempts.add(("delivered" if error is None else state.replace("pending", "retried"),))
        if error is not None:
            # Not the URL: its path is often a secret.
            where = {"endpoint": leased.endpoint.id, "host": urlsplit(leased.endpoint.url).hostname}
            extra = {**where, "event": delivery.event, "attempts": delivery.attempts + 1, "org": leased.endpoint.org}
            then = "retrying" if state == "pending" else "giving up"
            log.log(
                logging.INFO if state == "pending" else logging.WARNING, "webhook: %s; %s", error, then, extra=extra
            )
        if answer is not None and answer.status == 410:
            await self._disable(leased, now, "HTTP 410: the receiver is gone")
        elif state == "failed":
            since = await self._outbox.failing_since(leased.endpoint.id)
            if since is not None and now - since >= DEAD_SECONDS:
                await self._disable(leased, now, f"no delivery has succeeded for {DEAD_SECONDS / 86_400:.0f} days")

    async def _disable(self, leased: LeasedDelivery, now: float, reason: str) -> None:
        await self._outbox.disable(leased.endpoint.id, now=now, reason=reason)
        extra = {"endpoint": leased.endpoint.id, "org": leased.endpoint.org}
        log.warning("webhook endpoint disabled: %s", reason, extra=extra)
