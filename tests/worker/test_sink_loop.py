"""Records reach the trace sink at least once, through every outage, at no cost to the ledger."""

import asyncio
import logging
import threading

import pytest
from tests.records import a_record
from tests.telemetry.otlp_sink import OTLPSink
from tests.worker.bench import ALL, ORG, SINK, Bench, eventually, has_no_traces, holds, is_empty, running

from quarterdeck import ids
from quarterdeck.telemetry.traces.batches import pack
from quarterdeck.worker.streams import traces_key, traces_size_key


async def test_without_a_sink_nothing_waits_for_one(bench: Bench) -> None:
    await bench.append(a_record())
    async with running(bench.ledger_loop()):
        await eventually(lambda: is_empty(bench))
    assert await bench.waiting_traces() == 0


async def test_every_record_is_a_trace_with_the_ledgers_cost(bench: Bench, sink: OTLPSink) -> None:
    records = [a_record() for _ in range(300)]
    await bench.append(*records)
    bench_b = bench.another()
    async with running(bench.ledger_loop(sinks=[SINK]), bench_b.sink_loop(sink)):
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 300)
        await eventually(lambda: has_no_traces(bench))
    assert sink.complaints == []
    assert {o.trace_id for o in sink.observations.values()} == {record.trace_id for record in records}
    (total,) = await bench.ledger.sum(ALL)
    assert sum(o.total_cost for o in sink.observations.values()) == total.cost
    assert sum(o.total_usage for o in sink.observations.values()) == total.input_tokens + total.output_tokens
    assert bench.metrics.traces_exported.values[(SINK,)] == 300
    await bench_b.blocking.close()


async def test_a_sink_that_is_dead_for_a_while_costs_the_ledger_nothing(
    bench: Bench, sink: OTLPSink, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    sink.stop()
    records = [a_record() for _ in range(20)]
    bench_b = bench.another()
    async with running(bench.ledger_loop(sinks=[SINK]), bench_b.sink_loop(sink)):
        await bench.append(*records)
        await eventually(lambda: is_empty(bench))
        await eventually(lambda: holds(lambda: "the trace sink otlp" in caplog.text))
        assert len(await bench.rows()) == 20
        sink.start()
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 20)
        await eventually(lambda: has_no_traces(bench))
    lines = [r.message for r in caplog.records if r.name == "quarterdeck.worker.conditions"]
    assert len(lines) == 2
    assert lines[1] == "the trace sink otlp: recovered"
    await bench_b.blocking.close()


async def test_a_sink_that_does_not_answer_costs_the_ledger_nothing(bench: Bench, sink: OTLPSink) -> None:
    sink.behaviour.gate = threading.Event()
    bench_b = bench.another()
    async with running(bench.ledger_loop(sinks=[SINK]), bench_b.sink_loop(sink)):
        await bench.append(a_record())
        await asyncio.to_thread(sink.wait_for, lambda s: s.exports == 1)
        await bench.append(*[a_record() for _ in range(20)])
        await eventually(lambda: is_empty(bench))
        sink.behaviour.gate.set()
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 21)
    await bench_b.blocking.close()


async def test_a_trace_that_is_refused_is_dropped_and_counted_and_the_others_arrive(
    bench: Bench, sink: OTLPSink
) -> None:
    records = [a_record() for _ in range(5)]
    sink.behaviour.refuses = lambda span: span.trace_id == records[2].trace_id
    await bench.append(*records)
    bench_b = bench.another()
    async with running(bench.ledger_loop(sinks=[SINK]), bench_b.sink_loop(sink)):
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 4)
        await eventually(lambda: has_no_traces(bench))
    assert bench.metrics.traces_dropped.values[(SINK, "refused")] == 1
    await bench_b.blocking.close()


async def test_a_sink_that_hangs_holds_up_neither_the_ledger_nor_another_sink(bench: Bench, sink: OTLPSink) -> None:
    hung = OTLPSink().start()
    hung.behaviour.gate = threading.Event()
    benches = [bench.another(), bench.another()]
    loops = [
        bench.ledger_loop(sinks=[SINK, "hung"]),
        benches[0].sink_loop(sink),
        benches[1].sink_loop(hung, "hung", timeout=60.0),
    ]
    async with running(*loops):
        await bench.append(*[a_record() for _ in range(600)])
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 600, 60)
        await eventually(lambda: is_empty(bench))
        assert len(await bench.rows()) == 600
        await asyncio.to_thread(hung.wait_for, lambda s: s.exports == 1)
        assert await bench.waiting_traces("hung") == 600
        assert hung.exports == 1
        hung.behaviour.gate.set()
        await asyncio.to_thread(hung.wait_for, lambda s: len(s.observations) == 600, 60)
        await eventually(lambda: has_no_traces(bench, "hung"))
    assert bench.metrics.traces_dropped.values == {}
    hung.stop()
    for each in benches:
        await each.blocking.close()


async def test_what_waits_for_a_sink_that_hangs_is_bounded_in_redis(bench: Bench, sink: OTLPSink) -> None:
    sink.behaviour.status = 503
    bench_b = bench.another()
    async with running(bench.ledger_loop(sinks=[SINK], max_waiting_mb=1), bench_b.sink_loop(sink)):
        for _ in range(5):
            await bench.append(*[a_record(response_id=ids.object_id("chatcmpl")) for _ in range(3000)])
            await eventually(lambda: is_empty(bench), 60)
            size = int(await bench.redis.call("HGET", traces_size_key(ORG, SINK), "bytes"))
            assert size <= 2**20
        assert await bench.redis.call("MEMORY", "USAGE", traces_key(ORG, SINK), "SAMPLES", 0) < 2 * 2**20
        dropped = bench.metrics.traces_dropped.values[(SINK, "overflow")]
        sink.behaviour.status = None
        await eventually(lambda: has_no_traces(bench), 60)
    assert len(sink.observations) == 15_000 - dropped
    assert bench.metrics.traces_exported.values[(SINK,)] == 15_000 - dropped
    assert int(await bench.redis.call("HGET", traces_size_key(ORG, SINK), "bytes")) == 0
    await bench_b.blocking.close()


async def test_what_was_removed_from_the_queue_while_the_sink_failed_is_not_sent(bench: Bench, sink: OTLPSink) -> None:
    sink.behaviour.status = 503
    removed, kept = [a_record() for _ in range(3)], a_record()
    bench_b = bench.another()
    async with running(bench.ledger_loop(sinks=[SINK]), bench_b.sink_loop(sink)):
        await bench.append(*removed)
        await asyncio.to_thread(sink.wait_for, lambda s: s.exports > 0)  # the loop holds some of them
        await eventually(lambda: is_empty(bench))
        for entry_id, _ in await bench.redis.call("XRANGE", traces_key(ORG, SINK), "-", "+"):
            await bench.redis.call("XDEL", traces_key(ORG, SINK), entry_id)
        await bench.append(kept)
        await eventually(lambda: is_empty(bench))
        sink.behaviour.status = None
        await asyncio.to_thread(sink.wait_for, lambda s: kept.trace_id in s.observations)
    assert set(sink.observations) == {kept.trace_id}
    assert bench.metrics.traces_exported.values[(SINK,)] == 1
    await bench_b.blocking.close()


async def test_large_batches_leave_in_several_requests(bench: Bench, sink: OTLPSink) -> None:
    await bench.append(*[a_record() for _ in range(1500)])
    async with running(bench.ledger_loop(sinks=[SINK])):
        await eventually(lambda: is_empty(bench))
    async with running(bench.sink_loop(sink)):
        await asyncio.to_thread(sink.wait_for, lambda s: len(s.observations) == 1500)
        await eventually(lambda: has_no_traces(bench))
    assert 2 <= sink.exports <= 6


async def test_a_batch_that_is_damaged_is_dropped_and_counted_and_the_others_arrive(
    bench: Bench, sink: OTLPSink
) -> None:
    key, size = traces_key(ORG, SINK), traces_size_key(ORG, SINK)
    broken = pack([b"x", b"y"])
    for meta, data, traces in ((b"x", b"y", 3), (broken.meta, b"no deflate", 2)):
        await bench.redis.call("XADD", key, "*", "meta", meta, "data", data, "traces", traces)
        await bench.redis.call("HINCRBY", size, "traces", traces)
    await bench.append(*[a_record() for _ in range(5)])
    async with running(bench.ledger_loop(sinks=[SINK])):
        await eventually(lambda: is_empty(bench))
    async with running(bench.sink_loop(sink)):
        await eventually(lambda: is_empty(bench, key))
    assert len(sink.observations) == 5
    assert bench.metrics.traces_dropped.values == {(SINK, "unreadable"): 3, (SINK, "refused"): 2}
    assert await bench.waiting_traces() == 0
