"""Totals that must agree with the ledger: traces, records in Redis' stream, and spent budgets.

All must agree to the last decimal. Budgets count in 10⁻⁶ $, with each request rounded up.
"""

import asyncio
from collections.abc import Iterable, Sequence
from decimal import Decimal

from tests.faults.stack import ORG, Key, Stack
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.accounting.layouts import read_money
from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.money import microdollars
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord, decode


def total(rows: Iterable[RequestRecord]) -> Decimal:
    return sum((row.cost for row in rows), Decimal(0))


async def traced(rows: Sequence[RequestRecord], sink: OTLPSink, *, seconds: float = 60.0) -> Decimal:
    """The cost in the traces, after each has arrived and matches its row."""
    costs = {row.trace_id: row.cost for row in rows}

    def have_come(sink: OTLPSink) -> bool:
        seen = sink.observations
        return all(trace in seen and seen[trace].total_cost == cost for trace, cost in costs.items())

    await asyncio.to_thread(sink.wait_for, have_come, seconds)
    seen = sink.observations
    return sum((seen[trace].total_cost or Decimal(0) for trace in costs), Decimal(0))


async def streamed(stack: Stack) -> list[RequestRecord]:
    """Records in the stream; of a request first settled as lost, the final one."""
    redis = Redis(stack.redis_url)
    try:
        entries = await redis.call("XRANGE", stream_key(ORG), "-", "+")
    finally:
        await redis.close()
    found: dict[str, RequestRecord] = {}
    for _, fields in entries:
        record = decode(fields[1])
        if record.id not in found or found[record.id].status == "lost":
            found[record.id] = record
    return list(found.values())


async def spent(stack: Stack, key: Key) -> int:
    """The key's spent budget in 10⁻⁶ $, once nothing is held and it is known."""
    redis = Redis(stack.redis_url)
    try:
        money = await read_money(redis, ORG, f"key:{key.id}")
    finally:
        await redis.close()
    assert money is not None and not money.is_cold and money.held == 0, money
    return money.spent


def rounded(rows: Iterable[RequestRecord]) -> int:
    """The expected budget spending for these rows in 10⁻⁶ $."""
    return sum(microdollars(row.cost) for row in rows)
