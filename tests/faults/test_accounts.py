"""Under mixed traffic, one part after another fails: what keys with limits and budgets see, and that all books agree.

Three callers at once, some fifty requests a second: one that nobody counts, one with limits, and one whose budget
denies, with answers that are kept. At the end ledger, traces and the budgets' money in Redis are equal to the last
decimal.
"""

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import AsyncIterator, Set
from dataclasses import dataclass
from decimal import Decimal

import pytest
from tests.faults import ledger_check, totals
from tests.faults.budgeted import AWAY, LIMITED, counted
from tests.faults.client import Answer, Shape, ask
from tests.faults.stack import KEPT, Key, Stack, mixed, until
from tests.faults.traffic import Traffic
from tests.servers import PostgresServer
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.record import RequestRecord
from quarterdeck.settings.limits import Budget, Limits

pytestmark = pytest.mark.faults

LIMITS = Limits(requests_per_minute=60_000, tokens_per_minute=10**8, concurrent_requests=400)
BUDGET = Budget(amount=Decimal(1000), period="total")
KEPT_SHAPES = (Shape("chat"), Shape("chat", stream=True))
PATIENCE = 15.0
"""Upper bound of a request's time in seconds; the engine's part is 0.3."""


@dataclass(frozen=True, slots=True)
class Callers:
    """Three keys with their traffic."""

    stack: Stack
    keys: tuple[Key, ...]
    free: Traffic
    limited: Traffic
    paying: Traffic
    before: list[Answer]
    """Answers to the third key until its budget was known."""

    @property
    def all(self) -> tuple[Traffic, ...]:
        return (self.free, self.limited, self.paying)

    @contextlib.asynccontextmanager
    async def around(self, fault: str) -> AsyncIterator[None]:
        """Assert that all keys are answered before and after the block."""
        async with contextlib.AsyncExitStack() as entered:
            for traffic in self.all:
                await entered.enter_async_context(traffic.around(fault))
            yield

    def outcomes(self) -> tuple[set[str], ...]:
        for traffic in self.all:
            assert traffic.slowest < PATIENCE
        return tuple(set(traffic.outcomes()) for traffic in self.all)

    async def agree(self, sink: OTLPSink, *, emptied: float = 0.0, held: Set[str] = frozenset()) -> list[RequestRecord]:
        """Assert that all totals agree. Returns the ledger's rows. `emptied`: when Redis lost its pending traces, and
        with them the records of the answers tagged `held`."""
        stack = self.stack
        await stack.all_settled(seconds=60)
        every = list[RequestRecord]()
        lost = set[str]()
        for key, traffic in zip(self.keys, self.all, strict=True):
            rows = await stack.rows(key)
            every += rows
            tags = {row.user for row in rows}
            answers = traffic.answers + (self.before if traffic is self.paying else [])
            entered = [answer for answer in answers if answer.tag in tags or _is_refused(answer)]
            lost |= {answer.tag for answer in answers} - {answer.tag for answer in entered}
            if traffic is not self.paying:
                ledger_check.check(entered, rows)
                continue
            assert sorted(row.user or "" for row in rows) == sorted(a.tag for a in entered if not _is_refused(a))
            for row in rows:
                assert row.cost == (0 if row.cache == "hit" else ledger_check.price_of(row)), row
            assert any(row.cache == "hit" for row in rows)
            assert await totals.spent(stack, key) == totals.rounded(rows)
        assert lost <= held
        after = [row for row in every if row.ended > emptied]
        assert await totals.traced(after, sink) == totals.total(after)
        return every


def _is_refused(answer: Answer) -> bool:
    return answer.error is not None and answer.error["code"] in ledger_check.NO_RECORD


@contextlib.asynccontextmanager
async def calling(stack: Stack, name: str) -> AsyncIterator[Callers]:
    keys = (
        await stack.key(f"{name} free"),
        await stack.key(f"{name} limited", LIMITS),
        await stack.key(f"{name} paying", LIMITS, budget=BUDGET),
    )
    questions = itertools.cycle({"messages": [{"role": "user", "content": f"{name} {n}"}]} for n in range(5))
    async with contextlib.AsyncExitStack() as entered:
        free, limited, paying = [await entered.enter_async_context(stack.client(key)) for key in keys]
        before = await counted(paying)
        traffic = (
            Traffic(free, mixed, rate=20),
            Traffic(limited, mixed, rate=15),
            Traffic(paying, lambda shape: KEPT, shapes=KEPT_SHAPES, rate=15, fields=lambda: next(questions)),
        )
        for each in traffic:
            await entered.enter_async_context(each)
        yield Callers(stack, keys, *traffic, before)


@pytest.mark.long
async def test_redis_killed(stack: Stack, fault_sink: OTLPSink) -> None:
    async with calling(stack, "killed") as callers, callers.around("Redis was killed and came back"):
        stack.redis.kill()
        await callers.free.answered(25)
        await callers.limited.answered(15)
        await callers.paying.answered(15, AWAY)
        await stack.start(stack.redis)
    free, limited, paying = callers.outcomes()
    assert (free, paying) == ({"ok"}, {"ok", AWAY}) and limited <= {"ok", LIMITED}
    await callers.agree(fault_sink)


@pytest.mark.long
async def test_redis_paused(stack: Stack, fault_sink: OTLPSink) -> None:
    """For three seconds, which relative to these timeouts is half a minute relative to the defaults."""
    async with calling(stack, "paused") as callers, callers.around("Redis was paused and went on"):
        stack.redis.pause()
        await callers.free.answered(60)
        await callers.paying.answered(30, AWAY)
        stack.redis.resume()
    free, limited, paying = callers.outcomes()
    assert (free, paying) == ({"ok"}, {"ok", AWAY}) and limited <= {"ok", LIMITED}
    await callers.agree(fault_sink)


async def test_redis_restarted_empty(stack: Stack, fault_sink: OTLPSink) -> None:
    async with calling(stack, "emptied") as callers, callers.around("Redis came back empty"):
        held = await stack.lose_redis()
        emptied = time.time()
        await callers.free.answered(10)
        await stack.start(stack.redis)
    free, limited, paying = callers.outcomes()
    assert (free, paying) == ({"ok"}, {"ok", AWAY}) and limited <= {"ok", LIMITED}
    await callers.agree(fault_sink, emptied=emptied, held=held)


async def test_no_budget_is_passed_while_an_empty_redis_knows_none(stack: Stack) -> None:
    """The worker is paused meanwhile; only it can count spending."""
    exhausted = await stack.key("exhausted", budget=Budget(amount=Decimal("0.0006"), period="total"))
    solvent = await stack.key("solvent", budget=BUDGET)
    free = await stack.key("unbudgeted")
    shape = Shape("chat")
    async with stack.client(exhausted) as poor, stack.client(solvent) as rich, stack.client(free) as other:
        await counted(poor)
        await counted(rich)
        while (answer := await ask(poor, shape, "mixed-two")).outcome == "ok":
            pass
        assert answer.outcome == "429 insufficient_quota"
        await stack.all_settled()
        stack.worker.pause()
        stack.redis.kill()
        stack.forget_redis()
        await stack.start(stack.redis)
        await until(lambda: stack.ready()["parts"]["redis"] == "ready" and stack.metric("quarterdeck_redis_up") == 1)
        # At once: those whose budget is unknown wait for it, each as long as for Redis.
        asked = [(client, outcome) for client, outcome in ((poor, AWAY), (rich, AWAY), (other, "ok")) for _ in range(3)]
        answers = await asyncio.gather(*[ask(client, shape, "mixed-two") for client, _ in asked])
        assert [answer.outcome for answer in answers] == [outcome for _, outcome in asked]
        stack.worker.resume()
        await counted(rich)
        told = await counted(poor, "429 insufficient_quota", shape)
        assert {answer.outcome for answer in told} <= {AWAY, "429 insufficient_quota"}
    await stack.all_settled()
    for key in (exhausted, solvent):
        assert await totals.spent(stack, key) == totals.rounded(await stack.rows(key))


@pytest.mark.long
async def test_engine_killed(stack: Stack, fault_sink: OTLPSink) -> None:
    """The engine also crashes in the middle of an answer before it is killed again."""
    async with calling(stack, "engine") as callers, callers.around("an engine was killed and came back"):
        await stack.fault(stack.a, "crash=7")
        assert await stack.ended(stack.a) == 137
        await callers.free.answered(25)
        await stack.start(stack.a)
    assert callers.outcomes() == ({"ok"}, {"ok"}, {"ok"})
    rows = await callers.agree(fault_sink)
    assert any(len(row.attempts) > 1 for row in rows)


@pytest.mark.long
async def test_trace_sink_slow_then_dead(stack: Stack, fault_sink: OTLPSink) -> None:
    async with calling(stack, "sink") as callers:
        fault_sink.behaviour.gate = gate = threading.Event()
        await callers.free.answered(40)
        fault_sink.stop()
        gate.set()
        fault_sink.behaviour.gate = None
        await callers.free.answered(40)
        fault_sink.start()
    assert callers.outcomes() == ({"ok"}, {"ok"}, {"ok"})
    await callers.agree(fault_sink)


@pytest.mark.long
async def test_database_killed(postgres_stack: Stack, postgres_server: PostgresServer, fault_sink: OTLPSink) -> None:
    """All records stay in the stream meanwhile, and their total must agree too."""
    stack = postgres_stack
    async with calling(stack, "database") as callers, callers.around("the database was killed and came back"):
        await asyncio.to_thread(postgres_server.kill)
        await callers.free.answered(25)
        waiting = {record.id: record.cost for record in await totals.streamed(stack)}
        await stack.start(postgres_server)
    assert callers.outcomes() == ({"ok"}, {"ok"}, {"ok"})
    rows = {row.id: row.cost for row in await callers.agree(fault_sink)}
    assert len(waiting) >= 20 and waiting == {id: rows[id] for id in waiting}
