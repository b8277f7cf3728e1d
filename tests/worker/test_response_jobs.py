"""What a gateway's refusal means for the job of a background response."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import msgspec
import pytest

from quarterdeck.errors import RateLimitError, ServiceUnavailableError
from quarterdeck.gateway.http.requests_in_flight import shutting_down
from quarterdeck.protocol import sse
from quarterdeck.resources.responses.watching import Result, put_back_for
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
        (503, "overloaded", Again("No.")),
        (503, "shutting_down", Again(after=2.0, is_counted=False)),
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

    def __init__(self, last: bytes) -> None:
        self._last = last

    def claims(self, job: Job, request: str, **more: Any) -> None: ...

    @asynccontextmanager
    async def stream(self, *arguments: Any, **more: Any) -> AsyncIterator["Ending"]:
        yield self

    async def pieces(self) -> AsyncIterator[bytes]:
        yield self._last


def last_event(result: Result) -> bytes:
    return sse.event(msgspec.to_builtins(result))


@pytest.mark.parametrize(
    ("last", "outcome"),
    [
        (last_event(Result("done")), Done()),
        (last_event(put_back_for(RateLimitError("Slower.", retry_after=40))), Again("Slower.", 40.0, is_counted=False)),
        (
            last_event(put_back_for(RateLimitError("Slower.", code="queue_full", retry_after=1))),
            Again("Slower.", 15.0, is_counted=False),
        ),
        (last_event(put_back_for(ServiceUnavailableError("No engine.", retry_after=3))), Again("No engine.", 3.0)),
        (last_event(Result("busy")), Again(after=2.0, is_counted=False)),
        (sse.error_event(shutting_down()), Again(after=2.0, is_counted=False)),
        (sse.error_event(ServiceUnavailableError("No.")), Again("The gateway's answer ended early.")),
        (b"", Again("The gateway's answer ended early.")),
    ],
)
async def test_what_is_no_failure_of_the_response_costs_no_attempt(
    database: Database, last: bytes, outcome: Outcome
) -> None:
    jobs = JobStore(database)
    await jobs.add(NewJob(kind=KIND, org="default", team="t", key="key_1", subject="resp_1"))
    (job,) = await jobs.claim(KIND, seconds=60, limit=1)
    gateway = cast(GatewayClient, Ending(last))
    assert await ResponseJobs(gateway, BackgroundStore(database, jobs)).run(job) == outcome
