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
from collections.abc import AsyncIterator
from dataclasses import dataclass
from decimal import Decimal

import httpx
import pytest
from tests.faults import accounts, books
from tests.faults.asking import Answer, Shape, ask
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
AWAY = "503 limits_unavailable"
LIMITED = "429 rate_limit_exceeded"
"""A tenth of a limit passes where Redis is away."""


SHORT = Shape("chat", max_tokens=3)
PATIENCE = 15.0
"""Seconds that no request may take, on a machine with time for it: what is asked of an engine takes 0.3."""


@dataclass(frozen=True, slots=True)
class Callers:
    """Three keys and their traffic."""

    stack: Stack
    keys: tuple[Key, ...]
    free: Traffic
    limited: Traffic
    paying: Traffic
    before: list[Answer]
    """What the third was answered until its budget was known."""

    @property
    def all(self) -> tuple[Traffic, ...]:
        return (self.free, self.limited, self.paying)

    @contextlib.asynccontextmanager
    async def around(self, fault: str) -> AsyncIterator[None]:
        """All are answered before and, whatever was done inside, after."""
        async with contextlib.AsyncExitStack() as entered:
            for traffic in self.all:
                await entered.enter_async_context(traffic.around(fault))
            yield

    def outcomes(self) -> tuple[set[str], ...]:
        for traffic in self.all:
            assert traffic.slowest < PATIENCE
        return tuple(set(traffic.outcomes()) for traffic in self.all)

    async def agree(self, sink: OTLPSink, *, emptied: float = 0.0, most_lost: int = 0) -> list[RequestRecord]:
        """Every book says the same. Returns the ledger's rows. `emptied`: Redis lost the traces that waited then;
        `most_lost`: answers that may have no row."""
        stack = self.stack
        await stack.all_settled(seconds=60)
        every = list[RequestRecord]()
        lost = 0
        for key, traffic in zip(self.keys, self.all, strict=True):
            rows = await stack.rows(key)
            every += rows
            tags = {row.user for row in rows}
            answers = traffic.answers + (self.before if traffic is self.paying else [])
            entered = [answer for answer in answers if answer.tag in tags or _is_refused(answer)]
            lost += len(answers) - len(entered)
            if traffic is not self.paying:
                books.check(entered, rows)
                continue
            assert sorted(row.user or "" for row in rows) == sorted(a.tag for a in entered if not _is_refused(a))
            for row in rows:
                assert row.cost == (0 if row.cache == "hit" else books.price_of(row)), row
            assert any(row.cache == "hit" for row in rows)
            assert await accounts.spent(stack, key) == accounts.rounded(rows)
        assert lost <= most_lost
        after = [row for row in every if row.ended > emptied]
        assert await accounts.traced(after, sink) == accounts.total(after)
        return every


def _is_refused(answer: Answer) -> bool:
    return answer.error is not None and answer.error["code"] in books.NO_RECORD


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


async def counted(client: httpx.AsyncClient, outcome: str = "ok", shape: Shape = SHORT) -> list[Answer]:
    """Ask until the worker has counted the key's budget: before, nobody is let in. What came."""
    answers: list[Answer] = []

    async def is_answered() -> bool:
        answers.append(await ask(client, shape, "mixed-two"))
        return answers[-1].outcome == outcome

    await until(is_answered)
    return answers


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
    """For three seconds: as long to a reply's and a lease's time as half a minute is to the defaults'."""
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
        emptied = time.time()
        stack.redis.kill()
        stack.forget_redis()
        await callers.free.answered(10)
        await stack.start(stack.redis)
    free, limited, paying = callers.outcomes()
    assert (free, paying) == ({"ok"}, {"ok", AWAY}) and limited <= {"ok", LIMITED}
    await callers.agree(fault_sink, emptied=emptied, most_lost=8)


async def test_no_budget_is_passed_while_an_empty_redis_knows_none(stack: Stack) -> None:
    """The worker stands still meanwhile: only it can say what was spent."""
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
        for client, outcome in ((poor, AWAY), (rich, AWAY), (other, "ok")):
            answers = [await ask(client, shape, "mixed-two") for _ in range(3)]
            assert {answer.outcome for answer in answers} == {outcome}
        stack.worker.resume()
        await counted(rich)
        told = await counted(poor, "429 insufficient_quota", shape)
        assert {answer.outcome for answer in told} <= {AWAY, "429 insufficient_quota"}
    await stack.all_settled()
    for key in (exhausted, solvent):
        assert await accounts.spent(stack, key) == accounts.rounded(await stack.rows(key))


@pytest.mark.long
async def test_engine_killed(stack: Stack, fault_sink: OTLPSink) -> None:
    """And dying of itself in the middle of an answer, before it is killed once more."""
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
    """All records wait in the stream meanwhile: a fourth book, and no other than the rest."""
    stack = postgres_stack
    async with calling(stack, "database") as callers, callers.around("the database was killed and came back"):
        await asyncio.to_thread(postgres_server.kill)
        await callers.free.answered(25)
        waiting = {record.id: record.cost for record in await accounts.streamed(stack)}
        await stack.start(postgres_server)
    assert callers.outcomes() == ({"ok"}, {"ok"}, {"ok"})
    rows = {row.id: row.cost for row in await callers.agree(fault_sink)}
    assert len(waiting) >= 20 and waiting == {id: rows[id] for id in waiting}
