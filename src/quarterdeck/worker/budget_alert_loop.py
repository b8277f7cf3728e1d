"""Watches budgets and records an event when one reaches a threshold: `budget.threshold_reached`.

Only organisations with an endpoint that asks for these events are watched. What is spent is read from Redis, as
admission sees it; that an alert was sent is recorded in the database, once for all workers and restarts.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from quarterdeck.accounting.budget_status import status_of
from quarterdeck.accounting.layouts import read_all_money
from quarterdeck.accounting.redis_keys import revision_key
from quarterdeck.accounting.scopes import team_scope
from quarterdeck.net.redis import Redis
from quarterdeck.resources.tenancy.principals import key_terms, org_terms, team_terms
from quarterdeck.resources.webhooks.budget_alerts import Alert, BudgetedScope, alerts_of
from quarterdeck.resources.webhooks.events import BUDGET_THRESHOLD_REACHED, new_event
from quarterdeck.settings.config import Config
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.teams import TeamStore
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.store.webhooks import WebhookStore
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop, Orgs
from quarterdeck.worker.webhook_loop import RETRY_SECONDS

log = logging.getLogger(__name__)

WATCH_SECONDS = 10.0
"""Between two looks: how late an alert may be. A look reads one small value of Redis for each budget."""
REREAD_SECONDS = 300.0
"""Between two reads of the budgets themselves, where nothing announced a change."""


@dataclass(frozen=True, slots=True)
class Budgets:
    """Stores from which the budgets of an organisation are read."""

    keys: KeyStore
    teams: TeamStore
    orgs: OrgStore

    async def of(self, org: str, config: Config) -> list[BudgetedScope]:
        """The budgets in force of an organisation, its teams and its keys."""
        keys, teams, row = await asyncio.gather(
            self.keys.list_budgeted(org=org, names=list(config.keys)),
            self.teams.list_budgeted(org=org, names=list(config.teams)),
            self.orgs.retrieve(org),
        )
        found = []
        if (budget := org_terms(org, row.terms, config).budget) is not None:
            found.append(BudgetedScope("org", "organization", org, org, budget))
        for team in teams:
            if (budget := team_terms(org, team.id, team.terms, config).budget) is not None:
                found.append(BudgetedScope(team_scope(team.id, team.remade), "team", team.id, team.id, budget))
        for key in keys:
            if (budget := key_terms(key, config)[0].budget) is not None:
                found.append(BudgetedScope(f"key:{key.id}", "key", key.id, key.name, budget, key.team))
        return found


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
        orgs: Orgs,
        condition: Condition,
        metrics: WorkerMetrics,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(orgs, condition, WATCH_SECONDS)
        self._redis = redis
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
        if not thresholds or not await self._endpoints.has_subscriber(org, BUDGET_THRESHOLD_REACHED):
            self._known.pop(org, None)
            self._recorded.pop(org, None)
            return
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
        second = int((await self._redis.call("TIME", tag=org))[0])
        moneys = await read_all_money(self._redis, org, [each.scope for each in scopes])
        return {
            alert.key: alert
            for each, money in zip(scopes, moneys, strict=True)
            for alert in alerts_of(org, each, status_of(each.budget, money, second), thresholds)
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
