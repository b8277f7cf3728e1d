"""A deletion of contents is carried out in batches twice: at once, and when what was on its way has arrived."""

import time
from typing import cast

import pytest

from quarterdeck.errors import StorageUnavailableError
from quarterdeck.resources.batches.result_deletion import ResultDeletion
from quarterdeck.store.contents import RESULT_DELETION_KIND, ContentStore, Deletion
from quarterdeck.store.database import Database
from quarterdeck.store.jobs import Job, JobStore
from quarterdeck.worker.job_loop import Again, Done
from quarterdeck.worker.result_deletion_jobs import SECOND_PASS_SECONDS, ResultDeletionJobs


class Results:
    def __init__(self) -> None:
        self.applied: list[Deletion] = []
        self.is_away = False

    async def apply(self, deletion: Deletion) -> int:
        if self.is_away:
            raise StorageUnavailableError("no route to host")
        self.applied.append(deletion)
        return 1


async def a_job(database: Database) -> tuple[Deletion, Job]:
    deletion, _ = await ContentStore(database).delete("user", "u", org="acme", key="key_1")
    (job,) = await JobStore(database).claim(RESULT_DELETION_KIND, seconds=60, limit=1)
    return deletion, job


async def test_a_deletion_has_two_passes(database: Database) -> None:
    deletion, job = await a_job(database)
    results, now = Results(), time.time()
    handler = ResultDeletionJobs(cast(ResultDeletion, results), wall=lambda: now)
    first = await handler.run(job)
    assert isinstance(first, Again) and first.error is None and not first.is_counted
    assert first.after == pytest.approx(SECOND_PASS_SECONDS, abs=60)
    now += SECOND_PASS_SECONDS + 60
    assert await handler.run(job) == Done()
    assert results.applied == [deletion, deletion]


async def test_a_storage_that_is_away_is_waited_for(database: Database) -> None:
    _, job = await a_job(database)
    results = Results()
    results.is_away = True
    assert await ResultDeletionJobs(cast(ResultDeletion, results)).run(job) == Again("no route to host")
