"""A canary that breaks a bound is rolled back with the reason, and one that an admin has changed is left alone."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.records import a_record
from tests.worker.bench import ORG, Bench

from quarterdeck.net.redis import Redis
from quarterdeck.net.redis_pubsub import Subscription
from quarterdeck.resources.prompts.changes import CHANNEL, PromptAnnouncer, PromptChange, decode_prompt_change
from quarterdeck.settings.prompts import LabelSpec, PromptSpec
from quarterdeck.store.ledger import Ledger
from quarterdeck.store.prompt_results import PromptResults
from quarterdeck.store.prompt_rows import LabelRow
from quarterdeck.store.prompts import PromptStore
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.prompt_guard_loop import PromptGuardLoop

MINE: dict[str, Any] = {"org": ORG, "author": "key_1"}
CANARY = {
    "split": [{"version": 1, "weight": 90}, {"version": 2, "weight": 10}],
    "guard": {"max_error_rate": 0.2, "max_cost_ratio": 2.0},
}


class Guarded:
    """A prompt with a guarded canary, and its guard."""

    def __init__(self, bench: Bench, redis: Redis) -> None:
        self.ledger = Ledger(bench.database)
        self.store = PromptStore(bench.database)
        self.metrics = WorkerMetrics()
        self.condition = Condition("guard")
        self.loop = PromptGuardLoop(
            self.store,
            PromptResults(bench.database),
            PromptAnnouncer(redis),
            self.condition,
            self.metrics,
        )

    async def begin(self) -> LabelRow:
        await self.store.create("greet", PromptSpec(text="1"), **MINE, labels=["production"])
        await self.store.add_version("greet", PromptSpec(text="2"), **MINE)
        return await self.store.set_label("greet", "production", LabelSpec.model_validate(CANARY), **MINE)

    async def answer(self, version: int, count: int, *, since: float, failed: int = 0, **fields: Any) -> None:
        base = {"prompt": "greet", "prompt_version": str(version), "prompt_label": "production", "status": "ok"}
        name = fields.pop("name", "r")
        records = [
            a_record(
                id=f"req_{name}_{version}_{n}",
                org=ORG,
                started=since + 1 + n,
                ended=since + 2 + n,
                **(base | ({"status": "error"} if n < failed else {}) | fields),
            )
            for n in range(count)
        ]
        await self.ledger.insert(records)

    async def target(self) -> dict[str, Any]:
        id = (await self.store.retrieve("greet", org=ORG)).id
        return (await self.store.labels([id]))[id][0].target


@pytest.fixture
async def guarded(any_bench: Bench, redis: Redis) -> AsyncIterator[Guarded]:
    yield Guarded(any_bench, redis)


async def test_a_broken_bound_rolls_back_with_the_reason(guarded: Guarded) -> None:
    label = await guarded.begin()
    await guarded.answer(1, 100, since=label.updated, failed=2)
    await guarded.answer(2, 60, since=label.updated, failed=40)
    await guarded.loop.turn()
    assert (await guarded.target(), guarded.condition.reason) == ({"version": 1}, "")
    event = (await guarded.store.events("greet", org=ORG, limit=1)).rows[0]
    assert (event.kind, event.author, event.label) == ("label.rolled_back", "worker", "production")
    assert event.reason == "broken bound: max_error_rate 0.2: 40 of 60 requests of version 2 failed"
    assert guarded.metrics.prompt_rollbacks.values == {(): 1}
    await guarded.loop.turn()
    assert guarded.metrics.prompt_rollbacks.values == {(): 1}


async def test_a_canary_within_its_bounds_stays(guarded: Guarded) -> None:
    label = await guarded.begin()
    await guarded.answer(1, 100, since=label.updated, failed=2)
    await guarded.answer(2, 60, since=label.updated, failed=3)
    await guarded.loop.turn()
    assert "split" in await guarded.target()


async def test_only_what_the_label_led_to_since_it_was_set_counts(guarded: Guarded) -> None:
    label = await guarded.begin()
    await guarded.answer(2, 60, since=label.updated - 10_000, failed=60, name="before")
    await guarded.answer(2, 60, since=label.updated, failed=60, prompt_label="staging", name="staging")
    await guarded.answer(2, 60, since=label.updated, failed=60, key="mirror", name="mirror")
    await guarded.answer(2, 60, since=label.updated, status="lost", name="lost")
    await guarded.loop.turn()
    assert "split" in await guarded.target()


async def test_gateways_hear_of_a_rollback(guarded: Guarded, redis_url: str) -> None:
    label = await guarded.begin()
    heard: asyncio.Queue[PromptChange] = asyncio.Queue()
    is_up = asyncio.Event()
    subscription = Subscription(
        redis_url,
        CHANNEL,
        on_state=lambda up: is_up.set(),
        on_message=lambda message: heard.put_nowait(decode_prompt_change(message)),
    )
    task = asyncio.create_task(subscription.run())
    try:
        async with asyncio.timeout(20):
            await is_up.wait()
            await guarded.answer(2, 60, since=label.updated, failed=60)
            await guarded.loop.turn()
            assert (await heard.get()).prompt == label.prompt
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
