"""Records reach the ledger once and the trace sink at least once, through every outage."""

import asyncio
import contextlib
import logging
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, replace

import msgspec
import pytest
from sqlalchemy.engine import make_url
from tests.records import a_record
from tests.servers import PostgresServer, RedisServer
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.accounting import admission
from quarterdeck.accounting.admission import Note, Reservation, stream_key
from quarterdeck.accounting.scopes import Counters
from quarterdeck.net.redis import Redis, RedisUnavailableError
from quarterdeck.record import RequestRecord, encode
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.telemetry.otlp import OTLPExporter
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker import loops
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.loops import ExpiryLoop, LedgerLoop, TraceLoop
from quarterdeck.worker.streams import Consumer, backlog, dead_key, replay_dead, traces_key

ORG = "default"
ALL = LedgerFilter(org=ORG)
TRACES = 1000


@dataclass
class Bench:
    """A worker's parts around a real Redis and a real database."""

    url: str
    redis: Redis
    blocking: Redis
    database: Database
    metrics: WorkerMetrics
    orgs: list[str]
    states: list[bool]
    """What the database told of itself."""

    def another(self) -> "Bench":
        """The same, with a connection of its own to wait on. Close its `blocking`."""
        return replace(self, blocking=Redis(self.url))

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.database)

    def ledger_loop(self, name: str = "worker_a", *, traces: int = 0, idle_ms: int = 0) -> LedgerLoop:
        return LedgerLoop(
            Consumer(self.redis, "ledger", name, idle_ms=idle_ms),
            self.blocking,
            lambda: self.orgs,
            Condition("the ledger"),
            ledger=self.ledger,
            metrics=self.metrics,
            traces=traces,
        )

    def trace_loop(self, sink: OTLPSink) -> TraceLoop:
        exporter = OTLPExporter(
            sink.endpoint, headers=sink.headers, service_name="quarterdeck", environment="test", timeout=2.0
        )
        return TraceLoop(
            Consumer(self.redis, "traces", "worker_a", idle_ms=0),
            self.blocking,
            lambda: self.orgs,
            Condition("the trace sink"),
            exporter=exporter,
            environment="test",
            metrics=self.metrics,
        )

    async def append(self, *records: RequestRecord) -> None:
        for record in records:
            await self.redis.call("XADD", stream_key(record.org), "*", "record", encode(record))

    async def waiting(self, key: str = stream_key(ORG)) -> int:
        return (await backlog(self.redis, key)).entries

    async def rows(self) -> set[str]:
        return {record.id for record in await self.ledger.list(ALL, limit=10_000)}


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Ask until it is so: what happens in a server tells nobody."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # what is asked lives in another process and sets no event
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(*running_loops: LedgerLoop | TraceLoop) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(loop.run(stop)) for loop in running_loops]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def a_bench(redis_url: str, database_url: str, *, timeout: float = 1.0) -> AsyncIterator[Bench]:
    states: list[bool] = []
    database = Database(database_url, timeout=timeout, on_state=states.append)
    await database.migrate()
    states.clear()
    bench = Bench(redis_url, Redis(redis_url), Redis(redis_url), database, WorkerMetrics(), [ORG], states)
    yield bench
    await bench.redis.close()
    await bench.blocking.close()
    await database.close()


@pytest.fixture(autouse=True)
def short_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for the read under way."""
    monkeypatch.setattr(loops, "BLOCK_MS", 50)


@pytest.fixture
async def bench(redis_url: str, sqlite_url: str) -> AsyncIterator[Bench]:
    """On SQLite, where what is tested is not the database."""
    async with a_bench(redis_url, sqlite_url, timeout=0.2) as subject:
        yield subject


@pytest.fixture
async def any_bench(redis_url: str, database_url: str) -> AsyncIterator[Bench]:
    """On each kind of database in turn."""
    async with a_bench(redis_url, database_url, timeout=5.0) as subject:
        yield subject


@pytest.fixture
def sink() -> Iterator[OTLPSink]:
    subject = OTLPSink().start()
    yield subject
    subject.stop()


async def test_records_become_rows_and_leave_the_stream(any_bench: Bench) -> None:
    bench = any_bench
    records = [a_record() for _ in range(600)]
    await bench.append(*records)
    async with running(bench.ledger_loop()):
        await eventually(lambda: _is_empty(bench))
    assert await bench.rows() == {record.id for record in records}
    assert bench.metrics.rows.values[()] == 600
    assert await bench.redis.call("XINFO", "CONSUMERS", stream_key(ORG), "ledger") == []


async def test_a_record_that_comes_while_the_loop_waits_is_a_row_at_once(bench: Bench) -> None:
    async with running(bench.ledger_loop()):
        for _ in range(3):
            await bench.append(a_record())
            await eventually(lambda: _is_empty(bench))
    assert bench.metrics.rows.values[()] == 3


async def test_a_record_delivered_twice_is_one_row(bench: Bench) -> None:
    record = a_record()
    await bench.append(record, record)
    async with running(bench.ledger_loop()):
        await eventually(lambda: _is_empty(bench))
    assert await bench.rows() == {record.id}
    assert bench.metrics.duplicates.values[()] == 1


async def test_what_a_dead_worker_took_is_taken_over(bench: Bench) -> None:
    records = [a_record() for _ in range(5)]
    await bench.append(*records)
    dead = Consumer(bench.redis, "ledger", "worker_dead", idle_ms=0)
    await dead.join([ORG])
    assert len(await dead.read(bench.blocking, [ORG], count=3, block_ms=10)) == 3
    async with running(bench.ledger_loop("worker_b")):
        await eventually(lambda: _is_empty(bench))
    assert await bench.rows() == {record.id for record in records}


async def test_what_was_trimmed_while_a_dead_worker_had_it_hides_nothing(bench: Bench) -> None:
    """Redis 6.2 keeps such entries pending for ever."""
    key = traces_key(ORG)
    dead = Consumer(bench.redis, "traces", "worker_dead", idle_ms=0)
    await dead.join([ORG])
    for _ in range(30):
        await bench.redis.call("XADD", key, "*", "record", encode(a_record()))
    assert len(await dead.read(bench.blocking, [ORG], count=30, block_ms=10)) == 30
    await bench.redis.call("XTRIM", key, "MAXLEN", 1)
    living = Consumer(bench.redis, "traces", "worker_b", idle_ms=0)
    found = [entry for _ in range(5) for entry in await living.claim(ORG, count=10)]
    assert len({entry.id for entry in found}) == 1


async def test_what_a_dead_worker_entered_and_did_not_acknowledge_is_no_second_row(bench: Bench) -> None:
    record = a_record()
    await bench.append(record)
    dead = Consumer(bench.redis, "ledger", "worker_dead", idle_ms=0)
    await dead.join([ORG])
    await dead.read(bench.blocking, [ORG], count=10, block_ms=10)
    await bench.ledger.insert([record])
    async with running(bench.ledger_loop("worker_b", traces=TRACES)):
        await eventually(lambda: _is_empty(bench))
    (total,) = await bench.ledger.sum(ALL)
    assert (total.requests, total.cost) == (1, record.cost)
    assert await bench.waiting(traces_key(ORG)) == 1  # and its trace is not forgotten


async def test_two_workers_share_the_work_and_hand_each_record_on_once(bench: Bench) -> None:
    records = [a_record() for _ in range(1000)]
    await bench.append(*records)
    # With no idle time at all they take each other's entries over all the time: the worst case.
    bench_b = bench.another()
    async with running(bench.ledger_loop("worker_a", traces=TRACES), bench_b.ledger_loop("worker_b", traces=TRACES)):
        await eventually(lambda: _is_empty(bench))
    assert await bench.rows() == {record.id for record in records}
    assert await bench.waiting(traces_key(ORG)) == 1000
    await bench_b.blocking.close()


@pytest.mark.parametrize(
    "fields",
    [
        ("record", b"no json"),
        ("record", b"\xff\xfe"),
        ("record", b'{"id":"req_1"}'),
        ("record", encode(a_record()).replace(b'"ok"', b'"excellent"')),
        ("other", b"field"),
    ],
    ids=["text", "no utf-8", "half a record", "a status we don't know", "no record"],
)
async def test_what_cannot_be_read_is_set_aside_whole_and_blocks_nothing(
    bench: Bench, fields: tuple[str, bytes], caplog: pytest.LogCaptureFixture
) -> None:
    good = a_record()
    await bench.redis.call("XADD", stream_key(ORG), "*", *fields)
    await bench.append(good)
    async with running(bench.ledger_loop(traces=TRACES)):
        await eventually(lambda: _is_empty(bench))
    assert await bench.rows() == {good.id}
    ((_, kept),) = await bench.redis.call("XRANGE", dead_key(ORG), "-", "+")
    assert fields[1] in kept
    assert kept[1].startswith(b"unreadable: ")
    assert bench.metrics.dead.values[("unreadable",)] == 1
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        "a record was set aside: " + kept[1].decode().removeprefix("unreadable: ")
    ]


async def test_what_the_database_refuses_is_set_aside_and_the_rest_goes_in(any_bench: Bench) -> None:
    bench = any_bench
    records = [a_record() for _ in range(20)]
    records[13] = a_record(input_tokens=2**63)
    await bench.append(*records)
    async with running(bench.ledger_loop()):
        await eventually(lambda: _is_empty(bench))
    assert len(await bench.rows()) == 19
    assert bench.metrics.dead.values[("refused",)] == 1
    assert await bench.waiting(dead_key(ORG)) == 1


async def test_what_was_set_aside_can_be_put_back(bench: Bench) -> None:
    record = a_record()
    await bench.redis.call(
        "XADD", dead_key(ORG), "*", "reason", "unreadable: by an older worker", "entry", "1-1", "record", encode(record)
    )
    assert await replay_dead(bench.redis, ORG) == 1
    assert await bench.waiting(dead_key(ORG)) == 0
    async with running(bench.ledger_loop()):
        await eventually(lambda: _is_empty(bench))
    assert await bench.rows() == {record.id}


async def test_a_new_orgs_records_are_read_too(bench: Bench) -> None:
    async with running(bench.ledger_loop()):
        await bench.append(a_record(org="acme"))
        bench.orgs.append("acme")
        await eventually(lambda: _is_empty(bench, stream_key("acme")))
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
        await eventually(lambda: _holds(lambda: bench.states == [False]))
        assert await bench.waiting() == 1
        other.execute("ROLLBACK")
        other.close()
        await eventually(lambda: _is_empty(bench))
    assert await bench.rows() == {record.id}
    lines = [r.message for r in caplog.records if r.name == "quarterdeck.worker.conditions"]
    assert len(lines) == 2
    assert "locked" in lines[0]
    assert lines[1] == "the ledger: works again"


async def test_with_postgres_stopped_records_wait_until_it_is_back(
    redis_url: str, postgres_server: PostgresServer, postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    records = [a_record() for _ in range(10)]
    async with a_bench(redis_url, postgres_url) as bench:
        async with running(bench.ledger_loop()):
            await bench.append(records[0])
            await eventually(lambda: _is_empty(bench))
            await asyncio.to_thread(postgres_server.stop)
            try:
                await bench.append(*records[1:])
                await eventually(lambda: _holds(lambda: bench.states == [False]))
                assert await bench.waiting() >= 9
            finally:
                postgres_server.start()
            await eventually(lambda: _is_empty(bench))
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
        await eventually(lambda: _holds(lambda: bench.states == [False]))
    other.execute("ROLLBACK")
    other.close()
    assert await bench.waiting() == 1
    async with running(bench.ledger_loop("worker_b")):
        await eventually(lambda: _is_empty(bench))
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
            await eventually(lambda: _answers(bench))
            await bench.append(*records[150:])
            await eventually(lambda: _is_empty(bench))
        assert await bench.rows() == {record.id for record in records}


async def test_an_emptied_redis_gets_its_groups_again(bench: Bench) -> None:
    async with running(bench.ledger_loop()):
        await bench.append(a_record())
        await eventually(lambda: _is_empty(bench))
        await bench.redis.call("FLUSHDB")
        await bench.append(a_record())
        await eventually(lambda: _is_empty(bench))
    assert len(await bench.rows()) == 2


async def test_without_a_sink_nothing_waits_for_one(bench: Bench) -> None:
    await bench.append(a_record())
    async with running(bench.ledger_loop()):
        await eventually(lambda: _is_empty(bench))
    assert await bench.waiting(traces_key(ORG)) == 0


async def test_every_record_is_a_trace_with_the_ledgers_cost(bench: Bench, sink: OTLPSink) -> None:
    records = [a_record() for _ in range(300)]
    await bench.append(*records)
    bench_b = bench.another()
    async with running(bench.ledger_loop(traces=TRACES), bench_b.trace_loop(sink)):
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 300)
        await eventually(lambda: _is_empty(bench, traces_key(ORG)))
    assert sink.complaints == []
    assert {o.trace_id for o in sink.observations.values()} == {record.trace_id for record in records}
    (total,) = await bench.ledger.sum(ALL)
    assert sum(o.total_cost for o in sink.observations.values()) == total.cost
    assert sum(o.total_usage for o in sink.observations.values()) == total.input_tokens + total.output_tokens
    assert bench.metrics.traces_exported.values[()] == 300
    await bench_b.blocking.close()


async def test_a_sink_that_is_dead_for_a_while_costs_the_ledger_nothing(
    bench: Bench, sink: OTLPSink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sink.stop()
    records = [a_record() for _ in range(20)]
    bench_b = bench.another()
    async with running(bench.ledger_loop(traces=TRACES), bench_b.trace_loop(sink)):
        await bench.append(*records)
        await eventually(lambda: _is_empty(bench))
        await eventually(lambda: _holds(lambda: "the trace sink" in caplog.text))
        assert len(await bench.rows()) == 20
        sink.start()
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 20)
        await eventually(lambda: _is_empty(bench, traces_key(ORG)))
    lines = [r.message for r in caplog.records if r.name == "quarterdeck.worker.conditions"]
    assert len(lines) == 2
    assert lines[1] == "the trace sink: works again"
    await bench_b.blocking.close()


async def test_a_sink_that_does_not_answer_costs_the_ledger_nothing(bench: Bench, sink: OTLPSink) -> None:
    sink.behaviour.gate = threading.Event()
    bench_b = bench.another()
    async with running(bench.ledger_loop(traces=TRACES), bench_b.trace_loop(sink)):
        await bench.append(a_record())
        await asyncio.to_thread(sink.wait_for, lambda s: s.exports == 1)
        await bench.append(*[a_record() for _ in range(20)])
        await eventually(lambda: _is_empty(bench))
        sink.behaviour.gate.set()
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 21)
    await bench_b.blocking.close()


async def test_a_backlog_of_traces_is_bounded_and_what_gives_way_is_counted(bench: Bench) -> None:
    records = [a_record() for _ in range(30)]
    await bench.append(*records)
    async with running(bench.ledger_loop(traces=10)):
        await eventually(lambda: _is_empty(bench))
    assert len(await bench.rows()) == 30
    assert await bench.waiting(traces_key(ORG)) == 10
    assert bench.metrics.traces_dropped.values[("overflow",)] == 20


async def test_a_trace_that_is_refused_is_dropped_and_counted_and_the_others_arrive(
    bench: Bench, sink: OTLPSink
) -> None:
    records = [a_record() for _ in range(5)]
    sink.behaviour.refuses = lambda span: span.trace_id == records[2].trace_id
    await bench.append(*records)
    bench_b = bench.another()
    async with running(bench.ledger_loop(traces=TRACES), bench_b.trace_loop(sink)):
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 4)
        await eventually(lambda: _is_empty(bench, traces_key(ORG)))
    assert bench.metrics.traces_dropped.values[("refused",)] == 1
    await bench_b.blocking.close()


async def test_a_request_whose_gateway_died_becomes_a_lost_row(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "GRACE_SECONDS", 0)
    record = a_record(status="lost", finish_reason=None)
    note = msgspec.json.encode(Note(record))
    await admission.reserve(bench.redis, Reservation(record.id, Counters(ORG), note, 100, lease_seconds=0))
    expiry = ExpiryLoop(bench.redis, lambda: bench.orgs, Condition("settling"), bench.metrics)
    await expiry.turn()
    await expiry.turn()
    assert bench.metrics.lost.values[()] == 1
    async with running(bench.ledger_loop()):
        await eventually(lambda: _is_empty(bench))
    assert (await bench.ledger.retrieve(record.id, org=ORG)).status == "lost"


async def test_what_nobody_foresaw_among_the_reservations_does_not_end_the_loop(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    await bench.redis.call("SET", admission.deadlines_key(ORG), "no sorted set")
    expiry = ExpiryLoop(bench.redis, lambda: bench.orgs, Condition("settling"), bench.metrics)
    await expiry.turn()
    assert "settling: " in caplog.text
    await bench.redis.call("DEL", admission.deadlines_key(ORG))
    await expiry.turn()


async def _is_empty(bench: Bench, key: str = stream_key(ORG)) -> bool:
    try:
        return await bench.waiting(key) == 0
    except RedisUnavailableError:
        return False


async def _answers(bench: Bench) -> bool:
    try:
        return bool(await bench.redis.call("PING"))
    except RedisUnavailableError:
        return False


async def _holds(condition: Callable[[], bool]) -> bool:
    return condition()
