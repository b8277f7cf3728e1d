"""A batch whose time is over, or that was cancelled, before a worker has it sends no requests."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest

from quarterdeck.errors import NotFoundError
from quarterdeck.settings.batches import BatchesConfig
from quarterdeck.store.batches import KIND, BatchStore, NewBatch
from quarterdeck.store.database import Database
from quarterdeck.store.jobs import JobStore
from quarterdeck.store.ownership import Owner
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.batch_run import BatchRun
from quarterdeck.worker.gateway_client import GatewayAnswer, GatewayClient

OWNER = Owner("default", "team", "key_1")
NEW = NewBatch(
    endpoint="/v1/embeddings",
    input_file="file-1",
    window="1h",
    window_seconds=3600,
    output_expires=None,
    metadata=None,
)
LINE = b'{"custom_id": "a", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "Hi"}}'


class Counting:
    """In the gateway's place: counts what is sent."""

    def __init__(self) -> None:
        self.sent = 0

    def claims(self, *arguments: Any, **more: Any) -> None: ...

    async def post(self, *arguments: Any, **more: Any) -> GatewayAnswer:
        self.sent += 1
        return GatewayAnswer(200, b"{}")


async def lines() -> AsyncIterator[tuple[int, bytes]]:
    yield 1, LINE


@pytest.mark.parametrize(
    ("is_cancelled", "later", "status", "sent"),
    [(False, 0, "completed", 1), (False, 3601, "expired", 0), (True, 0, "cancelled", 0)],
)
async def test_requests_are_sent_while_the_batch_goes_on(
    database: Database, *, is_cancelled: bool, later: float, status: str, sent: int
) -> None:
    store = BatchStore(database, JobStore(database))
    made = await store.create(NEW, OWNER, most=1)
    (job,) = await JobStore(database).claim(KIND, seconds=60, limit=1)
    await store.begin(job, total=1, model="m", now=1.0)
    if is_cancelled:
        await store.cancel(made.id, OWNER)
    batch = await store.load(made.id)
    assert batch is not None
    gateway = Counting()
    run = BatchRun(
        job,
        batch,
        lines,
        store,
        cast(GatewayClient, gateway),
        BatchesConfig,
        WorkerMetrics(),
        wall=lambda: made.created + later,
    )
    assert (await run.execute()).status == status
    assert gateway.sent == sent


async def test_what_was_sent_before_the_input_was_deleted_keeps_its_result(database: Database) -> None:
    async def deleted() -> AsyncIterator[tuple[int, bytes]]:
        yield 1, LINE
        raise NotFoundError("No such File object: file-1")

    store = BatchStore(database, JobStore(database))
    batch = await store.create(NEW, OWNER, most=1)
    (job,) = await JobStore(database).claim(KIND, seconds=60, limit=1)
    await store.begin(job, total=2, model="m", now=1.0)
    gateway = cast(GatewayClient, Counting())
    run = BatchRun(job, batch, deleted, store, gateway, BatchesConfig, WorkerMetrics(), wall=lambda: batch.created)
    with pytest.raises(NotFoundError):
        await run.execute()
    assert await store.done_lines(batch.id) == {1}


async def test_a_key_that_is_revoked_for_the_last_request_fails_the_batch(database: Database) -> None:
    class Revoked(Counting):
        async def post(self, *arguments: Any, **more: Any) -> GatewayAnswer:
            return GatewayAnswer(401, b'{"error": {"message": "Revoked.", "code": "invalid_api_key"}}')

    async def slow() -> AsyncIterator[tuple[int, bytes]]:
        yield 1, LINE
        for _ in range(50):  # the request ends before it is known that there is no other
            await asyncio.sleep(0)

    store = BatchStore(database, JobStore(database))
    batch = await store.create(NEW, OWNER, most=1)
    (job,) = await JobStore(database).claim(KIND, seconds=60, limit=1)
    await store.begin(job, total=1, model="m", now=1.0)
    gateway = cast(GatewayClient, Revoked())
    run = BatchRun(job, batch, slow, store, gateway, BatchesConfig, WorkerMetrics(), wall=lambda: batch.created)
    ending = await run.execute()
    assert (ending.status, ending.code) == ("failed", "invalid_api_key")
