"""Batches that ended long ago are deleted with the files of their results; those that go on are not."""

import time

from tests.batch_rows import NEW, OWNER, add_input

from quarterdeck.store.batch_retention import BatchRetention
from quarterdeck.store.batches import KIND, BatchStore
from quarterdeck.store.database import Database, Transaction
from quarterdeck.store.files import FileStore
from quarterdeck.store.jobs import JobStore


async def no_event(transaction: Transaction) -> None:
    pass


async def test_batches_that_ended_before_go_with_the_files_of_their_results(database: Database) -> None:
    store, jobs, files = BatchStore(database, JobStore(database)), JobStore(database), FileStore(database)
    for number in range(1, 5):
        await add_input(database, number=number)
    ended = []
    for at, output in ((10.0, "file-2"), (20.0, "file-3")):
        ended.append((await store.create(NEW, OWNER, most=9)).id)
        (job,) = await jobs.claim(KIND, seconds=60, limit=1)
        await store.finish(job, "completed", now=at, output_file=output, error_file="file-4", record_event=no_event)
    goes_on = (await store.create(NEW, OWNER, most=9)).id
    retention = BatchRetention(database)
    assert await retention.delete_older(15.0, org="another") == 0
    assert await retention.delete_older(15.0, org=OWNER.org) == 1
    left = [row.id for row in await store.page(OWNER, after=None, limit=9)]
    assert sorted(left) == sorted([ended[1], goes_on])
    assert sorted(await files.find(["file-1", "file-2", "file-3", "file-4"], OWNER)) == ["file-1", "file-3"]
    assert sorted(await files.due_blobs(time.time())) == ["files/blob_2", "files/blob_4"]
    assert await retention.delete_older(15.0, org=OWNER.org) == 0


async def test_any_number_of_batches_is_deleted(database: Database) -> None:
    store, jobs = BatchStore(database, JobStore(database)), JobStore(database)
    await add_input(database)
    for _ in range(3):
        await store.create(NEW, OWNER, most=9)
    for job in await jobs.claim(KIND, seconds=60, limit=3):
        await store.finish(job, "failed", now=1.0, record_event=no_event)
    assert await BatchRetention(database).delete_older(2.0, org=OWNER.org) == 3
