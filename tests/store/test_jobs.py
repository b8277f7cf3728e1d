"""Jobs are claimed once, by organisations in turn, and change only under their lease."""

import asyncio
from collections import Counter

import pytest
from sqlalchemy import text

from quarterdeck.store.database import Database
from quarterdeck.store.jobs import Job, JobLostError, JobStore, NewJob
from quarterdeck.store.platform_secrets import PlatformSecret

KIND = "test"


def a_job(subject: str = "thing_1", *, org: str = "default", priority: int = 0, **more: float) -> NewJob:
    return NewJob(kind=KIND, org=org, team="t", key="key_1", subject=subject, payload=b"p", priority=priority, **more)  # type: ignore[arg-type]


@pytest.fixture
def jobs(database: Database) -> JobStore:
    return JobStore(database)


async def claim_one(jobs: JobStore, seconds: float = 60) -> Job:
    (job,) = await jobs.claim(KIND, seconds=seconds, limit=1)
    return job


async def test_a_job_is_claimed_by_one_of_many_workers(database: Database, jobs: JobStore) -> None:
    for index in range(20):
        await jobs.add(a_job(f"thing_{index}"))
    workers = [JobStore(database) for _ in range(4)]
    claimed: list[Job] = []
    while found := await asyncio.gather(*(each.claim(KIND, seconds=60, limit=3) for each in workers)):
        if not any(found):
            break
        claimed += [job for some in found for job in some]
    assert sorted(job.subject for job in claimed) == sorted(f"thing_{index}" for index in range(20))
    assert {(job.attempts, job.payload, job.progress, job.key) for job in claimed} == {(1, b"p", b"", "key_1")}


async def test_organisations_take_turns(jobs: JobStore) -> None:
    for index in range(50):
        await jobs.add(a_job(f"big_{index}", org="big"))
    for org in ("a", "z"):
        await jobs.add(a_job(f"only_of_{org}", org=org))
    first = await jobs.claim(KIND, seconds=60, limit=6)
    assert Counter(job.org for job in first) == {"a": 1, "big": 2, "z": 1}
    assert [job.org for job in await jobs.claim(KIND, seconds=60, limit=1, after="big")] == ["big"]
    await jobs.add(a_job("again", org="z"))
    assert [job.org for job in await jobs.claim(KIND, seconds=60, limit=1, after="big")] == ["z"]
    assert await jobs.claim(KIND, seconds=60, limit=9, busy=["big"]) == []


async def test_the_higher_priority_is_claimed_first(jobs: JobStore) -> None:
    for priority in (0, 5, -1):
        await jobs.add(a_job(f"p{priority}", priority=priority))
    assert [job.subject for job in await jobs.claim(KIND, seconds=60, limit=3)] == ["p5", "p0", "p-1"]


async def test_a_job_of_another_kind_is_not_claimed(jobs: JobStore) -> None:
    await jobs.add(a_job())
    assert await jobs.claim("other", seconds=60, limit=1) == []


async def test_a_lease_that_ended_is_claimed_again_and_the_former_holder_changes_nothing(jobs: JobStore) -> None:
    await jobs.add(a_job())
    first = await claim_one(jobs, seconds=0)
    await jobs.advance(first, b"half")
    second = await claim_one(jobs)
    assert (second.attempts, second.progress) == (2, b"half")
    with pytest.raises(JobLostError):
        await jobs.advance(first, b"wrong")
    assert await jobs.renew([first.lease, second.lease], seconds=60) == {second.lease}
    assert not await jobs.finish(first, "done")
    assert not await jobs.release(first)
    await jobs.advance(second, b"all")
    assert await jobs.finish(second, "done")
    assert await jobs.claim(KIND, seconds=60, limit=1) == []


async def test_a_lost_lease_rolls_back_what_was_done_with_the_progress(database: Database, jobs: JobStore) -> None:
    await jobs.add(a_job())
    first = await claim_one(jobs, seconds=0)
    await claim_one(jobs)
    with pytest.raises(JobLostError):
        async with database.begin() as connection:
            await jobs.add_on(connection, a_job("an effect"))
            await jobs.advance_on(connection, first, b"x")
    assert (await jobs.counts())[KIND].waiting == 0


async def test_a_released_job_is_claimed_after_its_pause_and_may_not_count(jobs: JobStore) -> None:
    await jobs.add(a_job())
    job = await claim_one(jobs)
    assert await jobs.release(job, delay=3600, error="no")
    assert await jobs.claim(KIND, seconds=60, limit=1) == []
    await jobs.add(a_job("second"))
    second = await claim_one(jobs)
    assert await jobs.release(second, is_counted=False)
    again = await claim_one(jobs)
    assert (again.subject, again.attempts) == ("second", 1)


async def test_a_cancelled_job_is_lost_to_its_worker(database: Database, jobs: JobStore) -> None:
    await jobs.add(a_job())
    job = await claim_one(jobs)
    async with database.begin() as connection:
        await jobs.cancel_on(connection, "other", ["thing_1"])
    assert await jobs.renew([job.lease], seconds=60) == {job.lease}
    async with database.begin() as connection:
        await jobs.cancel_on(connection, "default", ["thing_1"])
    assert await jobs.renew([job.lease], seconds=60) == set()
    assert not await jobs.finish(job, "done")
    assert await jobs.claim(KIND, seconds=60, limit=1) == []


async def test_a_job_past_its_deadline_or_its_attempts_is_exhausted(jobs: JobStore) -> None:
    await jobs.add(a_job(deadline_seconds=-1.0))
    assert (await claim_one(jobs)).is_exhausted
    await jobs.add(a_job("tried", max_attempts=1))
    first = await claim_one(jobs)
    assert not first.is_exhausted
    await jobs.release(first, error="it failed")
    second = await claim_one(jobs)
    assert second.is_exhausted
    assert second.error == "it failed"


async def rows_of(database: Database) -> int:
    async with database.connect() as connection:
        return int(await connection.scalar(text("SELECT count(*) FROM jobs")) or 0)


async def test_an_ended_job_keeps_no_payload_and_is_removed_later(database: Database, jobs: JobStore) -> None:
    await jobs.add(a_job())
    job = await claim_one(jobs)
    await jobs.advance(job, b"half")
    await jobs.finish(job, "failed", error="x" * 5000)
    async with database.connect() as connection:
        row = (await connection.execute(text("SELECT payload, progress, state, error FROM jobs"))).one()
    assert (row.payload, row.progress, row.state, len(row.error)) == (None, None, "failed", 2000)
    assert not await jobs.clean(keep_seconds=3600)
    assert await rows_of(database) == 1
    assert not await jobs.clean(keep_seconds=-1)
    assert await rows_of(database) == 0


async def test_open_jobs_are_counted(jobs: JobStore) -> None:
    for index in range(3):
        await jobs.add(a_job(f"thing_{index}"))
    await claim_one(jobs)
    counts = (await jobs.counts())[KIND]
    assert (counts.waiting, counts.running) == (2, 1)
    assert counts.oldest_seconds >= 0
    assert counts.open_seconds >= counts.oldest_seconds


async def test_the_age_of_a_job_that_runs_is_counted(sqlite_url: str) -> None:
    database, now = Database(sqlite_url), [1_790_000_000.0]
    jobs = JobStore(database, wall=lambda: now[0])
    await jobs.add(a_job())
    await claim_one(jobs, seconds=3600)
    now[0] += 600
    counts = (await jobs.counts())[KIND]
    assert (counts.waiting, counts.oldest_seconds, counts.open_seconds) == (0, 0.0, 600.0)
    await database.close()


@pytest.mark.parametrize("step", [3600.0, -3600.0])
async def test_a_clock_that_steps_repeats_a_job_and_never_lets_two_workers_change_it(
    sqlite_url: str, step: float
) -> None:
    database = Database(sqlite_url)
    now = 1_790_000_000.0
    one, other = JobStore(database, wall=lambda: now), JobStore(database, wall=lambda: now + step)
    await one.add(a_job())
    (job,) = await one.claim(KIND, seconds=30, limit=1)
    taken = await other.claim(KIND, seconds=30, limit=1)
    assert len(taken) == (step > 0)  # a clock that is ahead takes the job over; one behind waits
    if taken:
        assert await one.renew([job.lease], seconds=30) == set()
        with pytest.raises(JobLostError):
            await one.advance(job, b"x")
    else:
        assert await one.renew([job.lease], seconds=30) == {job.lease}
    await database.close()


async def test_processes_share_one_secret(database: Database) -> None:
    secrets = [PlatformSecret(database, "jobs") for _ in range(4)]
    found = await asyncio.gather(*(each.read() for each in secrets))
    assert len(set(found)) == 1
    assert len(found[0]) == 32
    assert await PlatformSecret(database, "other").read() != found[0]
