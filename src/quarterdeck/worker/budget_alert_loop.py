"""Watches budgets and records an event when one reaches a threshold: `budget.threshold_reached`.

Only organisations with an endpoint that asks for these events are watched. What is spent is read from Redis, as
admission sees it; that an alert was sent is recorded in the database, once for all workers and restarts.
"""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quarterdeck.accounting.budget_status import BudgetReader
from quarterdeck.accounting.redis_keys import revision_key
from quarterdeck.accounting.refusal_notes import read_refusals
from quarterdeck.net.redis import Redis
from quarterdeck.resources.tenancy.budgets import BudgetedScope, Budgets
from quarterdeck.resources.webhooks.budget_alerts import Alert, alerts_of, may_be_refusing
from quarterdeck.resources.webhooks.events import BUDGET_THRESHOLD_REACHED, RETRY_SECONDS, new_event
from quarterdeck.settings.config import Config
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.store.webhooks import WebhookStore
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop

log = logging.getLogger(__name__)

WATCH_SECONDS = 10.0
"""Between two looks: how late an alert may be. A look reads one small value of Redis for each budget."""
REREAD_SECONDS = 300.0
"""Between two reads of the budgets themselves, where nothing announced a change."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The budgets of an organisation as they were read last."""

    revision: bytes
    config: Config
    read_at: float
    scopes: Sequence[BudgetedScope]


class BudgetAlertLoop(OrgLoop):
    def __init__(
        self,
        redis: Redis,
        budgets: Budgets,
        endpoints: WebhookStore,
        outbox: WebhookOutbox,
        config: Callable[[], Config | None],
        condition: Condition,
        metrics: WorkerMetrics,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(lambda: ("*",), condition, WATCH_SECONDS)
        self._redis = redis
        self._reader = BudgetReader(redis)
        self._budgets = budgets
        self._endpoints = endpoints
        self._outbox = outbox
        self._config = config
        self._metrics = metrics
        self._wall = wall
        self._known: dict[str, _Known] = {}
        self._recorded: dict[str, set[str]] = {}
        """Keys of alerts that are recorded, of thresholds that are reached now."""

    async def _visit(self, org: str) -> None:
        config = self._config()
        if config is None:
            return  # it is invalid, and is logged where it is read
        thresholds = config.webhooks.budget_thresholds
        watched = await self._endpoints.subscribed_orgs(BUDGET_THRESHOLD_REACHED) if thresholds else []
        for gone in self._known.keys() - set(watched):
            del self._known[gone]
            self._recorded.pop(gone, None)
        for each in watched:
            await self._watch(each, config, thresholds)

    async def _watch(self, org: str, config: Config, thresholds: Sequence[int]) -> None:
        reached = await self._reached(org, await self._scopes(org, config), thresholds)
        known = self._recorded.get(org, set()) & reached.keys()
        known |= await self._outbox.recorded(org, [key for key in reached if key not in known])
        self._recorded[org] = known
        for key, alert in reached.items():
            if key not in known:
                await self._record(org, alert, config.webhooks.max_waiting)
                known.add(key)

    async def _scopes(self, org: str, config: Config) -> Sequence[BudgetedScope]:
        """Read again where a key, a team or the configuration changed."""
        revision = await self._redis.call("GET", revision_key(org)) or b""
        known = self._known.get(org)
        now = self._wall()
        is_current = known is not None and (known.revision, known.config) == (revision, config)
        if known is None or not is_current or not 0 <= now - known.read_at < REREAD_SECONDS:
            known = _Known(revision, config, now, await self._budgets.of(org, config))
            self._known[org] = known
        return known.scopes

    async def _reached(self, org: str, scopes: Sequence[BudgetedScope], thresholds: Sequence[int]) -> dict[str, Alert]:
        """Alerts of all thresholds that are reached now, by key."""
        if not scopes:
            return {}
        _, statuses = await self._reader.statuses(org, [(each.scope, each.budget) for each in scopes])
        pairs = list(zip(scopes, statuses, strict=True))
        near = [each.scope for each, status in pairs if may_be_refusing(each, status)]
        refused = dict(zip(near, await read_refusals(self._redis, org, near), strict=True))
        return {
            alert.key: alert
            for each, status in pairs
            for alert in alerts_of(org, each, status, thresholds, refused_at=refused.get(each.scope, 0))
        }

    async def _record(self, org: str, alert: Alert, max_waiting: int) -> None:
        now = self._wall()
        event = new_event(BUDGET_THRESHOLD_REACHED, org, alert.data, now=now, key=alert.key, expires=alert.expires)
        recorded = await self._outbox.record(event, retry_until=now + RETRY_SECONDS, max_waiting=max_waiting)
        if not recorded.is_new:
            return  # another worker was first
        self._metrics.budget_alerts.add()
        self._metrics.webhook_attempts.add(("dropped",), recorded.dropped)
        log.warning(
            "budget: the %s %s has spent %s %% of $%s",
            *(alert.data["scope"], alert.data["name"], alert.data["spent_percent"], alert.data["budget"]["amount"]),
            extra={"org": org, "event": event.id, "threshold": alert.data["threshold_percent"]},
        )
