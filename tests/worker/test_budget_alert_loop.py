"""Budgets that reach a threshold are recorded as events, once per scope, period, amount and threshold."""

import asyncio
import json
import struct
import time
from decimal import Decimal
from typing import Any

import pytest
from tests.accounting.spending import a_scope, reserve, settle, trust
from tests.worker.bench import ORG, Bench

from quarterdeck.accounting.budget_status import BudgetStatus
from quarterdeck.accounting.periods import period_end, period_number, period_start
from quarterdeck.accounting.redis_keys import money_key, revision_key
from quarterdeck.accounting.refusal_notes import RefusalNotes
from quarterdeck.net.tasks import BackgroundTasks
from quarterdeck.resources.tenancy.budgets import BudgetedScope, Budgets
from quarterdeck.resources.webhooks.budget_alerts import alerts_of
from quarterdeck.settings.config import Config
from quarterdeck.settings.limits import Budget
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.teams import TeamStore
from quarterdeck.store.webhook_outbox import WebhookOutbox
from quarterdeck.store.webhooks import WebhookStore
from quarterdeck.worker.budget_alert_loop import BudgetAlertLoop
from quarterdeck.worker.conditions import Condition

TEN = Budget(amount=Decimal(10), period="month")


def a_loop(bench: Bench, **config: Any) -> BudgetAlertLoop:
    settings = Config.model_validate({"models": [], **config})
    return BudgetAlertLoop(
        bench.redis,
        Budgets(KeyStore(bench.database), TeamStore(bench.database), OrgStore(bench.database)),
        WebhookStore(bench.database),
        WebhookOutbox(bench.database),
        lambda: settings,
        Condition("budget alerts"),
        bench.metrics,
    )


async def subscribe(bench: Bench, *, org: str = ORG, types: list[str] | None = None) -> None:
    await OrgStore(bench.database).ensure(org)
    store = WebhookStore(bench.database)
    await store.create(org=org, name="hook", url="http://127.0.0.1:1/", secret="whsec_AAAA", event_types=types, most=9)


async def alerts(bench: Bench) -> list[tuple[str, int, str]]:
    """Scope, threshold and what was spent of each alert, oldest first."""
    found = await WebhookOutbox(bench.database).lease(now=time.time() + 1, seconds=1, limit=99, per_endpoint=99)
    events = [json.loads(each.body)["data"] for each in found]
    return sorted((each["name"], each["threshold_percent"], each["spent"]) for each in events)


async def spend(bench: Bench, scope: str, millionths: int, *, held: int = 0, amount: int = 10_000_000) -> None:
    a_budget = a_scope(scope, amount, period="month")
    await trust(bench.redis, a_budget, spent=millionths, held=held, period=period_number("month", time.time()))


async def test_each_threshold_is_recorded_once_by_any_number_of_workers(any_bench: Bench) -> None:
    bench = any_bench
    await subscribe(bench)
    key = await KeyStore(bench.database).create(secret="sk-1", name="ci", budget=TEN)
    loops = [a_loop(bench), a_loop(bench)]
    scope = f"key:{key.id}"
    await spend(bench, scope, 4_999_999)
    await asyncio.gather(*(loop.turn() for loop in loops))
    assert await alerts(bench) == []
    await spend(bench, scope, 5_000_000)
    for _ in range(2):
        await asyncio.gather(*(loop.turn() for loop in loops))
    assert bench.metrics.budget_alerts.values[()] == 1
    await spend(bench, scope, 10_000_000)
    await asyncio.gather(*(loop.turn() for loop in loops), a_loop(bench).turn())
    assert bench.metrics.budget_alerts.values[()] == 3
    assert await alerts(bench) == [("ci", 50, "5"), ("ci", 80, "10"), ("ci", 100, "10")]


async def test_what_requests_spend_through_admission_is_seen(bench: Bench) -> None:
    """The money key as the scripts write it, for the organisation's budget; held money reaches no threshold."""
    await subscribe(bench)
    await OrgStore(bench.database).update(ORG, budget=Budget(amount=Decimal(1), period="total"))
    scope = a_scope("org", 1_000_000)
    await trust(bench.redis, scope)
    loop = a_loop(bench, webhooks={"budget_thresholds": [80]})
    reservation, _ = await reserve(bench.redis, [scope], 900_000)
    await loop.turn()
    assert await alerts(bench) == []
    await settle(bench.redis, reservation, Decimal("0.85"))
    await loop.turn()
    assert await alerts(bench) == [(ORG, 80, "0.85")]


async def test_teams_keys_and_the_files_budgets_are_watched_and_changes_seen(bench: Bench) -> None:
    await subscribe(bench, types=["budget.threshold_reached"])
    keys, teams = KeyStore(bench.database), TeamStore(bench.database)
    await teams.create("red", org=ORG, budget=TEN)
    filed = await keys.create(secret="sk-2", name="filed", team="red")
    gone = await keys.create(secret="sk-3", name="gone", budget=TEN)
    await keys.revoke(gone.id)
    plain = await keys.create(secret="sk-4", name="plain")
    loop = a_loop(bench, keys={"filed": {"budget": {"amount": "10"}}}, webhooks={"budget_thresholds": [50]})
    for scope in ("team:red", f"key:{filed.id}", f"key:{gone.id}", f"key:{plain.id}"):
        await spend(bench, scope, 6_000_000)
    await loop.turn()
    assert await alerts(bench) == [("filed", 50, "6"), ("red", 50, "6")]
    await keys.update(plain.id, budget=TEN)
    await bench.redis.call("INCR", revision_key(ORG))
    await loop.turn()
    assert ("plain", 50, "6") in await alerts(bench) or bench.metrics.budget_alerts.values[()] == 3


async def test_an_organisation_without_an_endpoint_is_not_watched(bench: Bench) -> None:
    await OrgStore(bench.database).ensure()
    await OrgStore(bench.database).update(ORG, budget=TEN)
    await spend(bench, "org", 10_000_000)
    loop = a_loop(bench)
    await loop.turn()
    assert bench.metrics.budget_alerts.values.get((), 0) == 0
    await subscribe(bench)  # from now on it is, and what is reached already is said
    await loop.turn()
    assert bench.metrics.budget_alerts.values[()] == 3


async def test_every_organisation_with_an_endpoint_is_watched(any_bench: Bench) -> None:
    for org in ("acme", "blue", ORG):
        await OrgStore(any_bench.database).ensure(org)
        await OrgStore(any_bench.database).update(org, budget=Budget(amount=Decimal(10), period="total"))
        await any_bench.redis.call("SET", money_key(org, "org"), struct.pack("<5d", 4, 0, 6_000_000, 0, 0))
    await subscribe(any_bench, org="acme")
    await subscribe(any_bench, org="blue", types=["other"])
    await subscribe(any_bench)
    await a_loop(any_bench).turn()
    assert await alerts(any_bench) == [("acme", 50, "6"), (ORG, 50, "6")]


async def test_a_budget_that_is_being_counted_is_not_judged(bench: Bench) -> None:
    await subscribe(bench)
    await OrgStore(bench.database).update(ORG, budget=TEN)
    await a_loop(bench).turn()
    assert bench.metrics.budget_alerts.values.get((), 0) == 0


async def test_a_budget_that_refuses_near_its_end_counts_as_used_up(bench: Bench) -> None:
    await subscribe(bench)
    key = await KeyStore(bench.database).create(secret="sk-1", name="ci", budget=TEN)
    scope = f"key:{key.id}"
    loop = a_loop(bench, webhooks={"budget_thresholds": [100]})
    tasks = BackgroundTasks()
    notes = RefusalNotes(bench.redis, tasks.spawn)
    for _ in range(3):
        notes.note(ORG, scope)
    assert len(tasks) == 1
    await tasks.drain()
    await spend(bench, scope, 7_900_000)
    await loop.turn()
    assert await alerts(bench) == []
    await spend(bench, scope, 9_900_000)
    await loop.turn()
    await loop.turn()
    assert await alerts(bench) == [("ci", 100, "9.9")]


def test_a_refusal_of_an_earlier_period_or_of_a_budget_that_warns_says_nothing() -> None:
    warns = Budget(amount=Decimal(10), on_exhausted="warn")
    found = status(9_900_000)
    assert found.period_start is not None
    late = found.period_start + 1
    for budget, at, reached in ((TEN, late, True), (TEN, found.period_start - 1, False), (warns, late, False)):
        made = alerts_of(ORG, BudgetedScope("org", "organization", ORG, ORG, budget), found, [100], refused_at=at)
        assert bool(made) == reached
        assert all(alert.data["is_refusing"] for alert in made)


def status(spent: int, period: str = "month", at: float = 1_790_000_000) -> BudgetStatus:
    start = None if period == "total" else int(period_start(period, at))
    return BudgetStatus(start, spent, 0, 0, False)


@pytest.mark.parametrize("period", ["day", "week", "month", "total"])
def test_a_new_period_or_amount_is_alerted_again(period: Any) -> None:
    at = 1_790_000_000.0
    later = at if period == "total" else period_end(period, at)
    budget, raised = Budget(amount=Decimal(10), period=period), Budget(amount=Decimal(20), period=period)
    found = [
        alerts_of(ORG, BudgetedScope("org", "organization", ORG, ORG, each), status(20_000_000, period, when), [100])
        for each in (budget, raised)
        for when in (at, later)
    ]
    keys = [alert.key for (alert,) in found]
    assert len(set(keys)) == (2 if period == "total" else 4)
    assert found[0][0].data["spent_percent"] == "200"
    assert (found[0][0].expires is None) == (period == "total")
    assert found[0][0].data["period_end"] == found[1][0].data["period_start"]
