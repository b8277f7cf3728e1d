"""The request log finds what matches, page by page, by an index."""

import threading
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import text
from tests.records import a_record

from quarterdeck.content import Content
from quarterdeck.errors import NotFoundError
from quarterdeck.record import CallerTrace, RequestRecord
from quarterdeck.store import contents, request_log
from quarterdeck.store.contents import ContentStore, unpacked
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.request_log import RequestFilter, RequestLog

ORG = "default"


async def fill(database: Database, *records: RequestRecord) -> RequestLog:
    await Ledger(database).insert(records)
    return RequestLog(database)


async def ids(log: RequestLog, limit: int = 100, **where: Any) -> list[str]:
    return [record.id for record in (await log.page(RequestFilter(org=ORG, **where), limit=limit)).records]


async def test_pages_are_newest_first_and_do_not_move_when_rows_arrive(database: Database) -> None:
    records = [a_record(id=f"req_{n:02}", started=float(n // 3)) for n in range(20)]  # with equal times
    log = await fill(database, *records)
    seen: list[str] = []
    after = None
    for number in range(100):
        page = await log.page(RequestFilter(org=ORG), limit=3, after=after)
        seen += [record.id for record in page.records]
        await Ledger(database).insert([a_record(started=1000.0 + number)])
        if not page.has_more:
            break
        after = page.last
    assert seen == [f"req_{n:02}" for n in range(19, -1, -1)]


async def test_the_cursor_must_be_a_request_of_the_organisation(database: Database) -> None:
    other = a_record(org="acme")
    log = await fill(database, other)
    for id in ("req_0", other.id):
        with pytest.raises(NotFoundError) as caught:
            await log.page(RequestFilter(org=ORG), after=id)
        assert (caught.value.param, caught.value.code) == ("after", "request_not_found")


@pytest.mark.parametrize(
    ("column", "value", "other"),
    [
        *(("key", "key_a", "key_b"), ("team", "red", "blue"), ("model", "m", "n"), ("route", "fast", "")),
        *(("prompt", "greet", None), ("prompt_version", "3", "4"), ("operation", "chat", "score")),
        *(("status", "error", "ok"), ("status", "ok", "lost"), ("error_code", "engine_error", None)),
        *(("http_status", 503, 200), ("user", "u", None), ("session", "s", None), ("cache", "hit", "miss")),
        *(("endpoint", "e#1", "e#2"), ("finish_reason", "length", "stop")),
    ],
)
async def test_a_value_selects_its_requests(database: Database, column: str, value: Any, other: Any) -> None:
    wanted, unwanted = a_record(**{column: value}), a_record(**{column: other})
    log = await fill(database, wanted, unwanted, a_record(**{column: value}, org="acme"))
    assert await ids(log, equal={column: value}) == [wanted.id]


async def test_bounds_of_time_cost_and_latency(database: Database) -> None:
    cheap = a_record(started=100.0, ended=101.0, cost=Decimal("0.00001"))
    dear = a_record(started=200.0, ended=230.5, cost=Decimal("12.5"))
    log = await fill(database, cheap, dear)
    assert await ids(log, since=200.0) == [dear.id]
    assert await ids(log, until=200.0) == [cheap.id]
    assert await ids(log, min_cost=Decimal("0.00002")) == [dear.id]
    assert await ids(log, max_cost=Decimal("0.00001")) == [cheap.id]
    assert await ids(log, min_cost=Decimal("12.5")) == [dear.id]
    assert await ids(log, min_latency=1.5) == [dear.id]
    assert await ids(log, max_latency=1.0) == [cheap.id]


async def test_failures_and_tags(database: Database) -> None:
    failed = a_record(status="cancelled", tags=("ci",))
    fine = a_record(status="ok", tags=("batch", "ci-2"))
    log = await fill(database, failed, fine, a_record(tags=()))
    assert await ids(log, is_error=True) == [failed.id]
    assert failed.id not in await ids(log, is_error=False)
    assert await ids(log, tag="ci") == [failed.id]
    assert await ids(log, tag="batch") == [fine.id]


async def test_tags_of_the_caller_are_found_beside_those_of_the_key(database: Database) -> None:
    tagged = a_record(tags=("ci",), trace=CallerTrace(tags=("beta\0web", "ci", "new")))
    log = await fill(database, tagged, a_record(tags=("ci",)))
    assert await ids(log, tag="new") == [tagged.id]
    assert (await log.retrieve(tagged.id, org=ORG)).tags == ("ci", "beta�web", "new")


def saying(said: str) -> Content:
    return Content(level="full", input=b'{"messages":[]}', output=f'[{{"text":"{said}"}}]'.encode())


async def test_contents_are_unpacked_beside_the_event_loop(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    records = [a_record() for _ in range(3)]
    log, store = await fill(database, *records), ContentStore(database)
    await store.insert([(record, saying("here")) for record in records])
    threads = []

    def noted(side: bytes | None) -> bytes | None:
        threads.append(threading.current_thread())
        return unpacked(side)

    monkeypatch.setattr(request_log, "unpacked", noted)
    monkeypatch.setattr(contents, "unpacked", noted)
    assert len(await ids(log, text="here")) == 3
    assert len(await store.retrieve([record.id for record in records], org=ORG)) == 3
    assert threads and threading.main_thread() not in threads


async def test_a_text_is_found_in_stored_content_without_regard_to_case(database: Database) -> None:
    records = [a_record(started=float(n), content="full") for n in range(5)]
    log = await fill(database, *records, a_record(started=9.0))
    store = ContentStore(database)
    await store.insert([(record, saying(f"Straße {n % 2}")) for n, record in enumerate(records)])
    assert await ids(log, text="STRASSE 1") == [records[3].id, records[1].id]
    assert await ids(log, text="strasse", limit=2) == [records[4].id, records[3].id]
    assert await ids(log, text='no "such" thing') == []


async def test_a_search_that_finds_little_stops_and_goes_on(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from quarterdeck.store import request_log

    monkeypatch.setattr(request_log, "TEXTS_AT_ONCE", 3)
    monkeypatch.setattr(request_log, "MAX_TEXTS", 6)
    records = [a_record(started=float(n), content="full") for n in range(20)]
    log = await fill(database, *records)
    await ContentStore(database).insert(
        [(record, saying("needle" if n == 2 else "hay")) for n, record in enumerate(records)]
    )
    found, pages, after = [], 0, None
    while True:
        page = await log.page(RequestFilter(org=ORG, text="needle"), limit=5, after=after)
        found += [record.id for record in page.records]
        pages += 1
        if not page.has_more:
            break
        after = page.last
    assert (found, pages) == ([records[2].id], 4)


FILTERS: list[tuple[str, dict[str, Any]]] = [
    ("ix_ledger_failed_org_started", {"is_error": True}),
    ("ix_ledger_org_started_id", {}),
    ("ix_ledger_org_key_started", {"equal": {"key": "rare"}}),
    ("ix_ledger_org_team_started", {"equal": {"team": "rare"}}),
    ("ix_ledger_org_model_started", {"equal": {"model": "rare"}}),
    ("ix_ledger_failed_org_started", {"equal": {"status": "error"}}),
    ("ix_ledger_org_error_code_started", {"equal": {"error_code": "rare"}}),
    ("ix_ledger_org_route_started", {"equal": {"route": "rare"}}),
    ("ix_ledger_org_prompt_started", {"equal": {"prompt": "rare"}}),
    ("ix_ledger_org_user_started", {"equal": {"user": "rare"}}),
    ("ix_ledger_org_session_started", {"equal": {"session": "rare"}}),
]


async def test_a_page_is_found_by_an_index_on_sqlite(sqlite_url: str) -> None:
    database = Database(sqlite_url)
    await database.migrate()
    for index, where in FILTERS:
        (plan,) = await plans(database, "EXPLAIN QUERY PLAN ", where, start=(1e9, "req_1"))
        assert f"USING INDEX {index}" in plan, (index, plan)
        assert "SCAN" not in plan
    await database.close()


async def test_a_page_is_found_by_an_index_on_postgres(postgres_url: str) -> None:
    database = Database(postgres_url, timeout=60.0)
    await database.migrate()
    record = a_record(status="ok", route="", user=None, session=None)
    await Ledger(database).insert([record])
    copies = """
        INSERT INTO ledger SELECT (jsonb_populate_record(ledger, jsonb_build_object('id', 'req_' || n, 'started', n))).*
        FROM ledger, generate_series(1, 10000) AS n WHERE ledger.id = :id
    """
    async with database.begin() as connection:
        await connection.execute(text(copies), {"id": record.id})
        rare = ("error_code", "route", "prompt", "key", '"user"', "session", "model", "team")
        changes = ", ".join(f"{name} = 'rare'" for name in rare)
        one_in_a_thousand = "CAST(started AS BIGINT) % 1000 = 1"
        await connection.execute(text(f"UPDATE ledger SET status = 'error', {changes} WHERE {one_in_a_thousand}"))
        await connection.execute(text("ANALYZE ledger"))
    for index, where in FILTERS:
        (plan,) = await plans(database, "EXPLAIN ", where, start=(9_000.0, "req_1"))
        assert f"using {index}" in plan or f"on {index}" in plan, (index, plan)
        assert "Seq Scan" not in plan
    await database.close()


async def plans(database: Database, explain: str, *filters: dict[str, Any], start: tuple[float, str]) -> list[str]:
    found = []
    async with database.connect() as connection:
        for where in filters:
            query = RequestLog(database).query(RequestFilter(org=ORG, **where), 51, start)
            dialect = connection.dialect
            statement = str(query.compile(dialect=dialect, compile_kwargs={"literal_binds": True}))
            rows = (await connection.exec_driver_sql(explain + statement)).all()
            found.append("\n".join(str(row) for row in rows))
    return found
