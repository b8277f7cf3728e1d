"""Worker killed: callers are not affected; rows and traces arrive later, each once."""

import asyncio
import signal
from decimal import Decimal

import pytest
from tests.faults import ledger_check
from tests.faults.stack import Stack, mixed, signal_to
from tests.faults.traffic import Traffic
from tests.telemetry.otlp_sink import OTLPSink

pytestmark = pytest.mark.faults


@pytest.mark.long
async def test_a_killed_worker_is_noticed_by_nobody_and_loses_nothing(stack: Stack, fault_sink: OTLPSink) -> None:
    key = await stack.key("worker-killed")
    async with (
        stack.client(key) as client,
        Traffic(client, mixed) as traffic,
        traffic.around("the worker was killed and came back"),
    ):
        stack.worker.kill()
        await traffic.answered(12)
        await stack.start(stack.worker)
    assert set(traffic.outcomes()) == {"ok"}
    await stack.all_settled()
    rows = ledger_check.check(traffic.answers, await stack.rows(key))
    traces = {row.trace_id for row in rows.values()}
    await asyncio.to_thread(fault_sink.wait_for, lambda sink: traces <= sink.observations.keys(), 30)
    spent = sum((fault_sink.observations[trace].total_cost for trace in traces), Decimal(0))
    assert spent == sum((row.cost for row in rows.values()), Decimal(0)), "ledger and traces agree to the last digit"


async def test_a_worker_that_is_told_to_end_finishes_and_exits_with_0(stack: Stack) -> None:
    key = await stack.key("worker-ended")
    async with stack.client(key) as client, Traffic(client, mixed) as traffic:
        signal_to(stack.worker, signal.SIGTERM)
        assert await stack.ended(stack.worker) == 0
        await traffic.answered(6)
        await stack.start(stack.worker)
    assert set(traffic.outcomes()) == {"ok"}
    await stack.all_settled()
    ledger_check.check(traffic.answers, await stack.rows(key))


async def test_a_dead_trace_sink_costs_the_ledger_nothing(stack: Stack, fault_sink: OTLPSink) -> None:
    key = await stack.key("sink-dead")
    async with stack.client(key) as client, Traffic(client, mixed) as traffic:
        fault_sink.stop()
        await traffic.answered(40)
    assert set(traffic.outcomes()) == {"ok"}
    await stack.all_settled()
    rows = ledger_check.check(traffic.answers, await stack.rows(key))
    assert stack.metric("quarterdeck_traces_waiting_records", stack.worker) > 0
    fault_sink.start()
    traces = {row.trace_id for row in rows.values()}
    await asyncio.to_thread(fault_sink.wait_for, lambda sink: traces <= sink.observations.keys(), 30)
    spent = sum((fault_sink.observations[trace].total_cost for trace in traces), Decimal(0))
    assert spent == sum((row.cost for row in rows.values()), Decimal(0))
