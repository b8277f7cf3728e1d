"""Reads mixed requests' traces back from Arize Phoenix, and compares them with the ledger."""

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import httpx
import pytest
from tests.faults.budgeted import SHORT
from tests.faults.client import ask
from tests.faults.mixed_requests import Caller
from tests.faults.observed import Platform
from tests.faults.stack import KEPT, PRICE, until
from tests.phoenix import Phoenix
from tests.records import a_record

from quarterdeck.record import RequestRecord


async def priced(platform: Platform, caller: Caller) -> None:
    """Have Phoenix price calls as the platform does, and wait until it does so: it reads prices every few seconds."""
    assert platform.phoenix is not None
    await until(platform.phoenix.answers, seconds=900, what=platform.phoenix.log)
    with httpx.Client(timeout=60) as client:
        api = Phoenix(platform.phoenix.url, client)
        for name in ("mixed-one", "mixed-two", KEPT):
            prices = {f"price_{kind.removesuffix('_input')}": Decimal(price) for kind, price in PRICE.items()}
            await asyncio.to_thread(api.price, a_record(model=name, **prices))

        async def is_priced() -> bool:
            caller.answers.append(await ask(caller.clients[0], SHORT, "mixed-two"))
            trace = caller.answers[-1].headers["x-request-id"].removeprefix("req_")
            spans: list[dict[str, Any]] = []

            def has_come() -> bool:
                spans[:] = [span for span in api.counted() if span["trace"]["traceId"] == trace]
                return any(span["spanKind"] == "llm" for span in spans)

            await until(has_come, seconds=60)
            return any(_cost(span) for span in spans)

        await until(is_priced, seconds=120)


async def check(platform: Platform, rows: Sequence[RequestRecord]) -> None:
    """A trace of each row is in Phoenix, with one root; tokens and its own prices add up to the ledger's."""
    assert platform.phoenix is not None
    stack = platform.stack
    await until(
        lambda: stack.metric("quarterdeck_traces_waiting_records", stack.worker, sink="phoenix") == 0, seconds=900
    )
    by_trace = {row.trace_id: row for row in rows}
    with httpx.Client(timeout=60) as client:
        api = Phoenix(platform.phoenix.url, client)
        await until(
            lambda: api.traces() >= len(rows), seconds=900, what=lambda: f"{api.traces()} traces of {len(rows)}"
        )
        spans = await asyncio.to_thread(api.counted)
        tokens = Counter(await asyncio.to_thread(api.tokens_of_embeddings))
    roots = Counter(span["trace"]["traceId"] for span in spans if span["parentId"] is None)
    assert roots == dict.fromkeys(by_trace, 1)
    for span in spans:
        tokens[span["trace"]["traceId"]] += span["tokenCountTotal"] or 0
    wrong = [
        (tokens[row.trace_id], row) for row in rows if tokens[row.trace_id] != row.input_tokens + row.output_tokens
    ]
    assert not wrong, wrong[:5]
    with_cost = [span for span in spans if _cost(span)]
    expected = sum((by_trace[span["trace"]["traceId"]].cost for span in with_cost), Decimal(0))
    assert sum(map(_cost, with_cost)) == pytest.approx(float(expected), rel=1e-9)
    generated = [row for row in rows if row.operation != "embeddings" and row.cost]
    assert len(generated) - 50 < len(with_cost) <= len(generated)  # those before its prices were known are missing


def _cost(span: Mapping[str, Any]) -> float:
    return (span["costSummary"] or {"total": {"cost": None}})["total"]["cost"] or 0.0
