"""Budgets at their edge and under change: what is spent is within the amount, and all books agree."""

import asyncio
import random
from decimal import Decimal

import pytest
from tests.faults import totals
from tests.faults.budgeted import counted
from tests.faults.client import Answer, Shape, ask
from tests.faults.stack import ORG, PRICE, Key, Stack

from quarterdeck.money import microdollars
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord
from quarterdeck.settings.limits import Budget

pytestmark = pytest.mark.faults

OVER = "429 insufficient_quota"
STREAM = Shape("chat", stream=True)
SHAPES = (Shape("chat"), STREAM, Shape("completions"), Shape("completions", stream=True))


def a_budget(amount: str) -> Budget:
    return Budget(amount=Decimal(amount), period="total")


async def agree(stack: Stack, key: Key) -> list[RequestRecord]:
    """Assert that the ledger and the key's money in Redis agree once nothing is held. Returns the rows."""
    await stack.all_settled(seconds=60)
    rows = await stack.rows(key)
    assert await totals.spent(stack, key) == totals.rounded(rows)
    return rows


async def test_fifty_requests_at_once_at_the_edge_of_a_budget_spend_no_more_than_it_has(stack: Stack) -> None:
    key = await stack.key("edge", budget=a_budget("0.02"))
    chance = random.Random(5)
    async with stack.client(key) as client:
        await counted(client)
        outcomes: set[str] = set()
        for _ in range(6):
            leaves = [chance.choice([None, 1, 3]) for _ in range(50)]
            answers = await asyncio.gather(
                *[ask(client, chance.choice(SHAPES), "mixed-two", leaves_after=left) for left in leaves]
            )
            outcomes |= {answer.outcome for answer in answers}
    assert outcomes == {"ok", "left", OVER}
    rows = await agree(stack, key)
    assert sum(microdollars(row.cost) for row in rows) <= 20_000
    assert sum(microdollars(row.cost) for row in rows) > 5_000  # holds do not keep what there is from being used


async def test_a_price_that_changes_applies_to_requests_that_begin_after_it(stack: Stack) -> None:
    key = await stack.key("price", budget=a_budget("10"))
    async with stack.client(key) as client:
        await counted(client)
        begun = asyncio.Event()
        running = asyncio.create_task(ask(client, STREAM, "mixed-two", begun=begun, max_tokens=300))
        await begun.wait()
        dearer = stack.configuration().replace(f"output: '{PRICE['output']}'", "output: '150'")
        assert dearer != stack.configuration()
        await stack.configure(dearer)
        after = await ask(client, STREAM, "mixed-two")
        before = await running
    assert (before.outcome, after.outcome) == ("ok", "ok")
    rows = {row.user: row for row in await agree(stack, key)}
    assert (rows[before.tag].price_output, rows[after.tag].price_output) == (Decimal(15), Decimal(150))
    for row in rows.values():
        assert row.price_output is not None
        assert row.cost >= row.output_tokens * row.price_output / 10**6


async def test_a_revoked_keys_running_requests_are_settled(stack: Stack) -> None:
    key = await stack.key("revoked", budget=a_budget("10"))
    async with stack.client(key) as client:
        await counted(client)
        begun = [asyncio.Event() for _ in range(10)]
        running = [asyncio.create_task(ask(client, STREAM, "mixed-two", begun=each, max_tokens=200)) for each in begun]
        await asyncio.gather(*[each.wait() for each in begun])
        await stack.revoke(key)
        answers = await asyncio.gather(*running)
        refused = await ask(client, STREAM, "mixed-two")
    assert {answer.outcome for answer in answers} == {"ok"}
    assert refused.status == 401
    assert len(await agree(stack, key)) >= 10


@pytest.mark.parametrize("how", ["flushed", "paused"])
@pytest.mark.long
async def test_redis_is_emptied_while_requests_run_and_the_budget_is_counted_anew(stack: Stack, how: str) -> None:
    key = await stack.key(how, budget=a_budget("10"))
    async with stack.client(key) as client:
        await counted(client)
        begun = [asyncio.Event() for _ in range(10)]
        running = [asyncio.create_task(ask(client, STREAM, "mixed-two", begun=each, max_tokens=400)) for each in begun]
        await asyncio.gather(*[each.wait() for each in begun])
        if how == "flushed":
            redis = Redis(stack.redis_url)
            await redis.call("FLUSHDB")
            await redis.close()
        else:
            stack.redis.pause()
            await asyncio.sleep(3)
            stack.redis.resume()
        answers = await asyncio.gather(*running)
        later: list[Answer] = await counted(client)
    assert {answer.outcome for answer in answers} == {"ok"}
    rows = await agree(stack, key)
    assert {answer.tag for answer in (*answers, later[-1])} <= {row.user for row in rows}


@pytest.mark.long
async def test_a_worker_that_is_away_loses_nothing(stack: Stack) -> None:
    key = await stack.key("worker", budget=a_budget("10"))
    async with stack.client(key) as client:
        await counted(client)
        stack.worker.kill()
        answers = [
            answer
            for _ in range(5)
            for answer in await asyncio.gather(*[ask(client, each, "mixed-two") for each in SHAPES * 10])
        ]
        assert {answer.outcome for answer in answers} == {"ok"}
        await stack.start(stack.worker)
    rows = await agree(stack, key)
    assert {answer.tag for answer in answers} <= {row.user for row in rows}
    assert rows[0].org == ORG
