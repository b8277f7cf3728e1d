"""Reports over roll-ups are those over the ledger, whatever came late."""

import asyncio
import random
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import delete, func, select
from tests.records import a_record

from quarterdeck.record import RequestRecord
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.store.ledger_tables import ledger as ledger_table
from quarterdeck.store.usage import GroupBy, Usage
from quarterdeck.store.usage_rollups import CLOSE_SECONDS, HOUR, Rollups, split
from quarterdeck.store.usage_tables import usage_late_hours, usage_rollups

START = 1_700_000_000 // HOUR * HOUR
NOW = START + 12 * HOUR
DAY = 24 * HOUR

times = st.one_of(st.none(), st.integers(0, 40 * HOUR).map(float), st.floats(0, 40 * HOUR))


@given(times, times, st.integers(0, 30), st.sets(st.integers(0, 40)))
def test_every_moment_of_a_range_is_read_once(
    since: float | None, until: float | None, rolled: int, late: set[int]
) -> None:
    found = split(since, until, rolled * HOUR, {hour * HOUR for hour in late})
    if found.rolled is not None:
        assert all(edge is None or edge % HOUR == 0 for edge in found.rolled)
    marks = {
        0.0,
        1.5,
        40.0 * HOUR,
        *(float(hour * HOUR) for hour in range(42)),
        *(hour * HOUR + 7.0 for hour in range(42)),
    }
    for moment in marks | {each for each in (since, until) if each is not None}:
        hour = moment // HOUR * HOUR
        is_rolled = found.rolled is not None and hour not in found.late and _within(hour, *found.rolled)
        reads = is_rolled + sum(_within(moment, *each) for each in found.raw)
        assert reads == _within(moment, since, until), moment
        assert not is_rolled or (hour < rolled * HOUR and hour / HOUR not in late)


def _within(moment: float, since: float | None, until: float | None) -> bool:
    return (since is None or moment >= since) and (until is None or moment < until)


def some(count: int, seed: int, **fields: object) -> list[RequestRecord]:
    """Records of ten hours before NOW, of few teams, keys and models."""
    dice = random.Random(seed)
    return [
        a_record(
            started=START + dice.random() * 10 * HOUR,
            team=dice.choice(["red", "blue"]),
            key=dice.choice(["key_1", "key_2"]),
            model=dice.choice(["m", "n"]),
            prompt=dice.choice([None, "greeting"]),
            prompt_version=dice.choice([None, "3"]),
            status=dice.choice(["ok", "error", "lost"]),
            cost=Decimal(dice.randrange(10**9)).scaleb(-12),
            **fields,
        )
        for _ in range(count)
    ]


async def rolled_up(rollups: Rollups, now: float = NOW, org: str = "default") -> None:
    while await rollups.advance(org, now):
        pass


REPORTS: list[tuple[dict[str, object], tuple[GroupBy, ...], int | None]] = [
    ({}, (), None),
    ({}, ("model",), HOUR),
    ({}, ("team", "key", "status"), DAY),
    ({}, ("prompt", "prompt_version"), None),
    ({"since": START + 1234.5, "until": START + 7 * HOUR + 99.0}, ("model",), HOUR),
    ({"since": START + 2.0 * HOUR, "until": START + 3.0 * HOUR}, ("operation", "route"), None),
    ({"team": "red", "model": "m"}, ("key",), HOUR),
    ({"user": "someone"}, ("model",), HOUR),
    ({}, ("user", "endpoint"), DAY),
    ({"since": START + 100.0, "until": START + 2000.0}, ("model",), 60),
]


async def reports(ledger: Ledger) -> list[list[Usage]]:
    return [
        await ledger.sum(LedgerFilter(org="default", **where), by=by, bucket_seconds=seconds)  # type: ignore[arg-type]
        for where, by, seconds in REPORTS
    ]


async def test_reports_are_equal_before_and_after_and_with_late_records(database: Database) -> None:
    ledger, rollups = Ledger(database, clock=lambda: NOW), Rollups(database)
    plain = Ledger(database, clock=lambda: 0.0)  # marks nothing, as for records that are on time
    first = some(300, 1)
    await plain.insert(first)
    before = await reports(ledger)
    await rolled_up(rollups)
    assert await reports(ledger) == before
    finals = [
        a_record(**{**_fields(record), "status": "ok", "cost": Decimal("0.5")})
        for record in first
        if record.status == "lost"
    ][:20]
    await ledger.insert([*some(100, 2), *finals])
    late = await reports(ledger)
    assert late != before
    await rolled_up(rollups)
    async with database.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(usage_late_hours)) == 0
    assert await reports(ledger) == late
    total = sum((row.cost for row in await ledger.list(LedgerFilter(org="default"), limit=1000)), Decimal(0))
    assert late[0][0].cost == total, "to the last digit"


@pytest.mark.parametrize(
    ("inserting", "rolling"),
    [(-3 * HOUR, 0), (0, 5 * HOUR)],
    ids=["an inserting worker's back", "a rolling one's ahead"],
)
async def test_reports_are_exact_where_a_workers_clock_was_wrong(
    database: Database, inserting: float, rolling: float
) -> None:
    moment = START + 12 * HOUR
    await Ledger(database, clock=lambda: NOW).insert(some(50, 1))
    await rolled_up(Rollups(database), now=moment + rolling)
    late = [a_record(id=f"req_late_{n}", started=START + 9 * HOUR + n, cost=Decimal("0.25")) for n in range(3)]
    late += [a_record(id=f"req_on_time_{n}", started=moment - 60 - n, cost=Decimal("0.5")) for n in range(3)]
    await Ledger(database, clock=lambda: moment + inserting).insert(late)
    found = await reports(Ledger(database))
    assert sum(each.requests for each in found[0]) == 56
    await rolled_up(Rollups(database), now=moment + 3 * HOUR)
    assert await reports(Ledger(database)) == found
    async with database.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(usage_late_hours)) == 0


def _fields(record: RequestRecord) -> dict[str, object]:
    return {name: getattr(record, name) for name in RequestRecord.__struct_fields__}


async def test_a_report_of_whole_hours_reads_no_request(database: Database) -> None:
    ledger, rollups = Ledger(database, clock=lambda: 0.0), Rollups(database)
    await ledger.insert(some(50, 3))
    where = LedgerFilter(org="default", since=float(START), until=START + 10.0 * HOUR)
    before = await ledger.sum(where, by=("model",), bucket_seconds=DAY)
    await rolled_up(rollups)
    async with database.begin() as connection:
        await connection.execute(delete(ledger_table))
    assert await ledger.sum(where, by=("model",), bucket_seconds=DAY) == before


async def test_hours_that_have_not_ended_long_enough_are_not_rolled_up(database: Database) -> None:
    ledger, rollups = Ledger(database, clock=lambda: 0.0), Rollups(database)
    await ledger.insert([a_record(started=float(START)), a_record(started=START + 3.0 * HOUR)])
    await rolled_up(rollups, now=START + CLOSE_SECONDS + HOUR - 1)
    async with database.connect() as connection:
        assert (await connection.scalars(select(usage_rollups.c.hour))).all() == []
    await rolled_up(rollups, now=START + CLOSE_SECONDS + HOUR)
    async with database.connect() as connection:
        assert (await connection.scalars(select(usage_rollups.c.hour))).all() == [START]


async def test_an_organisation_without_requests_has_nothing_to_roll_up(database: Database) -> None:
    assert not await Rollups(database).advance("empty", NOW)
    assert await Ledger(database).sum(LedgerFilter(org="empty")) == []


async def test_organisations_do_not_mix(database: Database) -> None:
    ledger, rollups = Ledger(database, clock=lambda: 0.0), Rollups(database)
    await ledger.insert([*some(20, 4), *some(30, 5, org="acme")])
    await rolled_up(rollups)
    await rolled_up(rollups, org="acme")
    totals = [(await ledger.sum(LedgerFilter(org=org)))[0].requests for org in ("default", "acme")]
    assert totals == [20, 30]


async def test_inserts_and_roll_ups_at_once_lose_nothing(database: Database) -> None:
    ledger, rollups = Ledger(database, clock=lambda: NOW), Rollups(database)
    batches = [some(20, seed) for seed in range(10)]
    await ledger.insert(batches[0])
    await asyncio.gather(*(ledger.insert(batch) for batch in batches[1:]), rolled_up(rollups), rolled_up(rollups))
    await rolled_up(rollups)
    (total,) = await ledger.sum(LedgerFilter(org="default"))
    assert total.requests == 200
    async with database.connect() as connection:
        assert await connection.scalar(select(func.sum(usage_rollups.c.requests))) == 200


@pytest.mark.parametrize("minutes", [1, 59])
async def test_a_record_on_time_marks_nothing(database: Database, minutes: int) -> None:
    await Ledger(database, clock=lambda: NOW).insert([a_record(started=NOW - 60.0 * minutes)])
    async with database.connect() as connection:
        assert await connection.scalar(select(func.count()).select_from(usage_late_hours)) == 0
