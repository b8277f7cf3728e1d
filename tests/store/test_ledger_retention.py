"""Ledger rows deleted by age: usage and budgets are those of before."""

import random
from decimal import Decimal

import pytest
from sqlalchemy import func, select
from tests.records import a_record

from quarterdeck.record import MIRROR, RequestRecord
from quarterdeck.store import ledger_retention
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.store.ledger_retention import HOUR, LedgerRetention
from quarterdeck.store.ledger_tables import ledger as table
from quarterdeck.store.spending import LedgerScope, spending
from quarterdeck.store.usage_rollups import Rollups

START = 1_700_000_000 // HOUR * HOUR
NOW = START + 20 * HOUR
ALL = LedgerFilter(org="default")
SCOPES = (LedgerScope("o", "org", ""), LedgerScope("t", "team", "red"), LedgerScope("k", "key", "key_1"))


def some(count: int, seed: int = 1) -> list[RequestRecord]:
    dice = random.Random(seed)
    return [
        a_record(
            started=START + dice.random() * 10 * HOUR,
            team=dice.choice(["red", "blue"]),
            key=dice.choice(["key_1", "key_2", MIRROR]),
            cost=Decimal(dice.randrange(10**9)).scaleb(-12),
        )
        for _ in range(count)
    ]


async def spent(database: Database, since: float = 0.0) -> dict[str, int]:
    async with spending(database, timeout=5) as snapshot:
        return await snapshot.of("default", SCOPES, since)


async def count(database: Database) -> int:
    async with database.connect() as connection:
        return await connection.scalar(select(func.count()).select_from(table)) or 0


async def rolled_up(database: Database) -> None:
    while await Rollups(database).advance("default", NOW):
        pass


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_retention, "AT_ONCE", 7)


@pytest.mark.usefixtures("small_batches")
async def test_usage_and_budgets_stay_when_rows_are_deleted(database: Database) -> None:
    ledger, retention = Ledger(database, clock=lambda: NOW), LedgerRetention(database)
    records = some(60)
    await ledger.insert(records)
    await rolled_up(database)
    usage = await ledger.sum(ALL, by=("team", "key"), bucket_seconds=HOUR)
    total, later = await spent(database), await spent(database, START + 2 * HOUR)
    before = START + 5 * HOUR + 100  # the hour in which it lies is kept
    deleted = await retention.delete_older(before, org="default")
    assert deleted == sum(record.started < START + 5 * HOUR for record in records)
    assert await count(database) == 60 - deleted
    assert await ledger.sum(ALL, by=("team", "key"), bucket_seconds=HOUR) == usage
    assert await spent(database) == total
    assert await spent(database, START + 2 * HOUR) == later
    assert await retention.delete_older(before, org="default") == 0


async def test_hours_that_are_not_rolled_up_are_kept(database: Database) -> None:
    ledger = Ledger(database, clock=lambda: START)
    await ledger.insert(some(20))
    assert await LedgerRetention(database).delete_older(NOW, org="default") == 0
    assert await LedgerRetention(database).delete_older(NOW, org="another") == 0
    assert await count(database) == 20


async def test_a_record_that_comes_after_its_hour_was_deleted_is_added_once(database: Database) -> None:
    ledger, retention = Ledger(database, clock=lambda: NOW), LedgerRetention(database)
    records = some(40)
    await ledger.insert(records)
    await rolled_up(database)
    await retention.delete_older(START + 9 * HOUR, org="default")
    (before,) = await ledger.sum(ALL)
    total = (await spent(database))["o"]
    late = a_record(started=START + HOUR + 5.0, team="red", key="key_1", cost=Decimal("0.25"))
    await ledger.insert([late])
    await retention.delete_older(START + 9 * HOUR, org="default")  # before it is rolled up
    await rolled_up(database)
    await rolled_up(database)
    (after,) = await ledger.sum(ALL)
    assert (after.requests, after.cost) == (before.requests + 1, before.cost + late.cost)
    assert (await spent(database))["o"] == total + 250_000
    assert await count(database) == sum(record.started >= START + 9 * HOUR for record in records)


async def test_a_late_hour_is_rolled_up_before_it_is_deleted(database: Database) -> None:
    ledger, retention = Ledger(database, clock=lambda: NOW), LedgerRetention(database)
    await ledger.insert(some(40))
    await rolled_up(database)
    late = a_record(started=START + 4 * HOUR + 5.0)
    await ledger.insert([late])
    (usage,) = await ledger.sum(ALL)
    await retention.delete_older(START + 9 * HOUR, org="default")
    assert (await ledger.sum(ALL))[0].requests == usage.requests == 41
    await rolled_up(database)
    await retention.delete_older(START + 9 * HOUR, org="default")
    assert (await ledger.sum(ALL))[0].requests == 41
