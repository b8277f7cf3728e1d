"""Records reach the trace sink at least once, through every outage, at no cost to the ledger."""

import asyncio
import logging
import threading

import pytest
from tests.records import a_record
from tests.telemetry.otlp_sink import OTLPSink
from tests.worker.bench import ALL, SINK, Bench, eventually, has_no_traces, holds, is_empty, running


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
