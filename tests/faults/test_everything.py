"""Combined faults: engines fail at random while one part after another is killed. All totals agree."""

import asyncio
import signal
from decimal import Decimal

import httpx
import pytest
from tests.faults import ledger_check
from tests.faults.random_faults import FAULTS, MAY_BE
from tests.faults.stack import Stack, mixed, signal_to
from tests.faults.traffic import Traffic
from tests.telemetry.otlp_sink import OTLPSink

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(300)]


async def test_the_books_agree_whatever_happens(stack: Stack, fault_sink: OTLPSink) -> None:
    key = await stack.key("everything")
    async with httpx.AsyncClient() as admin, stack.client(key) as client:
        for simulator in (stack.a, stack.b):
            config = {"failure-injection-rate": 20, "failure-types": FAULTS}
            (await admin.post(simulator.url + "/admin/config", json=config)).raise_for_status()
        async with Traffic(client, mixed, rate=50, deadline=20) as traffic:
            for _ in range(2):
                await traffic.answered(150)
                stack.redis.kill()
                await traffic.answered(50)
                await stack.start(stack.redis)
                await traffic.answered(150)
                stack.worker.kill()
                await traffic.answered(50)
                await stack.start(stack.worker)
                await traffic.answered(150)
                signal_to(stack.redis, signal.SIGSTOP)
                await traffic.answered(100)
                signal_to(stack.redis, signal.SIGCONT)
    assert set(traffic.outcomes()) <= MAY_BE, traffic.outcomes()
    assert traffic.outcomes()["ok"] > 0.85 * len(traffic.answers), traffic.outcomes()
    await stack.all_settled(seconds=60)
    rows = ledger_check.check(traffic.answers, await stack.rows(key), counters_fail=True)
    traces = {row.trace_id for row in rows.values()}
    await asyncio.to_thread(fault_sink.wait_for, lambda sink: traces <= sink.observations.keys(), 60)
    spent = sum((fault_sink.observations[trace].total_cost for trace in traces), Decimal(0))
    assert spent == sum((row.cost for row in rows.values()), Decimal(0))
