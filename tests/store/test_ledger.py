"""Any record becomes one row, however often it is delivered; sums of money are exact."""

import asyncio
import random
from decimal import Decimal

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import text
from tests.records import a_record, records

from quarterdeck.errors import NotFoundError
from quarterdeck.record import TRACE_ONLY, RequestRecord
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger, LedgerFilter, RecordRefusedError
from quarterdeck.store.ledger_insert import FIELDS
from quarterdeck.store.ledger_tables import ledger as ledger_table

ALL = LedgerFilter(org="default")


@pytest.fixture
def ledger(database: Database) -> Ledger:
    return Ledger(database)


async def test_a_record_comes_back_as_it_was(ledger: Ledger) -> None:
    record = a_record()
    assert await ledger.insert([record]) == 1
    assert await ledger.retrieve(record.id, org="default") == record


async def test_the_row_has_a_column_for_every_field_of_the_record() -> None:
    ledger_fields = {*RequestRecord.__struct_fields__, "caller_trace_id"} - set(TRACE_ONLY)
    assert set(FIELDS) == set(ledger_table.columns.keys()) == ledger_fields


# Not shrunk: every example is a transaction, and the first failure says enough.
@settings(
    max_examples=20,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(batch=st.lists(records, min_size=1, max_size=8))
async def test_any_record_comes_back_as_it_was(ledger: Ledger, batch: list[RequestRecord]) -> None:
    assert await ledger.insert(batch) == len(batch)
    for record in batch:
        assert await ledger.retrieve(record.id, org="default") == record


async def test_a_record_delivered_again_is_one_row(ledger: Ledger) -> None:
    first, second = a_record(), a_record()
    assert await ledger.insert([first]) == 1
    assert await ledger.insert([first, second, first]) == 1
    assert await ledger.insert([first, second]) == 0
    (total,) = await ledger.sum(ALL)
    assert total.requests == 2


async def test_what_counted_as_lost_gives_way_to_what_was(ledger: Ledger) -> None:
    guess = a_record(status="lost", output_tokens=3, cost=Decimal(0))
    truth = a_record(id=guess.id, status="ok", output_tokens=11)
    assert await ledger.insert([guess]) == 1
    assert await ledger.insert([guess, truth, guess]) == 1
    assert await ledger.insert([guess]) == 0
    assert await ledger.retrieve(guess.id, org="default") == truth
    both = a_record(status="lost")
    known = a_record(id=both.id, status="cancelled")
    assert await ledger.insert([known, both]) == 1, "whichever comes first"
    assert await ledger.retrieve(both.id, org="default") == known


async def test_the_first_delivery_stands(ledger: Ledger) -> None:
    record = a_record()
    await ledger.insert([record])
    await ledger.insert([a_record(id=record.id, cost=Decimal(99))])
    assert (await ledger.retrieve(record.id, org="default")).cost == record.cost


async def test_two_workers_with_the_same_records_do_not_wait_for_ever(ledger: Ledger) -> None:
    batch = [a_record() for _ in range(200)]
    news = await asyncio.gather(*(ledger.insert(random.sample(batch, len(batch))) for _ in range(4)))
    assert sum(news) == len(batch)


async def test_no_records_is_no_row(ledger: Ledger) -> None:
    assert await ledger.insert([]) == 0
    assert await ledger.sum(ALL) == []


async def test_a_batch_larger_than_a_statement_can_hold_goes_in(ledger: Ledger) -> None:
    assert await ledger.insert([a_record() for _ in range(2500)]) == 2500


async def test_what_a_database_cannot_hold_does_not_lose_the_row(ledger: Ledger) -> None:
    odd = a_record(user="a\x00b", session="s" * 100_000, seed=2**64 - 1, model="m\x00")
    assert await ledger.insert([odd]) == 1
    stored = await ledger.retrieve(odd.id, org="default")
    assert (stored.user, stored.model, stored.seed) == ("a�b", "m�", None)
    assert len(stored.session or "") == 512


async def test_money_is_exact_to_the_last_digit(ledger: Ledger) -> None:
    costs = [Decimal("0.000000000000000001"), Decimal("123456789012.1"), Decimal("0.1"), Decimal("0.2")] * 10
    await ledger.insert([a_record(cost=cost) for cost in costs])
    (total,) = await ledger.sum(ALL)
    assert total.cost == Decimal("1234567890124.00000000000000001")


async def test_money_is_kept_as_numeric_or_as_text_and_never_as_a_float(ledger: Ledger, database: Database) -> None:
    await ledger.insert([a_record(cost=Decimal("0.1"))])
    kind = "typeof" if database.is_sqlite else "pg_typeof"
    async with database.connect() as connection:
        stored = str(await connection.scalar(text(f"SELECT {kind}(cost) FROM ledger")))
    assert stored == ("text" if database.is_sqlite else "numeric")


async def test_sums_are_of_everything_that_is_counted(ledger: Ledger) -> None:
    await ledger.insert([a_record(saved=Decimal("0.1")), a_record(saved=Decimal("0.2"))])
    (total,) = await ledger.sum(ALL)
    assert total.requests == 2
    assert (total.input_tokens, total.cached_tokens, total.output_tokens, total.reasoning_tokens) == (60, 32, 22, 6)
    assert (total.cost, total.saved) == (Decimal("0.0000198"), Decimal("0.3"))


async def test_sums_by_key_model_and_team(ledger: Ledger) -> None:
    await ledger.insert(
        [
            a_record(key="key_a", model="m1", cost=Decimal("0.1")),
            a_record(key="key_a", model="m2", cost=Decimal("0.2")),
            a_record(key="key_b", model="m1", cost=Decimal("0.4"), team="t2"),
        ]
    )
    by_key = await ledger.sum(ALL, by=["key"])
    assert [(usage.group, usage.cost) for usage in by_key] == [
        (("key_a",), Decimal("0.3")),
        (("key_b",), Decimal("0.4")),
    ]
    by_both = await ledger.sum(ALL, by=["model", "key"])
    assert [usage.group for usage in by_both] == [("m1", "key_a"), ("m1", "key_b"), ("m2", "key_a")]
    (team,) = await ledger.sum(LedgerFilter(org="default", team="t2"), by=["team"])
    assert (team.group, team.cost) == (("t2",), Decimal("0.4"))


async def test_sums_by_the_hour(ledger: Ledger) -> None:
    times = [3600.0, 7199.999, 7200.0, 20000.5]
    await ledger.insert([a_record(started=t) for t in times])
    hours = await ledger.sum(ALL, by=["model"], bucket_seconds=3600)
    assert [(hour.bucket, hour.group, hour.requests) for hour in hours] == [
        (3600, ("smollm2",), 2),
        (7200, ("smollm2",), 1),
        (18000, ("smollm2",), 1),
    ]


async def test_since_is_included_and_until_is_not(ledger: Ledger) -> None:
    await ledger.insert([a_record(started=t) for t in (1.0, 2.0, 3.0)])
    found = await ledger.list(LedgerFilter(org="default", since=1.0, until=3.0))
    assert [record.started for record in found] == [2.0, 1.0]


async def test_rows_are_listed_newest_first_in_pieces(ledger: Ledger) -> None:
    batch = [a_record(started=float(i // 2)) for i in range(7)]
    await ledger.insert(batch)
    seen: list[RequestRecord] = []
    while piece := await ledger.list(ALL, limit=3, after=seen[-1].id if seen else None):
        seen += piece
    assert seen == sorted(batch, key=lambda r: (r.started, r.id), reverse=True)


async def test_a_filter_takes_only_what_fits_every_field(ledger: Ledger) -> None:
    wanted = a_record(key="key_a", model="m1", status="error", user="u")
    await ledger.insert([wanted, a_record(key="key_a", model="m2"), a_record(key="key_b", model="m1")])
    where = LedgerFilter(org="default", key="key_a", model="m1", status="error", user="u", operation="chat")
    assert await ledger.list(where) == [wanted]


async def test_another_orgs_rows_are_not_seen(ledger: Ledger) -> None:
    theirs = a_record(org="other")
    await ledger.insert([theirs])
    assert await ledger.list(ALL) == []
    assert await ledger.sum(ALL) == []
    with pytest.raises(NotFoundError):
        await ledger.retrieve(theirs.id, org="default")
    with pytest.raises(NotFoundError):
        await ledger.list(ALL, after=theirs.id)


@pytest.mark.parametrize(
    "changes",
    [
        {"cost": Decimal("NaN")},
        {"input_tokens": 2**70},
        {"team": None},
        {"started": "yesterday"},
        {"model": "\ud800"},
    ],
    ids=str,
)
async def test_what_can_never_be_a_row_is_refused_and_not_an_outage(
    database_url: str, changes: dict[str, object]
) -> None:
    states: list[bool] = []
    database = Database(database_url, on_state=states.append)
    await database.migrate()
    ledger, broken = Ledger(database), a_record()
    for name, value in changes.items():
        setattr(broken, name, value)
    with pytest.raises(RecordRefusedError):
        await ledger.insert([a_record(), broken])
    assert await ledger.list(ALL) == []
    assert states == []
    await database.close()
