"""A stream loop survives outages of what it reads from."""

import asyncio
import logging
import sqlite3

import pytest
from sqlalchemy.engine import make_url
from tests.records import a_record
from tests.servers import PostgresServer, RedisServer
from tests.worker.bench import ORG, Bench, a_bench, answers, eventually, holds, is_empty, running

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.store.ledger import LedgerFilter
from quarterdeck.worker.streams import Consumer


async def test_a_record_that_comes_while_the_loop_waits_is_a_row_at_once(bench: Bench) -> None:
    async with running(bench.ledger_loop()):
        for _ in range(3):
            await bench.append(a_record())
            await eventually(lambda: is_empty(bench))
    assert bench.metrics.rows.values[()] == 3


async def test_what_a_dead_worker_took_is_taken_over(bench: Bench) -> None:
    records = [a_record() for _ in range(5)]
    await bench.append(*records)
    dead = Consumer(bench.redis, "ledger", "worker_dead", idle_ms=0)
    await dead.join([ORG])
    assert len(await dead.read(bench.blocking, [ORG], count=3, block_ms=10)) == 3
    async with running(bench.ledger_loop("worker_b")):
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id for record in records}


async def test_a_new_orgs_records_are_read_too(bench: Bench) -> None:
    async with running(bench.ledger_loop()):
        await bench.append(a_record(org="acme"))
        bench.orgs.append("acme")
        await eventually(lambda: is_empty(bench, stream_key("acme")))
    assert len(await bench.ledger.list(LedgerFilter(org="acme"))) == 1


async def test_with_the_sqlite_locked_records_wait_and_one_line_is_logged(
    bench: Bench, sqlite_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    record = a_record()
    other = sqlite3.connect(str(make_url(sqlite_url).database), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    async with running(bench.ledger_loop()):
        await bench.append(record)
        await eventually(lambda: holds(lambda: bench.states == [False]))
        assert await bench.waiting() == 1
        other.execute("ROLLBACK")
        other.close()
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id}
    lines = [r.message for r in caplog.records if r.name == "quarterdeck.worker.conditions"]
    assert len(lines) == 2
    assert "locked" in lines[0]
    assert lines[1] == "the ledger: recovered"


async def test_with_postgres_stopped_records_wait_until_it_is_back(
    redis_url: str, postgres_server: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    records = [a_record() for _ in range(10)]
    async with a_bench(redis_url, postgres_url) as bench:
        async with running(bench.ledger_loop()):
            await bench.append(records[0])
            await eventually(lambda: is_empty(bench))
            await asyncio.to_thread(postgres_server.stop)
            try:
                await bench.append(*records[1:])
                await eventually(lambda: holds(lambda: bench.states == [False]))
                assert await bench.waiting() >= 9
            finally:
                postgres_server.start()
            await eventually(lambda: is_empty(bench))
        assert await bench.rows() == {record.id for record in records}
        assert bench.metrics.rows.values[()] == 10
    lines = [r.message for r in caplog.records if r.name == "quarterdeck.worker.conditions"]
    assert len(lines) == 2


async def test_stopping_while_the_database_is_away_leaves_the_records_in_the_stream(
    bench: Bench, sqlite_url: str
) -> None:
    other = sqlite3.connect(str(make_url(sqlite_url).database), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    record = a_record()
    await bench.append(record)
    async with running(bench.ledger_loop()):
        await eventually(lambda: holds(lambda: bench.states == [False]))
    other.execute("ROLLBACK")
    other.close()
    assert await bench.waiting() == 1
    async with running(bench.ledger_loop("worker_b")):
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id}


async def test_with_redis_killed_and_back_nothing_is_lost_or_doubled(
    own_redis_server: RedisServer, sqlite_url: str
) -> None:
    records = [a_record() for _ in range(300)]
    async with a_bench(own_redis_server.url(), sqlite_url) as bench:
        async with running(bench.ledger_loop()):
            await bench.append(*records[:150])
            await asyncio.to_thread(own_redis_server.stop)
            own_redis_server.start()
            await eventually(lambda: answers(bench))
            await bench.append(*records[150:])
            await eventually(lambda: is_empty(bench))
        assert await bench.rows() == {record.id for record in records}


async def test_an_emptied_redis_gets_its_groups_again(bench: Bench) -> None:
    async with running(bench.ledger_loop()):
        await bench.append(a_record())
        await eventually(lambda: is_empty(bench))
        await bench.redis.call("FLUSHDB")
        await bench.append(a_record())
        await eventually(lambda: is_empty(bench))
    assert len(await bench.rows()) == 2
