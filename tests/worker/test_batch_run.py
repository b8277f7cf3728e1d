"""A batch whose time is over, or that was cancelled, before a worker has it sends no requests."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any, cast

import pytest
from tests.batch_rows import NEW, OWNER, add_input

from quarterdeck.errors import NotFoundError
from quarterdeck.settings.batches import BatchesConfig
from quarterdeck.store.batches import KIND, BatchStore
from quarterdeck.store.database import Database
from quarterdeck.store.jobs import JobStore
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker import batch_run
from quarterdeck.worker.batch_run import MAX_IN_FLIGHT, MAX_LOST, BatchRun
from quarterdeck.worker.gateway_client import AnswerTooLargeError, GatewayAnswer, GatewayClient, GatewayUnavailableError

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
    [(False, 0, "completed", 1), (False, 86_401, "expired", 0), (True, 0, "cancelled", 0)],
)
async def test_requests_are_sent_while_the_batch_goes_on(
    database: Database, *, is_cancelled: bool, later: float, status: str, sent: int
) -> None:
    store = BatchStore(database, JobStore(database))
    await add_input(database)
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
    await add_input(database)
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
    await add_input(database)
    batch = await store.create(NEW, OWNER, most=1)
    (job,) = await JobStore(database).claim(KIND, seconds=60, limit=1)
    await store.begin(job, total=1, model="m", now=1.0)
    gateway = cast(GatewayClient, Revoked())
    run = BatchRun(job, batch, slow, store, gateway, BatchesConfig, WorkerMetrics(), wall=lambda: batch.created)
    ending = await run.execute()
    assert (ending.status, ending.code) == ("failed", "invalid_api_key")


def a_line(number: int, *, text: str = "Hi") -> bytes:
    body = {"model": "m", "input": text}
    return json.dumps({"custom_id": f"{number}", "method": "POST", "url": "/v1/embeddings", "body": body}).encode()


async def a_run(database: Database, gateway: Any, texts: list[bytes]) -> tuple[BatchStore, BatchRun]:
    async def numbered() -> AsyncIterator[tuple[int, bytes]]:
        for number, text in enumerate(texts, 1):
            yield number, text

    store = BatchStore(database, JobStore(database))
    await add_input(database)
    batch = await store.create(NEW, OWNER, most=1)
    (job,) = await JobStore(database).claim(KIND, seconds=600, limit=1)
    await store.begin(job, total=len(texts), model="m", now=1.0)
    gateway_ = cast(GatewayClient, gateway)
    wall = lambda: batch.created  # noqa: E731
    return store, BatchRun(job, batch, numbered, store, gateway_, BatchesConfig, WorkerMetrics(), wall=wall)


async def test_a_request_that_ends_its_gateway_fails_and_takes_no_other_with_it(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dying:
        """Each time that it executes the request `3`, all that it executes is lost."""

        def __init__(self) -> None:
            self.lost: list[bytes] = []
            self.dies = asyncio.Event()

        def claims(self, *arguments: Any, **more: Any) -> None: ...

        async def post(self, path: str, body: bytes, *arguments: Any, **more: Any) -> GatewayAnswer:
            dies = self.dies
            if b"poison" in body:
                for _ in range(20):  # the others arrive
                    await asyncio.sleep(0)
                self.dies = asyncio.Event()
                dies.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(dies.wait(), 0.05)
                self.lost.append(body)
                raise GatewayUnavailableError("cut off", was_sent=True)
            return GatewayAnswer(200, b"{}")

    monkeypatch.setattr(batch_run, "retry_pause", lambda *arguments: 0.0)
    gateway = Dying()
    texts = [a_line(number, text="poison" if number == 3 else "Hi") for number in range(1, 12)]
    store, run = await a_run(database, gateway, texts)
    ending = await run.execute()
    batch = (await store.page(OWNER, after=None, limit=1))[0]
    assert (ending.status, batch.completed, batch.failed) == ("completed", 10, 1)
    assert sum(b"poison" in body for body in gateway.lost) == MAX_LOST
    (error,) = [json.loads(each) async for each in store.results(batch.id, is_error=True)]
    assert (error["custom_id"], error["response"], error["error"]["code"]) == ("3", None, "no_answer")


async def test_a_gateway_that_can_not_be_reached_is_waited_for(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Away(Counting):
        async def post(self, *arguments: Any, **more: Any) -> GatewayAnswer:
            self.sent += 1
            if self.sent <= 3 * MAX_LOST:
                raise GatewayUnavailableError("refused")
            return GatewayAnswer(200, b"{}")

    monkeypatch.setattr(batch_run, "retry_pause", lambda *arguments: 0.0)
    store, run = await a_run(database, Away(), [a_line(1)])
    assert (await run.execute()).status == "completed"
    assert (await store.page(OWNER, after=None, limit=1))[0].completed == 1


async def test_large_requests_are_sent_as_few_as_memory_allows(database: Database) -> None:
    class Holding(Counting):
        now = most = 0

        async def post(self, path: str, body: bytes, *arguments: Any, **more: Any) -> GatewayAnswer:
            self.now += len(body)
            self.most = max(self.most, self.now)
            for _ in range(50):
                await asyncio.sleep(0)
            self.now -= len(body)
            return GatewayAnswer(200, b"{}")

    gateway, size = Holding(), MAX_IN_FLIGHT // 3
    _, run = await a_run(database, gateway, [a_line(number, text="x" * size) for number in range(8)])
    assert (await run.execute()).status == "completed"
    assert size < gateway.most < MAX_IN_FLIGHT + 2 * size


async def test_of_large_answers_as_few_arrive_at_once_as_memory_allows(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Large(Counting):
        now = most = 0

        async def post(self, *arguments: Any, **more: Any) -> GatewayAnswer:
            self.sent += 1
            self.now += 1
            if self.sent > 20:  # the first of them were sent before it was known
                self.most = max(self.most, self.now)
            for _ in range(20):
                await asyncio.sleep(0)
            self.now -= 1
            return GatewayAnswer(200, b"x" * 1000)

    monkeypatch.setattr(batch_run, "MAX_ANSWERS", 3000)
    gateway = Large()
    _, run = await a_run(database, gateway, [a_line(number) for number in range(40)])
    assert (await run.execute()).status == "completed"
    assert gateway.sent == 40 and 1 <= gateway.most <= 3


async def test_an_answer_that_is_too_large_is_an_error_at_once(database: Database) -> None:
    class TooLarge(Counting):
        async def post(self, *arguments: Any, **more: Any) -> GatewayAnswer:
            self.sent += 1
            raise AnswerTooLargeError("The answer has more than 64 MiB.")

    gateway = TooLarge()
    store, run = await a_run(database, gateway, [a_line(1)])
    assert (await run.execute()).status == "completed"
    batch = (await store.page(OWNER, after=None, limit=1))[0]
    (error,) = [json.loads(each) async for each in store.results(batch.id, is_error=True)]
    assert (gateway.sent, error["error"]["code"]) == (1, "answer_too_large")
