"""Budgets at their edge and under change: what is spent is within the amount, and all books agree."""

import asyncio
import collections
import json
import random
from decimal import Decimal
from typing import Any

import httpx
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


COUNTS = [None, 0, 1, 5, 40, -1, 1.5, 3.0, 1e3, 2**31, 2**31 - 1, 10**30, "5", True, [5]]
PROMPTS: list[Any] = [
    *("Say it.", "", ["Say it.", "again"], [""], [], [1, 2, 3], [[1, 2], [3]], [[]], [[[1]]], [1, "a"], ["a", [1]]),
    *(None, 5, {"prompt": "a"}, "数" * 50, "9" * 200, ["a"] * 30),
]
CONTENTS: list[Any] = [
    *("Say it.", "", "数" * 50, None, [], [{"type": "text", "text": "Hi"}], [{"text": "Hi"}], [{"type": "text"}]),
    [{"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 4000}}],
]
MEMBERS: dict[str, list[Any]] = {
    "max_tokens": COUNTS,
    "n": [None, 1, 2, 3, 0, -1, 1.5, "2", 10**9],
    "best_of": [None, 1, 3, 5, 0, "2"],
    "echo": [True, False, None, 1],
    "logprobs": [None, True, False, 0, 2, 50, "1"],
    "top_logprobs": [None, 0, 2, 99],
    "min_tokens": [None, 0, 3, -1, 10**9],
    "ignore_eos": [True, False, None],
    "stop": [None, "e", ["a", "b"], [], "x" * 5000, [""], 5],
    "suffix": [None, "end", 5],
    "stream_options": [None, {}, {"include_usage": True}, {"include_usage": False, "continuous_usage_stats": True}, 5],
    "seed": [None, 7, 2**70],
    "temperature": [None, 0, 2, -1, "hot"],
    "user": [None, "u", 5],
    "metadata": [None, {}, {"session_id": "s"}, {"session_id": 5}, 5],
    "return_token_ids": [True, None],
    "MAX_TOKENS": [10**6],
    "n_predict": [10**6],
}


def a_hostile_request(chance: random.Random) -> tuple[str, dict[str, Any]]:
    kind = chance.choice(["chat", "chat", "completions", "completions", "embeddings", "score", "tokenize"])
    asked: dict[str, Any] = {"model": "embed-two" if kind in ("embeddings", "score") else "mixed-two"}
    if chance.random() < 0.5:
        asked["stream"] = chance.choice([True, True, False, None, 1])
    for name, values in MEMBERS.items():
        if chance.random() < 0.12:
            asked[name] = chance.choice(values)
    if kind == "chat":
        roles = chance.choice(["user", "user", "system", "assistant", "tool", "x"])
        asked["messages"] = [{"role": roles, "content": chance.choice(CONTENTS)}] * chance.choice([1, 1, 1, 2, 0])
        if chance.random() < 0.2:
            asked["max_completion_tokens"] = chance.choice(COUNTS)
    elif kind == "score":
        asked |= {"text_1": chance.choice(PROMPTS), "text_2": chance.choice(PROMPTS)}
    else:
        asked["input" if kind == "embeddings" else "prompt"] = chance.choice(PROMPTS)
    path = {"score": "/v1/score", "tokenize": "/tokenize"}.get(kind)
    return path or {"chat": "/v1/chat/completions"}.get(kind, f"/v1/{kind}"), asked


@pytest.mark.long
async def test_whatever_is_asked_costs_no_more_than_is_held_and_leaves_nothing_behind(stack: Stack) -> None:
    chance = random.Random(12)
    key = await stack.key("hostile", budget=a_budget("0.5"))
    statuses: collections.Counter[int] = collections.Counter()

    async def one(client: httpx.AsyncClient) -> None:
        path, asked = a_hostile_request(chance)
        leaves = chance.random() < 0.2
        async with client.stream("POST", path, content=json.dumps(asked), timeout=30) as response:
            statuses[response.status_code] += 1
            # 504: it generates up to the context, for longer than a whole answer may take here.
            assert response.status_code not in (500, 502), (path, asked, await response.aread())
            async for _ in response.aiter_raw():
                if leaves:
                    return

    async with stack.client(key) as client:
        await counted(client)
        for _ in range(20):
            await asyncio.gather(*[one(client) for _ in range(20)])
    assert statuses[200] > 50 and statuses[400] > 50, statuses
    assert stack.under_way() == 0
    rows = await agree(stack, key)
    assert totals.rounded(rows) <= 500_000
