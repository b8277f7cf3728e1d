"""The other books beside the ledger: traces, the records in Redis' stream, and the money that budgets have spent.

Each must agree with the ledger to the last decimal; budgets count in 10⁻⁶ $, each request rounded up.
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
    """What their traces cost, when each has come and says what its row says."""
    costs = {row.trace_id: row.cost for row in rows}

    def have_come(sink: OTLPSink) -> bool:
        seen = sink.observations
        return all(trace in seen and seen[trace].total_cost == cost for trace, cost in costs.items())

    await asyncio.to_thread(sink.wait_for, have_come, seconds)
    seen = sink.observations
    return sum((seen[trace].total_cost or Decimal(0) for trace in costs), Decimal(0))


async def streamed(stack: Stack) -> list[RequestRecord]:
    """The records that wait for the worker; where one counted as lost first, the truth."""
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
    """What the key's budget says, 10⁻⁶ $. Nothing is held any more, and it is trusted."""
    redis = Redis(stack.redis_url)
    try:
        money = await read_money(redis, ORG, f"key:{key.id}")
    finally:
        await redis.close()
    assert money is not None and not money.is_cold and money.held == 0, money
    return money.spent


def rounded(rows: Iterable[RequestRecord]) -> int:
    """What a budget counts for these, 10⁻⁶ $."""
    return sum(microdollars(row.cost) for row in rows)
