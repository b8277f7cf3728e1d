"""The status of a budget is what the next admission would find."""

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from tests.accounting.spending import a_scope, reserve, settle, trust
from tests.gateway.fakes import CONFIG, Client, FakePipeline, config, parts

from quarterdeck.accounting.budget_status import BudgetReader, BudgetStatus, status_of
from quarterdeck.accounting.layouts import Money
from quarterdeck.accounting.periods import period_number
from quarterdeck.gateway.app import create_app
from quarterdeck.net.redis import Redis
from quarterdeck.settings.limits import Budget
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

NOW = int(datetime(2026, 3, 18, 12, tzinfo=UTC).timestamp())
MARCH = int(datetime(2026, 3, 1, tzinfo=UTC).timestamp())
MONTH = period_number("month", NOW)
BUDGET = Budget(amount=Decimal(10))
BOSS = "sk-qd-boss"


def money(period: int = MONTH, *, kind: str = "month", is_cold: bool = False) -> Money:
    return Money(kind, period, spent=3_000_000, held=500_000, is_cold=is_cold)


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (money(), BudgetStatus(MARCH, 3_000_000, 500_000, 6_500_000, is_counting=False)),
        (money(is_cold=True), BudgetStatus(MARCH, 3_000_000, 500_000, 6_500_000, is_counting=True)),
        (money(MONTH - 1), BudgetStatus(MARCH, 0, 0, 10_000_000, is_counting=False)),
        (money(kind="day"), BudgetStatus(MARCH, 0, 500_000, 9_500_000, is_counting=True)),
        (None, BudgetStatus(MARCH, 0, 0, 10_000_000, is_counting=True)),
    ],
    ids=["in its period", "not counted yet", "of a period that is over", "of another kind of period", "never asked"],
)
def test_a_budget_is_told_in_the_period_that_it_is_in(state: Money | None, expected: BudgetStatus) -> None:
    assert status_of(BUDGET, state, NOW) == expected


def test_nothing_is_left_of_a_budget_that_was_exceeded_and_a_total_began_at_no_time() -> None:
    budget = Budget(amount=Decimal("3.25"), period="total")
    assert status_of(budget, money(0, kind="total"), NOW) == BudgetStatus(None, 3_000_000, 500_000, 0, False)


async def test_admins_see_what_requests_spend_and_hold(redis: Redis, database: Database) -> None:
    store = KeyStore(database)
    key = await store.create(secret=BOSS, name="boss", is_admin=True, budget=Budget(amount=Decimal(1)), team="red")
    file = CONFIG + 'teams: {red: {budget: {amount: "2", period: total}}}\norg: {budget: {amount: "100", period: week}}'
    app = create_app(parts(FakePipeline(config(file)), keys=store, database=database, redis=redis))
    second = int((await redis.call("TIME"))[0])
    periods = {f"key:{key.id}": "month", "team:red": "total", "org": "week"}
    scopes = [a_scope(id, 100_000_000, period=period) for id, period in periods.items()]
    for scope in scopes:
        await trust(redis, scope, period=period_number(periods[scope.id], second))
    over, _ = await reserve(redis, scopes, 250_000)
    await reserve(redis, scopes, 30_000)
    await settle(redis, over, Decimal("0.2"), started=second)

    async def status(path: str) -> Any:
        return (await Client(app, key=BOSS).get(f"/admin/{path}")).json["budget_status"]

    told = {"spent": "0.2", "held": "0.03", "is_counting": False}
    found = [await status(path) for path in (f"keys/{key.id}", "teams/red", "organizations/default")]
    starts = [each.pop("period_start") for each in found]
    assert found == [{**told, "left": left} for left in ("0.77", "1.77", "99.77")]
    assert starts[1] is None
    assert all(start <= second for start in (starts[0], starts[2]))


async def test_without_a_budget_or_without_redis_there_is_nothing_to_tell(redis: Redis) -> None:
    assert await BudgetReader(redis).status("default", "org", None) is None
    assert await BudgetReader(Redis("unix:///nobody/listens/here")).status("default", "org", BUDGET) is None
