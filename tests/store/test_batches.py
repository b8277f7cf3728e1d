"""A request of a batch has one result, whatever is recorded twice; the counts always add up to the results."""

import asyncio
import time
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.batch_rows import NEW, OWNER, add_input

from quarterdeck.errors import ConflictError, NotFoundError, RateLimitError
from quarterdeck.store.batches import KIND, BatchRow, BatchStore, NewResult
from quarterdeck.store.database import Database, Transaction
from quarterdeck.store.files import FileStore
from quarterdeck.store.jobs import Job, JobLostError, JobStore
from quarterdeck.store.org_deletion import OrgDeletion
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.ownership import Owner
from quarterdeck.store.teams import TeamStore


async def no_event(transaction: Transaction) -> None:
    pass


@pytest.fixture
async def store(database: Database) -> BatchStore:
    await add_input(database)
    return BatchStore(database, JobStore(database))


async def claimed(database: Database) -> Job:
    (job,) = await JobStore(database).claim(KIND, seconds=60, limit=1)
    return job


async def loaded(store: BatchStore, id: str) -> BatchRow:
    found = await store.load(id)
    assert found is not None
    return found


def result(line: int, *, is_error: bool = False, tokens: tuple[int, int, int, int] = (3, 1, 2, 0)) -> NewResult:
    return NewResult(line, is_error, b'{"line":%d}' % line, (0, 0, 0, 0) if is_error else tokens)


async def test_a_batch_lives_from_its_creation_to_its_files(database: Database, store: BatchStore) -> None:
    made = await store.create(NEW, OWNER, most=9)
    assert (made.status, made.total, made.metadata) == ("validating", 0, {"a": "b"})
    job = await claimed(database)
    assert (job.subject, job.key) == (made.id, "key_1")
    await store.begin(job, total=3, model="m", now=1.0)
    assert await store.record(job, [result(1), result(3, is_error=True)], b"x") == "in_progress"
    assert await store.record(job, [result(2), result(3)], b"y") == "in_progress"
    assert await store.done_lines(made.id) == {1, 2, 3}
    await store.end(job, "completed", now=2.0)
    assert [text async for text in store.results(made.id, is_error=False)] == [b'{"line":1}\n', b'{"line":2}\n']
    assert [text async for text in store.results(made.id, is_error=True)] == [b'{"line":3}\n']
    await store.finish(job, "completed", now=3.0, output_file="file-2", record_event=no_event)
    row = await store.retrieve(made.id, OWNER)
    assert (row.status, row.total, row.completed, row.failed, row.output_file) == ("completed", 3, 2, 1, "file-2")
    assert (row.input_tokens, row.cached_tokens, row.output_tokens) == (6, 2, 4)
    assert await store.done_lines(made.id) == set()
    assert await JobStore(database).claim(KIND, seconds=1, limit=1) == []


Call = st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=6, unique_by=lambda each: each[0])


@given(st.lists(Call, max_size=8))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_the_counts_are_those_of_the_results(
    database: Database, store: BatchStore, calls: list[list[tuple[int, bool]]]
) -> None:
    made = await store.create(NEW, OWNER, most=10_000)
    job = await claimed(database)
    await store.begin(job, total=13, model="m", now=1.0)
    expected: dict[int, bool] = {}
    for call in calls:
        for line, is_error in call:
            expected.setdefault(line, is_error)
        await store.record(job, [result(line, is_error=is_error) for line, is_error in call], b"")
        row = await loaded(store, made.id)
        assert row.completed + row.failed == len(expected) == len(await store.done_lines(made.id))
        assert row.failed == sum(expected.values())
        assert row.input_tokens == 3 * row.completed
    await store.finish(job, "cancelled", now=2.0, record_event=no_event)


async def test_a_worker_that_lost_the_job_changes_nothing(database: Database, store: BatchStore) -> None:
    made = await store.create(NEW, OWNER, most=9)
    lost = await claimed(database)
    await JobStore(database).release(lost)
    job = await claimed(database)
    await store.begin(job, total=2, model="m", now=1.0)
    acts: list[Any] = [
        store.begin(lost, total=9, model="n", now=1.0),
        store.record(lost, [result(1)], b""),
        store.end(lost, "completed", now=1.0),
        store.finish(lost, "completed", now=1.0, record_event=no_event),
    ]
    for act in acts:
        with pytest.raises(JobLostError):
            await act
    row = await loaded(store, made.id)
    assert (row.total, row.completed, row.status) == (2, 0, "in_progress")


async def test_an_event_that_can_not_be_recorded_leaves_the_batch_open(database: Database, store: BatchStore) -> None:
    made = await store.create(NEW, OWNER, most=9)
    job = await claimed(database)

    async def fail(transaction: Transaction) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await store.finish(job, "failed", now=1.0, record_event=fail)
    assert (await loaded(store, made.id)).finished_at is None
    await store.finish(job, "failed", now=1.0, record_event=no_event)


async def test_a_batch_is_cancelled_once_and_stays_so(database: Database, store: BatchStore) -> None:
    made = await store.create(NEW, OWNER, most=9)
    assert (await store.cancel(made.id, OWNER)).status == "cancelling"
    assert (await store.cancel(made.id, OWNER)).status == "cancelling"
    job = await claimed(database)
    await store.begin(job, total=2, model="m", now=1.0)
    assert await store.record(job, [], b"") == "cancelling"
    await store.end(job, "cancelled", now=2.0)
    assert (await loaded(store, made.id)).status == "cancelling"
    await store.finish(job, "cancelled", now=3.0, record_event=no_event)
    other = await store.create(NEW, OWNER, most=9)
    job = await claimed(database)
    await store.finish(job, "failed", now=3.0, record_event=no_event)
    with pytest.raises(ConflictError):
        await store.cancel(other.id, OWNER)


async def test_an_organisation_has_so_many_open_batches(database: Database, store: BatchStore) -> None:
    for _ in range(2):
        await store.create(NEW, OWNER, most=2)
    with pytest.raises(RateLimitError) as raised:
        await store.create(NEW, OWNER, most=2)
    assert raised.value.code == "too_many_batches"
    await store.create(NEW, Owner("other", "team", "key_2"), most=2)
    assert len(await JobStore(database).claim(KIND, seconds=9, limit=9)) == 3


async def test_other_owners_find_nothing(store: BatchStore) -> None:
    made = await store.create(NEW, OWNER, most=9)
    for other in (Owner("default", "x", "key_1"), Owner("x", "team", "key_1"), Owner("default", "team", "k", 2**40)):
        assert await store.page(other, after=None, limit=9) == []
        for act in (store.retrieve, store.cancel):
            with pytest.raises(NotFoundError):
                await act(made.id, other)
        with pytest.raises(NotFoundError):
            await store.page(other, after=made.id, limit=9)


async def test_pages_have_each_batch_once(store: BatchStore) -> None:
    made = [(await store.create(NEW, OWNER, most=99)).id for _ in range(7)]
    seen: list[str] = []
    while rows := await store.page(OWNER, after=seen[-1] if seen else None, limit=3):
        seen += [row.id for row in rows[:3]]
    assert seen == made[::-1] or sorted(seen) == sorted(made)
    assert len(seen) == 7


async def test_batches_of_a_deleted_organisation_are_gone(database: Database, store: BatchStore) -> None:
    await OrgStore(database).create("acme")
    owner = Owner("acme", "team", "key_2")
    made = await store.create(NEW, owner, most=9)
    job = await claimed(database)
    await store.begin(job, total=2, model="m", now=1.0)
    await store.record(job, [result(1)], b"")
    await OrgDeletion(database).delete("acme", revoke_keys=True, author="key_1")
    assert await store.load(made.id) is None
    assert await store.record(job, [result(2)], b"") is None
    assert await store.done_lines(made.id) == set()


async def test_batches_of_a_deleted_team_are_gone(database: Database, store: BatchStore) -> None:
    """A team that is made again has none of their files: no worker writes them."""
    teams = TeamStore(database)
    for team in ("red", "blue"):
        await teams.create(team, org="default")
    gone = await store.create(NEW, Owner("default", "red", "key_1"), most=9)
    job = await claimed(database)
    await store.begin(job, total=1, model="m", now=1.0)
    await store.record(job, [result(1)], b"")
    kept = await store.create(NEW, Owner("default", "blue", "key_2"), most=9)
    await teams.delete("red", org="default")
    assert await store.load(gone.id) is None
    assert await store.record(job, [], b"") is None
    assert await store.done_lines(gone.id) == set()
    assert await store.load(kept.id) == kept


async def test_a_deleted_input_stays_in_the_storage_until_its_last_batch_has_ended(
    database: Database, store: BatchStore
) -> None:
    files = FileStore(database)
    for _ in range(2):
        await store.create(NEW, OWNER, most=9)
    assert await files.delete("file-1", OWNER) == []
    assert await files.due_blobs(time.time() + 86_400) == []
    with pytest.raises(NotFoundError):
        await files.retrieve("file-1", OWNER)
    for left in (1, 0):
        await store.finish(await claimed(database), "completed", now=2.0, record_event=no_event)
        assert await files.due_blobs(time.time()) == ([] if left else [NEW.input_blob])


async def test_the_deleted_input_of_an_ended_batch_goes_at_once(database: Database, store: BatchStore) -> None:
    await store.create(NEW, OWNER, most=9)
    await store.finish(await claimed(database), "completed", now=2.0, record_event=no_event)
    assert await FileStore(database).delete("file-1", OWNER) == [NEW.input_blob]


async def test_an_input_that_expires_stays_in_the_storage_while_its_batch_goes_on(database: Database) -> None:
    store, files = BatchStore(database, JobStore(database)), FileStore(database)
    await add_input(database, expires=time.time() + 600)
    await store.create(NEW, OWNER, most=9)
    assert await files.delete_expired(time.time() + 601) == ["file-1"]
    assert await files.due_blobs(time.time() + 601) == []
    await store.finish(await claimed(database), "completed", now=2.0, record_event=no_event)
    assert await files.due_blobs(time.time()) == [NEW.input_blob]


async def test_a_batch_is_not_created_of_a_file_that_was_deleted_meanwhile(
    database: Database, store: BatchStore
) -> None:
    await FileStore(database).delete("file-1", OWNER)
    with pytest.raises(NotFoundError):
        await store.create(NEW, OWNER, most=9)
    assert await store.page(OWNER, after=None, limit=9) == []
    assert await JobStore(database).claim(KIND, seconds=60, limit=1) == []


async def test_a_file_that_is_deleted_while_batches_are_created_of_it_is_kept_for_those(
    database: Database, store: BatchStore
) -> None:
    files = FileStore(database)

    async def create() -> bool:
        try:
            await store.create(NEW, OWNER, most=99)
        except NotFoundError:
            return False
        return True

    created = [asyncio.create_task(create()) for _ in range(4)]
    free = await files.delete("file-1", OWNER)
    has_batches = any(await asyncio.gather(*created))
    assert free == ([] if has_batches else [NEW.input_blob])


async def test_inputs_of_a_deleted_organisation_go_at_once(database: Database) -> None:
    await OrgStore(database).create("acme")
    owner, files = Owner("acme", "team", "key_2"), FileStore(database)
    store = BatchStore(database, JobStore(database))
    await add_input(database, owner)
    await store.create(NEW, owner, most=9)
    await files.delete("file-1", owner)
    await OrgDeletion(database).delete("acme", revoke_keys=True, author="key_1")
    assert await files.due_blobs(time.time()) == [NEW.input_blob]


async def test_a_batch_whose_files_can_not_be_written_has_failed_with_all_of_its_requests(
    database: Database, store: BatchStore
) -> None:
    made = await store.create(NEW, OWNER, most=9)
    job = await claimed(database)
    await store.begin(job, total=5, model="m", now=1.0)
    await store.record(job, [result(1), result(2, is_error=True)], b"")
    await store.finish(job, "failed", now=2.0, has_files=False, record_event=no_event)
    row = await loaded(store, made.id)
    assert (row.total, row.completed, row.failed) == (5, 0, 5)
