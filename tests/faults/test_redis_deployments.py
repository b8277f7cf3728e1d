"""The platform on Redis as operators run it: Sentinels that fail over, a Cluster whose slots move."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any, cast

import pytest
from tests.faults import ledger_check, totals
from tests.faults.conftest import Engines
from tests.faults.engine_list import FakeEngineList
from tests.faults.stack import ORG, Key, Stack, mixed, until
from tests.faults.traffic import Traffic
from tests.redis_deployments import ClusterDeployment, SentinelDeployment, running
from tests.servers import RedisServer

from quarterdeck.net.redis_cluster import hash_slot
from quarterdeck.settings.limits import Budget

pytestmark = pytest.mark.faults
BUDGET = Budget(amount=Decimal(1000), period="total", on_exhausted="deny")


class Deployed:
    """A running deployment in the place of a stack's redis-server. The test stops its parts itself."""

    process = None
    log = Path("/dev/null")

    def __init__(self, deployment: SentinelDeployment | ClusterDeployment) -> None:
        self._url = deployment.url

    def url(self, index: int) -> str:
        return self._url

    def launch(self) -> None:
        return

    def answers(self) -> bool:
        return True


@asynccontextmanager
async def a_stack(
    deployment: Any, folder: Path, engines: Engines, engine_list: FakeEngineList
) -> AsyncIterator[tuple[Stack, Key]]:
    """A complete stack on the deployment, and a key with a budget that has been used once."""
    url = f"sqlite+aiosqlite:///{folder}/quarterdeck.db"
    stack = Stack(folder, cast(RedisServer, Deployed(deployment)), engines, engine_list, url)
    await stack.whole()
    try:
        yield stack, await stack.key("deployed", budget=BUDGET)
    finally:
        await asyncio.to_thread(stack.stop)


@pytest.fixture
def sentinels() -> Iterator[SentinelDeployment]:
    with running(SentinelDeployment) as deployment:
        yield deployment


@pytest.mark.long
async def test_a_slot_that_moves_under_traffic_costs_no_record(
    tmp_path: Path, fault_engines: Engines, fault_engine_list: FakeEngineList
) -> None:
    with running(ClusterDeployment) as cluster:
        async with a_stack(cluster, tmp_path, fault_engines, fault_engine_list) as (stack, key):
            async with stack.client(key) as client, Traffic(client, mixed, rate=20) as traffic:
                await traffic.answered(10)
                slot = hash_slot(ORG)
                source, target = await asyncio.to_thread(cluster.begin_move, slot)
                await asyncio.to_thread(cluster.finish_move, slot, source, target)
                await traffic.answered(20)
            assert set(traffic.outcomes()) <= {"ok", "503 limits_unavailable"}
            assert traffic.answers[-1].outcome == "ok"
            await stack.all_settled()
            rows = await stack.rows(key)
            ledger_check.check(traffic.answers, rows)
            assert await totals.spent(stack, key) == totals.rounded(rows)
            assert set(stack.ready()["parts"].values()) == {"ready"}


async def test_a_planned_fail_over_is_followed(
    sentinels: SentinelDeployment, tmp_path: Path, fault_engines: Engines, fault_engine_list: FakeEngineList
) -> None:
    async with a_stack(sentinels, tmp_path, fault_engines, fault_engine_list) as (stack, key):
        async with stack.client(key) as client:
            async with Traffic(client, mixed, rate=20) as traffic:
                await traffic.answered(10)
                await asyncio.to_thread(sentinels.fail_over)
                await traffic.answered(40)
            assert set(traffic.outcomes()) <= {"ok", "503 limits_unavailable"}
            # What the former primary took after the promotion is lost with it. From then on all is as ever.
            await until(lambda: set(stack.ready()["parts"].values()) == {"ready"})
            async with Traffic(client, mixed, rate=20) as after:
                await after.answered(20)
            assert set(after.outcomes()) == {"ok"}
        await stack.all_settled()
        tags = {answer.tag for answer in after.answers}
        ledger_check.check(after.answers, [row for row in await stack.rows(key) if row.user in tags])


@pytest.mark.long
async def test_a_killed_primary_is_replaced_and_said_meanwhile(
    sentinels: SentinelDeployment, tmp_path: Path, fault_engines: Engines, fault_engine_list: FakeEngineList
) -> None:
    async with a_stack(sentinels, tmp_path, fault_engines, fault_engine_list) as (stack, key):
        async with stack.client(key) as client:
            async with Traffic(client, mixed, rate=20) as traffic:
                await traffic.answered(10)
                sentinels.primary.kill()
                await until(lambda: stack.ready()["parts"]["redis"] == "away")
                assert stack.ready()["status"] == "degraded"
                await until(lambda: set(stack.ready()["parts"].values()) == {"ready"}, seconds=60)
            assert set(traffic.outcomes()) <= {"ok", "503 limits_unavailable"}
            async with Traffic(client, mixed, rate=20) as after:
                await after.answered(20)
            assert set(after.outcomes()) == {"ok"}
        await stack.all_settled()
        tags = {answer.tag for answer in after.answers}
        ledger_check.check(after.answers, [row for row in await stack.rows(key) if row.user in tags])
