"""Records become rows of the ledger exactly once."""

import logging

import pytest
from tests.records import a_record
from tests.worker.bench import ALL, ORG, SINK, Bench, eventually, is_empty, running

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.record import CallerTrace, encode
from quarterdeck.worker.streams import Consumer, dead_key, traces_key, traces_size_key


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
    async with running(bench.ledger_loop("worker_b", sinks=[SINK])):
        await eventually(lambda: is_empty(bench))
    (total,) = await bench.ledger.sum(ALL)
    assert (total.requests, total.cost) == (1, record.cost)
    assert await bench.waiting_traces() == 1  # and its trace is not forgotten


async def test_two_workers_share_the_work_and_hand_each_record_on_once(bench: Bench) -> None:
    records = [a_record() for _ in range(1000)]
    await bench.append(*records)
    # With no idle time at all they take each other's entries over all the time: the worst case.
    bench_b = bench.another()
    async with running(bench.ledger_loop("worker_a", sinks=[SINK]), bench_b.ledger_loop("worker_b", sinks=[SINK])):
        await eventually(lambda: is_empty(bench))
    assert await bench.rows() == {record.id for record in records}
    assert await bench.waiting_traces() == 1000
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
    async with running(bench.ledger_loop(sinks=[SINK])):
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
    count = 15_000
    records = [a_record(user=f"u{number}", response_id=f"chatcmpl-{number}") for number in range(count)]
    await bench.append(*records)
    async with running(bench.ledger_loop(sinks=[SINK, "other"], max_waiting_mb=1)):
        await eventually(lambda: is_empty(bench), 60)
    for sink in (SINK, "other"):
        entries = await bench.redis.call("XRANGE", traces_key(ORG, sink), "-", "+")
        fields = [dict(zip(values[::2], values[1::2], strict=True)) for _, values in entries]
        kept, size = sum(int(each[b"traces"]) for each in fields), sum(len(each[b"data"]) for each in fields)
        assert kept == await bench.waiting_traces(sink) > 0
        assert size <= 2**20
        assert size == int(await bench.redis.call("HGET", traces_size_key(ORG, sink), "bytes"))
        assert bench.metrics.traces_dropped.values[(sink, "overflow")] == count - kept > 0
        assert 0 < await bench.redis.call("TTL", traces_key(ORG, sink)) <= 7 * 24 * 3600


async def test_without_a_sink_no_trace_is_made(bench: Bench) -> None:
    await bench.append(a_record())
    async with running(bench.ledger_loop()):
        await eventually(lambda: is_empty(bench))
    assert await bench.redis.call("KEYS", "traces:*") == []


async def test_requests_are_sampled_by_trace_id_and_failures_always_and_the_rest_is_counted(bench: Bench) -> None:
    failed = [a_record(status="error", http_status=502) for _ in range(20)]
    low = [a_record(id=f"req_{'1' * 16}{number:016x}") for number in range(30)]
    high = [a_record(id=f"req_{'1' * 16}{2**64 - 1 - number:016x}") for number in range(50)]
    await bench.append(*failed, *low, *high)
    async with running(bench.ledger_loop(sinks=[SINK], sampling_ratio=0.001)):
        await eventually(lambda: is_empty(bench))
    assert await bench.waiting_traces() == 50
    assert bench.metrics.traces_unsampled.values[()] == 50
    assert len(await bench.rows()) == 100  # the ledger has every request


async def test_the_callers_flag_decides_where_it_is_told_to(bench: Bench) -> None:
    parent = {"id": "a" * 32, "parent": "b" * 16}
    records = [
        a_record(trace=CallerTrace(is_sampled=False, **parent), status="error", http_status=500),
        a_record(trace=CallerTrace(is_sampled=True, **parent)),
        a_record(),
    ]
    await bench.append(*records)
    async with running(bench.ledger_loop(sinks=[SINK], sampling="parent")):
        await eventually(lambda: is_empty(bench))
    assert await bench.waiting_traces() == 2
    assert bench.metrics.traces_unsampled.values[()] == 1
