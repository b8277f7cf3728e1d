"""The worker as a process: start, status, shutdown, outages, and a kill between row and acknowledgement."""

import asyncio
import json
import os
import signal
import socket
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from sqlalchemy.engine import make_url
from tests.records import a_record
from tests.servers import PostgresServer, RedisServer, wait_until
from tests.telemetry.otlp_sink import PUBLIC_KEY, SECRET_KEY, OTLPSink
from tests.worker.process import WorkerProcess, get

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.net.redis import Redis, RedisError
from quarterdeck.record import RequestRecord, encode
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.worker.streams import dead_key

ALL = LedgerFilter(org="default")
Start = Callable[..., WorkerProcess]


@pytest.fixture
def start(tmp_path: Path, redis_url: str, sqlite_url: str) -> Iterator[Start]:
    """Starts workers; those still running at the end are killed."""
    workers: list[WorkerProcess] = []
    usual = {"QUARTERDECK_REDIS_URL": redis_url, "QUARTERDECK_DATABASE_URL": sqlite_url}

    def one(*arguments: str, **environment: str) -> WorkerProcess:
        worker = WorkerProcess(tmp_path / "state", usual | environment, *arguments)
        workers.append(worker)
        return worker

    yield one
    for worker in workers:
        if worker.process.poll() is None:
            worker.kill()


@pytest.fixture
async def ledger(sqlite_url: str) -> AsyncIterator[Ledger]:
    database = Database(sqlite_url)
    await database.migrate()
    yield Ledger(database)
    await database.close()


async def append(redis: Redis, *records: RequestRecord) -> None:
    for record in records:
        await redis.call("XADD", stream_key("default"), "*", "record", encode(record))


async def pending(redis: Redis) -> int:
    """How many records were delivered and not acknowledged."""
    try:
        return int((await redis.call("XPENDING", stream_key("default"), "ledger"))[0])
    except RedisError:
        return 0  # the worker has not created the group yet


async def until_empty(redis: Redis, key: str = stream_key("default")) -> None:
    async with asyncio.timeout(30):
        while await redis.call("XLEN", key):  # noqa: ASYNC110  # another process empties it
            await asyncio.sleep(0.02)


async def test_it_keeps_the_books_exports_and_ends_with_0(
    start: Start, redis: Redis, ledger: Ledger, sqlite_url: str
) -> None:
    sink = OTLPSink().start()
    worker = start(**sink.environment)
    port = await asyncio.to_thread(worker.wait_until_started)
    records = [a_record() for _ in range(50)]
    await append(redis, *records)
    await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 50)
    assert await asyncio.to_thread(get, port, "/healthz") == (200, '{"status":"ok"}')
    assert (await asyncio.to_thread(get, port, "/nothing"))[0] == 404
    await until_empty(redis)
    await until_empty(redis, "traces:{default}:otlp")
    _, text = await asyncio.to_thread(get, port, "/metrics")
    figures = {s.name: s.value for f in text_string_to_metric_families(text) for s in f.samples}
    assert figures["quarterdeck_ledger_rows_total"] == 50
    assert figures["quarterdeck_traces_exported_total"] == 50
    assert figures["quarterdeck_ledger_waiting_records"] == 0
    assert figures["quarterdeck_redis_up"] == figures["quarterdeck_database_up"] == 1
    assert await asyncio.to_thread(worker.terminate) == 0
    (total,) = await ledger.sum(ALL)
    assert total.requests == 50
    assert sum(o.total_cost for o in sink.observations.values()) == total.cost
    assert {o.environment for o in sink.observations.values()} == {"default"}
    assert not [line for line in worker.lines if line["level"] not in ("info",)]
    sink.stop()


async def test_killed_between_the_rows_and_the_acknowledgement_nothing_is_lost_or_doubled(
    start: Start, own_redis_server: RedisServer, ledger: Ledger, sqlite_url: str
) -> None:
    redis = Redis(own_redis_server.url())
    first = start(QUARTERDECK_REDIS_URL=own_redis_server.url())
    port = await asyncio.to_thread(first.wait_until_started)
    await asyncio.to_thread(wait_until, lambda: get(port, "/readyz")[0] == 200)
    # It has read the records and can't insert them: the database is locked.
    lock = sqlite3.connect(str(make_url(sqlite_url).database), isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    records = [a_record() for _ in range(40)]
    await append(redis, *records)
    async with asyncio.timeout(30):
        while not await pending(redis):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    # Redis hangs, then the lock is released: rows are inserted, and can't be acknowledged.
    own_redis_server.pause()
    lock.execute("ROLLBACK")
    lock.close()
    async with asyncio.timeout(30):
        while not await ledger.list(ALL):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    await asyncio.to_thread(first.kill)
    own_redis_server.resume()
    assert await redis.call("XLEN", stream_key("default")) == 40

    second = start(QUARTERDECK_REDIS_URL=own_redis_server.url())
    await until_empty(redis)
    assert {record.id for record in await ledger.list(ALL, limit=1000)} == {record.id for record in records}
    (total,) = await ledger.sum(ALL)
    assert (total.requests, total.cost) == (40, sum(record.cost for record in records))
    assert await asyncio.to_thread(second.terminate) == 0
    await redis.close()


async def test_started_before_redis_and_database_it_waits_for_both(
    tmp_path: Path, own_redis_server: RedisServer, postgres_server: PostgresServer, postgres_url: str
) -> None:
    own_redis_server.stop()
    postgres_server.stop()
    worker = WorkerProcess(
        tmp_path,
        {"QUARTERDECK_REDIS_URL": own_redis_server.url(), "QUARTERDECK_DATABASE_URL": postgres_url},
    )
    try:
        port = await asyncio.to_thread(worker.wait_until_started)
        assert (await asyncio.to_thread(get, port, "/healthz"))[0] == 200
        status, body = await asyncio.to_thread(get, port, "/readyz")
        assert status == 503
        assert all(state != "ok" for state in json.loads(body)["parts"].values())
    finally:
        postgres_server.start()
        own_redis_server.start()
    redis = Redis(own_redis_server.url())
    record = a_record()
    await append(redis, record)
    await until_empty(redis)
    whole = (200, '{"ready":true,"parts":{"redis":"ok","database":"ok"}}')
    await asyncio.to_thread(wait_until, lambda: get(port, "/readyz") == whole)
    assert await asyncio.to_thread(worker.terminate) == 0
    database = Database(postgres_url)
    assert (await Ledger(database).retrieve(record.id, org="default")) == record
    await database.close()
    await redis.close()


async def test_told_to_end_while_everything_is_away_it_ends(
    start: Start, own_redis_server: RedisServer, sqlite_url: str
) -> None:
    worker = start(QUARTERDECK_REDIS_URL=own_redis_server.url())
    await asyncio.to_thread(worker.wait_until_started)
    await asyncio.to_thread(own_redis_server.kill)
    await asyncio.to_thread(worker.wait_for_line, "Redis")
    assert await asyncio.to_thread(worker.terminate) == 0


async def test_a_config_file_that_is_wrong_does_not_keep_records_from_the_ledger(
    start: Start, redis: Redis, ledger: Ledger, tmp_path: Path
) -> None:
    (tmp_path / "bad.yaml").write_text("models: [")
    worker = start(QUARTERDECK_CONFIG=str(tmp_path / "bad.yaml"))
    await asyncio.to_thread(worker.wait_for_line, "labelling traces with defaults")
    await append(redis, a_record())
    await until_empty(redis)
    assert await asyncio.to_thread(worker.terminate) == 0


async def test_changed_labels_of_traces_hold_without_a_restart(
    start: Start, redis: Redis, ledger: Ledger, tmp_path: Path
) -> None:
    config = "models: []\ntelemetry: {{environment: {}, service_name: {}}}\n"
    path = tmp_path / "quarterdeck.yaml"
    path.write_text(config.format("staging", "one"))
    sink = OTLPSink().start()
    worker = start(QUARTERDECK_CONFIG=str(path), **sink.environment)
    await append(redis, a_record())
    await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 1)
    path.write_text(config.format("production", "other"))
    line = await asyncio.to_thread(worker.wait_for_line, "trace settings changed")
    assert (line["environment"], line["service_name"]) == ("production", "other")
    await append(redis, a_record())
    await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 2)
    assert [observation.environment for observation in sink.observations.values()] == ["staging", "production"]
    path.write_text("models: [")
    await asyncio.to_thread(worker.wait_for_line, "invalid configuration refused")
    assert await asyncio.to_thread(worker.terminate) == 0
    sink.stop()


async def test_opentelemetrys_variables_name_the_service_and_its_environment(
    start: Start, redis: Redis, tmp_path: Path
) -> None:
    path = tmp_path / "quarterdeck.yaml"
    path.write_text("models: []\ntelemetry: {environment: staging, service_name: mine}\n")
    sink = OTLPSink().start()
    attributes = "deployment.environment.name=production,service.name=no,team=a%20b"
    variables = {"OTEL_SERVICE_NAME": "gateway-eu", "OTEL_RESOURCE_ATTRIBUTES": attributes}
    worker = start(QUARTERDECK_CONFIG=str(path), QUARTERDECK_PORT="tcp://10.0.0.1:80", **sink.environment, **variables)
    line = await asyncio.to_thread(worker.wait_for_line, "QUARTERDECK_PORT=tcp://10.0.0.1:80 is a Kubernetes")
    assert line["level"] == "warning"
    await append(redis, a_record())
    await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 1)
    (observation,) = sink.observations.values()
    assert observation.environment == "production"
    resource = sink.spans[-1].resource
    assert (resource["service.name"], resource["team"]) == ("gateway-eu", "a b")
    assert resource["deployment.environment.name"] == "production"
    assert await asyncio.to_thread(worker.terminate) == 0
    sink.stop()


def test_it_yields_the_processor_and_slows_nobody_else_of_its_session(start: Start) -> None:
    group = Path("/proc/self/autogroup")  # Linux shares the processor between sessions, and the tests are one
    before = group.read_text() if group.exists() else ""
    worker = start()
    worker.wait_until_started()
    assert os.getpriority(os.PRIO_PROCESS, worker.process.pid) > os.getpriority(os.PRIO_PROCESS, 0)
    if sys.platform == "linux":
        assert os.sched_getscheduler(worker.process.pid) == os.SCHED_IDLE
    assert (group.read_text() if group.exists() else "") == before
    assert worker.terminate() == 0


def test_without_work_ctrl_c_ends_it_at_once(start: Start) -> None:
    worker = start()
    worker.wait_until_started()
    worker.process.send_signal(signal.SIGINT)
    assert worker.wait() == 0
    assert worker.lines[-1]["message"] == "worker stopped"


def test_a_port_in_use_is_one_line_and_1(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        worker = start(QUARTERDECK_WORKER_PORT=str(taken.getsockname()[1]))
        assert worker.wait() == 1
    (line,) = worker.lines
    assert "in use" in line["message"]


async def test_a_database_of_a_newer_program_is_one_line_and_1(start: Start, ledger: Ledger, sqlite_url: str) -> None:
    with sqlite3.connect(str(make_url(sqlite_url).database)) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    raw.close()
    worker = start()
    assert await asyncio.to_thread(worker.wait) == 1
    assert "another version" in worker.lines[-1]["message"]


async def test_set_aside_records_are_put_back_by_hand(start: Start, redis: Redis) -> None:
    await redis.call("XADD", dead_key("default"), "*", "reason", "x", "entry", "1-1", "record", encode(a_record()))
    worker = start("--replay-dead")
    assert await asyncio.to_thread(worker.wait) == 0
    assert worker.lines[-1]["message"] == "records put back into the stream: 1"
    assert await redis.call("XLEN", stream_key("default")) == 1


async def test_langfuse_by_its_own_variables_and_a_sink_of_the_file_that_is_away(
    start: Start, redis: Redis, tmp_path: Path
) -> None:
    path = tmp_path / "quarterdeck.yaml"
    path.write_text(
        "models: []\ntelemetry: {sinks: [{name: away, url: 'http://127.0.0.1:9/v1/traces', timeout_seconds: 1}]}\n"
    )
    sink = OTLPSink().start()
    variables = {"LANGFUSE_HOST": sink.base_url, "LANGFUSE_PUBLIC_KEY": PUBLIC_KEY, "LANGFUSE_SECRET_KEY": SECRET_KEY}
    worker = start(QUARTERDECK_CONFIG=str(path), **variables)
    port = await asyncio.to_thread(worker.wait_until_started)
    await append(redis, *[a_record() for _ in range(20)])
    await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 20)
    assert sink.complaints == []
    line = await asyncio.to_thread(worker.wait_for_line, "the trace sink away: ")
    assert line["level"] == "warning"
    status, body = await asyncio.to_thread(get, port, "/readyz")
    found = json.loads(body)
    assert (status, found["ready"]) == (200, True)  # records reach the ledger all the same
    assert found["trace_sinks"]["langfuse"] == {"exported": 20, "dropped": {}}
    assert found["trace_sinks"]["away"]["exported"] == 0
    assert "refused" in found["parts"]["traces to away"]
    _, text = await asyncio.to_thread(get, port, "/metrics")
    assert 'quarterdeck_traces_waiting_records{org="default",sink="away"} 20' in text
    assert 'quarterdeck_traces_up{sink="away"} 0' in text
    assert 'quarterdeck_traces_up{sink="langfuse"} 1' in text
    assert SECRET_KEY not in str(worker.lines)
    assert await asyncio.to_thread(worker.terminate) == 0
    sink.stop()
