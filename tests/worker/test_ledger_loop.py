"""Records become rows of the ledger exactly once."""

import logging

import pytest
from tests.records import a_record
from tests.worker.bench import ALL, ORG, TRACES, Bench, eventually, is_empty, running

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.record import encode
from quarterdeck.worker.streams import Consumer, dead_key, traces_key

"""Short, because a stop waits for the current read."""


async def test_records_become_rows_and_leave_the_stream(any_bench: Bench) -> None:
    bench = any_bench
    records = [a_record() for _ in range(600)]
    await bench.append(*records)
    async with running(bench.ledger_loop()):
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id for record in records}
    assert bench.metrics.rows.values[()] == 600
    assert await bench.redis.call("XINFO", "CONSUMERS", stream_key(ORG), "ledger") == []


async def test_a_record_delivered_twice_is_one_row(bench: Bench) -> None:
    record = a_record()
    await bench.append(record, record)
    async with running(bench.ledger_loop()):
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id}
    assert bench.metrics.duplicates.values[()] == 1


async def test_what_a_dead_worker_entered_and_did_not_acknowledge_is_no_second_row(bench: Bench) -> None:
    record = a_record()
    await bench.append(record)
    dead = Consumer(bench.redis, "ledger", "worker_dead", idle_ms=0)
    await dead.join([ORG])
    await dead.read(bench.blocking, [ORG], count=10, block_ms=10)
    await bench.ledger.insert([record])
    async with running(bench.ledger_loop("worker_b", traces=TRACES)):
        await eventually(lambda: is_empty(bench))
    (total,) = await bench.ledger.sum(ALL)
    assert (total.requests, total.cost) == (1, record.cost)
    assert await bench.waiting(traces_key(ORG)) == 1  # and its trace is not forgotten


async def test_two_workers_share_the_work_and_hand_each_record_on_once(bench: Bench) -> None:
    records = [a_record() for _ in range(1000)]
    await bench.append(*records)
    # With no idle time at all they take each other's entries over all the time: the worst case.
    bench_b = bench.another()
    async with running(bench.ledger_loop("worker_a", traces=TRACES), bench_b.ledger_loop("worker_b", traces=TRACES)):
        await eventually(lambda: is_empty(bench))
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
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {good.id}
    ((_, kept),) = await bench.redis.call("XRANGE", dead_key(ORG), "-", "+")
    assert fields[1] in kept
    assert kept[1].startswith(b"unreadable: ")
    assert bench.metrics.dead.values[("unreadable",)] == 1
    assert [r.message for r in caplog.records if r.levelno == logging.ERROR] == [
        "record moved to the dead stream: " + kept[1].decode().removeprefix("unreadable: ")
    ]


async def test_what_the_database_refuses_is_set_aside_and_the_rest_goes_in(any_bench: Bench) -> None:
    bench = any_bench
    records = [a_record() for _ in range(20)]
    records[13] = a_record(input_tokens=2**63)
    await bench.append(*records)
    async with running(bench.ledger_loop()):
        await eventually(lambda: is_empty(bench))
    assert len(await bench.rows()) == 19
    assert bench.metrics.dead.values[("refused",)] == 1
    assert await bench.waiting(dead_key(ORG)) == 1


async def test_a_backlog_of_traces_is_bounded_and_what_gives_way_is_counted(bench: Bench) -> None:
    records = [a_record() for _ in range(30)]
    await bench.append(*records)
    async with running(bench.ledger_loop(traces=10)):
        await eventually(lambda: is_empty(bench))
    assert len(await bench.rows()) == 30
    assert await bench.waiting(traces_key(ORG)) == 10
    assert bench.metrics.traces_dropped.values[("overflow",)] == 20
