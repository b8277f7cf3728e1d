"""What a gateway's refusal means for the job of a background response."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from quarterdeck.store.background_responses import KIND, BackgroundStore
from quarterdeck.store.database import Database
from quarterdeck.store.jobs import Job, JobStore, NewJob
from quarterdeck.worker.gateway_client import GatewayAnswer, GatewayClient
from quarterdeck.worker.job_loop import Again, Done
from quarterdeck.worker.response_jobs import ResponseJobs


class Refusing:
    """In the gateway's place: answers with an error."""

    def __init__(self, status: int, code: str) -> None:
        self.status = status
        self._code = code

    def claims(self, job: Job, request: str, **more: Any) -> None: ...

    @asynccontextmanager
    async def stream(self, *arguments: Any, **more: Any) -> AsyncIterator["Refusing"]:
        yield self

    async def whole(self) -> GatewayAnswer:
        error = {"message": "No.", "code": self._code}
        return GatewayAnswer(self.status, msgspec.json.encode({"error": error}))


@pytest.mark.parametrize(
    ("status", "code", "is_final"),
    [(401, "invalid_api_key", True), (401, "invalid_job_credential", False), (429, "rate_limit_exceeded", False)],
)
async def test_a_refusal_that_may_pass_does_not_end_the_response(
    database: Database, status: int, code: str, *, is_final: bool
) -> None:
    jobs = JobStore(database)
    await jobs.add(NewJob(kind=KIND, org="default", team="t", key="key_1", subject="resp_1"))
    (job,) = await jobs.claim(KIND, seconds=60, limit=1)
    gateway = cast(GatewayClient, Refusing(status, code))
    outcome = await ResponseJobs(gateway, BackgroundStore(database, jobs)).run(job)
    assert outcome == (Done() if is_final else Again("No."))
