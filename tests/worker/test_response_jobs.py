"""What a gateway's refusal means for the job of a background response."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from quarterdeck.errors import RateLimitError, ServiceUnavailableError
from quarterdeck.protocol import sse
from quarterdeck.resources.responses.background import Result, put_back_for
from quarterdeck.store.background_responses import KIND, BackgroundStore
from quarterdeck.store.database import Database
from quarterdeck.store.jobs import Job, JobStore, NewJob
from quarterdeck.worker.gateway_client import GatewayAnswer, GatewayClient
from quarterdeck.worker.job_loop import Again, Done, Outcome
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
    ("status", "code", "outcome"),
    [
        (401, "invalid_api_key", Done()),
        (401, "invalid_job_credential", Again("No.")),
        (429, "rate_limit_exceeded", Again("No.", 15.0, is_counted=False)),
        (503, "shutting_down", Again("No.")),
    ],
)
async def test_a_refusal_that_may_pass_does_not_end_the_response(
    database: Database, status: int, code: str, outcome: Outcome
) -> None:
    jobs = JobStore(database)
    await jobs.add(NewJob(kind=KIND, org="default", team="t", key="key_1", subject="resp_1"))
    (job,) = await jobs.claim(KIND, seconds=60, limit=1)
    gateway = cast(GatewayClient, Refusing(status, code))
    assert await ResponseJobs(gateway, BackgroundStore(database, jobs)).run(job) == outcome


class Ending:
    """In the gateway's place: answers with a result."""

    status = 200

    def __init__(self, result: Result) -> None:
        self._result = result

    def claims(self, job: Job, request: str, **more: Any) -> None: ...

    @asynccontextmanager
    async def stream(self, *arguments: Any, **more: Any) -> AsyncIterator["Ending"]:
        yield self

    async def pieces(self) -> AsyncIterator[bytes]:
        yield sse.event(msgspec.to_builtins(self._result))


async def test_a_response_that_finds_no_room_waits_without_losing_an_attempt(database: Database) -> None:
    jobs = JobStore(database)
    await jobs.add(NewJob(kind=KIND, org="default", team="t", key="key_1", subject="resp_1"))
    (job,) = await jobs.claim(KIND, seconds=60, limit=1)
    for error, outcome in (
        (RateLimitError("Slower.", retry_after=40), Again("Slower.", 40.0, is_counted=False)),
        (RateLimitError("Slower.", code="queue_full", retry_after=1), Again("Slower.", 15.0, is_counted=False)),
        (ServiceUnavailableError("No engine.", retry_after=3), Again("No engine.", 3.0)),
    ):
        gateway = cast(GatewayClient, Ending(put_back_for(error)))
        assert await ResponseJobs(gateway, BackgroundStore(database, jobs)).run(job) == outcome
