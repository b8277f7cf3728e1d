"""Jobs that delete results of batches: one for each deletion of contents by an admin.

A second pass deletes what was on its way at the first: requests that ran, and records that had not arrived.
"""

import logging
import time
from collections.abc import Callable

import msgspec

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.resources.batches.result_deletion import ResultDeletion
from quarterdeck.store.contents import RESULT_DELETION_KIND, Deletion
from quarterdeck.store.jobs import Job
from quarterdeck.worker.job_loop import Again, Done, Outcome

log = logging.getLogger(__name__)

SECOND_PASS_SECONDS = 1800.0
"""After the deletion: the longest request takes 15 minutes, and its record seconds more."""


class ResultDeletionJobs:
    """A `JobHandler`."""

    kind = RESULT_DELETION_KIND
    max_running = 1
    """Each reads the files of the organisation's batches."""

    def __init__(self, results: ResultDeletion, *, wall: Callable[[], float] = time.time) -> None:
        self._results = results
        self._wall = wall

    async def run(self, job: Job) -> Outcome:
        deletion = msgspec.json.decode(job.payload, type=Deletion)
        is_second = self._wall() >= deletion.at + SECOND_PASS_SECONDS
        try:
            count = await self._results.apply(deletion)
        except ServiceUnavailableError as error:
            return Again(str(error))
        if count:
            log.info("deleted the contents of %d results of batches", count, extra={"org": job.org, "by": deletion.by})
        if is_second:
            return Done()
        return Again(after=max(1.0, deletion.at + SECOND_PASS_SECONDS - self._wall()), is_counted=False)

    async def give_up(self, job: Job, reason: str) -> None:
        log.error(
            "results of batches could not be deleted: %s", reason, extra={"org": job.org, "deletion": job.subject}
        )
