"""Ten thousand random requests to randomly failing engines: four totals agree.

Records in the stream, ledger, traces and budgets agree to the last decimal. The worker is stopped during each quarter,
so that all records can be read from the stream first; in between, Redis and an engine are killed.
"""

import asyncio
import functools
import random
from decimal import Decimal

import httpx
import pytest
from tests.faults import ledger_check, totals
from tests.faults.budgeted import AWAY, LIMITED, counted
from tests.faults.client import Answer, Shape, ask
from tests.faults.random_faults import FAULTS, MAY_BE
from tests.faults.stack import Key, Stack, until
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.record import RequestRecord
from quarterdeck.settings.limits import Budget, Limits

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(1500)]

REQUESTS = 10_000
ROUNDS = 4
AT_ONCE = 24
LIMITS = Limits(requests_per_minute=10**6, tokens_per_minute=10**9, concurrent_requests=1000)
BUDGETS = (None, Budget(amount=Decimal(10_000), period="total"), Budget(amount=Decimal(1), on_exhausted="warn"))


async def test_ten_thousand_requests_are_one_sum_in_every_book(stack: Stack, fault_sink: OTLPSink) -> None:
    chance = random.Random(6)
    keys = [await stack.key(f"law {n}", LIMITS if n else None, budget=each) for n, each in enumerate(BUDGETS)]
    answers: dict[str, list[Answer]] = {key.id: [] for key in keys}
    clients = {key.id: stack.client(key) for key in keys}
    for key in keys:
        answers[key.id] += await counted(clients[key.id])
    await stack.all_settled()
    settled = [row for key in keys for row in await stack.rows(key)]
    streamed: list[RequestRecord] = []
    async with httpx.AsyncClient() as admin:
        for engine in (stack.a, stack.b):
            config = {"failure-injection-rate": 15, "failure-types": FAULTS, "inter-token-latency": "1ms"}
            (await admin.post(engine.url + "/admin/config", json=config)).raise_for_status()
        for number in range(ROUNDS):
            stack.worker.kill()
            asking = asyncio.create_task(_round(chance, keys, clients, answers))
            await until(functools.partial(_has_come, answers, _count(answers) + 200), seconds=120)
            if number == 1:
                stack.redis.kill()
                await stack.start(stack.redis)
            if number == 2:
                stack.a.kill()
                await stack.start(stack.a)
            await asking
            await until(functools.partial(_is_streamed, stack), seconds=60)
            streamed += await totals.streamed(stack)
            await stack.start(stack.worker)
            await stack.all_settled(seconds=180)
    for client in clients.values():
        await client.aclose()

    rows: list[RequestRecord] = []
    for key, budget in zip(keys, BUDGETS, strict=True):
        assert {answer.outcome for answer in answers[key.id]} <= MAY_BE | {AWAY, LIMITED}
        its = await stack.rows(key)
        ledger_check.check(answers[key.id], its, counters_fail=True)
        if budget is not None:
            assert await totals.spent(stack, key) == totals.rounded(its)
        rows += its
    assert len(rows) >= REQUESTS
    in_traces = await totals.traced(rows, fault_sink, seconds=180)
    assert {row.id: row.cost for row in rows} == {record.id: record.cost for record in [*settled, *streamed]}
    assert totals.total(rows) == in_traces == totals.total(settled) + totals.total(streamed)
    failed = sum(row.status != "ok" for row in rows)
    print(f"{len(rows)} requests, {failed} failed, {sum(row.resumed for row in rows)} resumed: ${totals.total(rows)}")


async def _round(
    chance: random.Random, keys: list[Key], clients: dict[str, httpx.AsyncClient], answers: dict[str, list[Answer]]
) -> None:
    """Send a quarter of the requests with bounded concurrency."""
    left = iter(range(REQUESTS // ROUNDS))

    async def one_after_another() -> None:
        while next(left, None) is not None:
            key = chance.choice(keys)
            while True:
                answer = await ask(clients[key.id], *_asked(chance), deadline=60)
                answers[key.id].append(answer)
                if answer.outcome not in (AWAY, LIMITED):
                    break
                await asyncio.sleep(0.1)  # rejected while Redis is down: retry, as a caller would

    await asyncio.gather(*(one_after_another() for _ in range(AT_ONCE)))


def _asked(chance: random.Random) -> tuple[Shape, str]:
    operation = chance.choice(["chat", "chat", "completions", "embeddings"])
    count = chance.choice(["one", "two", "two", "two"])
    if operation == "embeddings":
        return Shape(operation), f"embed-{count}"
    stream = chance.random() < 0.6
    shape = Shape(operation, stream, stream and chance.random() < 0.5, max_tokens=chance.randint(1, 40))
    return shape, f"mixed-{count}"


def _has_come(answers: dict[str, list[Answer]], count: int) -> bool:
    return _count(answers) >= count


def _count(answers: dict[str, list[Answer]]) -> int:
    return sum(len(each) for each in answers.values())


async def _is_streamed(stack: Stack) -> bool:
    """Wait until every record is in the stream."""
    left = await stack.left()
    return not any(count for name, count in left.items() if name != "stream")
