"""The worker rolls up what has ended, a bounded number of hours a turn."""

import pytest
from tests.records import a_record

from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.usage_rollups import HOUR, Rollups
from quarterdeck.worker import rollup_loop
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.rollup_loop import HOURS_AT_ONCE, RollupLoop

START = 1_700_000_000 // HOUR * HOUR


class Counting(Rollups):
    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.calls: list[str] = []

    async def advance(self, org: str, now: float) -> bool:
        self.calls.append(org)
        return await super().advance(org, now)


@pytest.mark.parametrize("hours", [3, HOURS_AT_ONCE + 3])
async def test_every_organisation_is_rolled_up_in_turns(database: Database, hours: int) -> None:
    await Ledger(database, clock=lambda: 0.0).insert([a_record(started=START + hour * HOUR) for hour in range(hours)])
    rollups = Counting(database)
    now = START + (hours + 10.0) * HOUR
    loop = RollupLoop(rollups, lambda: ("default", "acme"), Condition("test"), clock=lambda: now)
    await loop.turn()
    assert rollups.calls.count("default") == min(hours + 1, HOURS_AT_ONCE)
    assert rollups.calls.count("acme") == 1
    await loop.turn()
    assert not await rollups.advance("default", now), "nothing is left"


async def test_an_outage_of_the_database_is_a_condition(database: Database) -> None:
    condition = Condition("test")
    await database.close()
    broken = Database("postgresql+asyncpg://nobody@127.0.0.1:1/none", timeout=0.2)
    await RollupLoop(rollup_loop.Rollups(broken), lambda: ("default",), condition).turn()
    assert condition.reason
