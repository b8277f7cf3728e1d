"""The counts of a batch add up when it has ended, whatever becomes of its input and of the storage."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy import text
from tests.batch_rows import NEW, OWNER

from quarterdeck.errors import StorageFullError, StorageUnavailableError
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.webhooks.object_events import ObjectEvents
from quarterdeck.settings.batches import BatchesConfig
from quarterdeck.settings.file_storage import FilesConfig
from quarterdeck.store.batches import KIND, BatchRow, BatchStore
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.blobs.interface import BlobSummary
from quarterdeck.store.database import Database
from quarterdeck.store.files import FileStore
from quarterdeck.store.jobs import Job, JobStore
from quarterdeck.store.teams import TeamStore
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker import batch_handler
from quarterdeck.worker.batch_handler import BatchHandler
from quarterdeck.worker.gateway_client import GatewayAnswer, GatewayClient
from quarterdeck.worker.job_loop import Again, Done, Outcome

TOTAL = 30


class Storage(FolderBlobs):
    is_away = is_full = False

    async def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        if self.is_away:
            raise StorageUnavailableError("no route to host")
        return await super().open(name, start, end)

    async def put(self, name: str, pieces: AsyncIterable[bytes]) -> BlobSummary:
        if self.is_full:
            raise StorageFullError("no space left")
        return await super().put(name, pieces)


class Gateway:
    """In the gateway's place: answers at once until `pause_after` requests, then waits for `go_on`."""

    def __init__(self) -> None:
        self.sent = 0
        self.pause_after: int | None = None
        self.is_paused, self.go_on = asyncio.Event(), asyncio.Event()

    def claims(self, *arguments: Any, **more: Any) -> None: ...

    async def post(self, *arguments: Any, **more: Any) -> GatewayAnswer:
        self.sent += 1
        if self.pause_after is not None and self.sent > self.pause_after:
            self.is_paused.set()
            await self.go_on.wait()
        return GatewayAnswer(200, b'{"usage": {"prompt_tokens": 1}}')


class NoEvents:
    async def record_on(self, *arguments: Any, **more: Any) -> None: ...


class Bench:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.blobs, self.file_store, self.jobs = Storage(folder), FileStore(database), JobStore(database)
        self.files = Files(self.file_store, self.blobs, FilesConfig)
        self.store, self.gateway = BatchStore(database, self.jobs), Gateway()
        self.now = time.time()
        self.handler = BatchHandler(
            self.store,
            self.files,
            cast(GatewayClient, self.gateway),
            cast(ObjectEvents, NoEvents()),
            lambda: BatchesConfig(max_concurrency=2, retention_days=3),
            WorkerMetrics(),
            wall=lambda: self.now,
        )

    async def create(self, total: int = TOTAL, *, expires: int | None = None) -> BatchRow:
        async def pieces() -> AsyncGenerator[bytes]:
            for number in range(total):
                body = {"model": "m", "input": "x" * 100}
                line = {"custom_id": f"line-{number}", "method": "POST", "url": NEW.endpoint, "body": body}
                yield json.dumps(line).encode() + b"\n\n"

        file = await self.files.create(OWNER, pieces(), filename="in", purpose="batch", expires_seconds=expires)
        new = replace(NEW, input_file=file.id, input_blob=file.blob, input_bytes=file.bytes)
        return await self.store.create(new, OWNER, most=9)

    async def claim(self) -> Job:
        (job,) = await self.jobs.claim(KIND, seconds=600, limit=1)
        return job

    async def run(self) -> Outcome:
        return await self.handler.run(await self.claim())

    async def run_until_paused(self, after: int) -> "asyncio.Task[Outcome]":
        self.gateway.pause_after = after
        task = asyncio.create_task(self.run())
        await self.gateway.is_paused.wait()
        return task

    async def ended(self, batch: BatchRow) -> BatchRow:
        found = await self.store.load(batch.id)
        assert found is not None and found.finished_at is not None
        return found

    async def lines(self, file: str | None) -> list[Any]:
        if file is None:
            return []
        row = await self.files.retrieve(file, OWNER)
        pieces = await self.files.open(row)
        return [json.loads(line) for line in b"".join([piece async for piece in pieces]).splitlines()]

    async def check(self, batch: BatchRow) -> tuple[BatchRow, list[Any], list[Any]]:
        """Each request is in one of the files, and the counts say so."""
        row = await self.ended(batch)
        output, errors = await self.lines(row.output_file), await self.lines(row.error_file)
        assert (row.total, row.completed, row.failed) == (TOTAL, len(output), len(errors))
        assert len(output) + len(errors) == TOTAL
        assert len({each["id"] for each in output + errors}) == TOTAL
        return row, output, errors


@pytest.fixture
def bench(database: Database, tmp_path: Path) -> Bench:
    return Bench(database, tmp_path)


async def test_a_batch_whose_input_is_deleted_in_the_middle_is_executed_to_its_end(bench: Bench) -> None:
    batch = await bench.create()
    running = await bench.run_until_paused(5)
    await bench.files.delete(batch.input_file, OWNER)
    bench.gateway.go_on.set()
    assert await running == Done()
    row, output, _ = await bench.check(batch)
    assert row.status == "completed" and len(output) == TOTAL
    assert await bench.file_store.due_blobs(time.time()) == [batch.input_blob]


async def test_a_batch_whose_input_has_expired_before_a_worker_has_it_is_executed(bench: Bench) -> None:
    batch = await bench.create(expires=3600)
    await bench.file_store.delete_expired(time.time() + 3601)
    assert await bench.run() == Done()
    row, _, errors = await bench.check(batch)
    assert row.status == "completed" and errors == []


async def test_requests_of_an_input_that_the_storage_has_lost_are_counted_as_failed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_handler, "READ_BYTES", 1000)
    batch = await bench.create()
    running = await bench.run_until_paused(3)
    assert batch.input_blob is not None
    await bench.blobs.delete(batch.input_blob)
    bench.gateway.go_on.set()
    await running
    row, output, errors = await bench.check(batch)
    assert row.status == "failed" and row.errors is not None and row.errors[0]["code"] == "content_missing"
    assert len(output) >= 3 and {each["error"]["code"] for each in errors} == {"content_missing"}
    assert {each["custom_id"] for each in errors} == {None}


async def test_a_batch_waits_for_a_storage_that_is_away_and_loses_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch_handler, "READ_BYTES", 1000)
    batch = await bench.create()
    running = await bench.run_until_paused(3)
    bench.blobs.is_away = True
    bench.gateway.go_on.set()
    outcome = await running
    assert isinstance(outcome, Again) and "no route to host" in (outcome.error or "")
    done, sent = await bench.store.done_lines(batch.id), bench.gateway.sent
    assert len(done) == sent >= 3
    bench.blobs.is_away = False
    await _release(bench)
    assert await bench.run() == Done()
    row, output, _ = await bench.check(batch)
    assert row.status == "completed" and len(output) == TOTAL == bench.gateway.sent


async def test_a_batch_waits_for_room_on_the_disk_for_its_results(bench: Bench) -> None:
    batch = await bench.create()
    bench.blobs.is_full = True
    outcome = await bench.run()
    assert isinstance(outcome, Again) and "no space left" in (outcome.error or "")
    bench.blobs.is_full = False
    await _release(bench)
    assert await bench.run() == Done()
    row, output, _ = await bench.check(batch)
    assert row.status == "completed" and len(output) == TOTAL == bench.gateway.sent


async def test_a_batch_that_no_worker_had_for_days_ends_with_what_it_has(bench: Bench) -> None:
    batch = await bench.create()
    running = await bench.run_until_paused(4)
    bench.gateway.go_on.set()
    bench.now = batch.expires + 1
    await running
    row, output, errors = await bench.check(batch)
    assert row.status == "expired" and output and errors[-1]["error"]["code"] == "batch_expired"
    other = await bench.create()
    job = await bench.claim()
    bench.now = other.expires + 1
    await bench.handler.give_up(job, "It was not complete in time.")
    row, output, errors = await bench.check(other)
    assert (row.status, output, len(errors)) == ("expired", [], TOTAL)


async def test_a_batch_that_is_given_up_while_the_storage_is_away_has_failed_with_all_of_its_requests(
    bench: Bench,
) -> None:
    batch = await bench.create()
    bench.blobs.is_full = True
    await bench.run()
    await _release(bench)
    await bench.handler.give_up(await bench.claim(), "It was not complete in time.")
    row = await bench.ended(batch)
    assert (row.status, row.total, row.completed, row.failed) == ("failed", TOTAL, 0, TOTAL)
    assert row.errors is not None and "no space left" in row.errors[0]["message"]


@pytest.mark.parametrize("when", ["before", "meanwhile"])
async def test_a_cancelled_batch_accounts_for_each_request_though_its_input_was_deleted(
    bench: Bench, when: str
) -> None:
    batch = await bench.create()
    running = await bench.run_until_paused(4) if when == "meanwhile" else None
    await bench.files.delete(batch.input_file, OWNER)
    await bench.store.cancel(batch.id, OWNER)
    bench.gateway.go_on.set()
    if running is None:
        assert await bench.run() == Done()
        row = await bench.ended(batch)
        assert (row.status, row.total, row.completed, row.failed) == ("cancelled", 0, 0, 0)
        return
    await running
    row, _, errors = await bench.check(batch)
    assert row.status == "cancelled"
    assert all(each["custom_id"] for each in errors)


async def test_a_batch_whose_team_is_deleted_in_the_middle_ends_without_a_trace(bench: Bench) -> None:
    await TeamStore(bench.database).create(OWNER.team, org=OWNER.org)
    batch = await bench.create()
    running = await bench.run_until_paused(4)
    await TeamStore(bench.database).delete(OWNER.team, org=OWNER.org)
    await bench.file_store.delete_expired(time.time())
    assert batch.input_blob in await bench.file_store.due_blobs(time.time())
    await bench.blobs.delete(str(batch.input_blob))
    bench.gateway.go_on.set()
    assert await running == Done()
    assert await bench.store.load(batch.id) is None
    assert await bench.store.done_lines(batch.id) == set()


async def test_results_expire_with_the_batch_and_count_toward_the_quota(bench: Bench) -> None:
    before = await bench.file_store.usage(OWNER.org)
    batch = await bench.create()
    await bench.run()
    row = await bench.ended(batch)
    assert row.output_file is not None
    file = await bench.files.retrieve(row.output_file, OWNER)
    assert file.expires is not None and abs(file.expires - file.created - 3 * 86_400) < 1
    assert await bench.file_store.usage(OWNER.org) == before + file.bytes + (batch.input_bytes or 0)


async def _release(bench: Bench) -> None:
    """As the job loop does with an attempt that is to be repeated."""
    async with bench.database.begin() as connection:
        await connection.execute(text("UPDATE jobs SET due = 0, lease = NULL WHERE finished IS NULL"))
