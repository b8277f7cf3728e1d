"""Background responses: a gateway executes each, and this worker waits for the end.

The gateway's answer is a stream of comments and one event with the result. A worker that dies stops nothing: the
gateway goes on, and the next attempt finds what has become of it. Where the gateway dies, the next attempt has another
one continue (`resources.responses.background`).
"""

import time
from collections.abc import Callable

import msgspec

from quarterdeck.protocol import sse
from quarterdeck.resources.responses.background_steps import ended_by_others
from quarterdeck.store.background_responses import KIND, BackgroundStore
from quarterdeck.store.jobs import Job
from quarterdeck.worker.gateway_client import SHUTTING_DOWN, GatewayClient, GatewayUnavailableError, error_of
from quarterdeck.worker.job_loop import Again, Done, Outcome

PATH = "/v1/responses"
IDLE_SECONDS = 30.0
"""Without a sign of the gateway for so long, it counts as gone. It gives one every 5 s."""
BUSY_SECONDS = 2.0
"""Until the next attempt where another gateway may still execute the response."""
WAIT_SECONDS = 15.0
"""The least until the next attempt of a response that a limit has refused."""
MAX_RUNNING = 64
"""Of one worker: each is an open connection to a gateway, and little else."""


class _Error(msgspec.Struct):
    code: str | None = None


class _Result(msgspec.Struct):
    """The gateway's last event: a result, or the error of a stream that it has ended."""

    state: str = ""
    error: str | _Error | None = None
    after: float | None = None

    @property
    def reason(self) -> str | None:
        return self.error if isinstance(self.error, str) else None

    @property
    def is_of_shutdown(self) -> bool:
        return isinstance(self.error, _Error) and self.error.code == SHUTTING_DOWN


class ResponseJobs:
    """A `JobHandler`."""

    kind = KIND

    def __init__(
        self,
        gateway: GatewayClient,
        store: BackgroundStore,
        *,
        max_running: int = MAX_RUNNING,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._gateway = gateway
        self._store = store
        self._max_running = max_running
        self._wall = wall

    @property
    def max_running(self) -> int:
        return self._max_running

    async def run(self, job: Job) -> Outcome:
        claims = self._gateway.claims(job, f"req_{job.id.removeprefix('job_')}", response=job.subject)
        received = b""
        try:
            async with self._gateway.stream(PATH, job.payload, claims, idle_seconds=IDLE_SECONDS) as answer:
                if answer.status != 200:
                    return await self._refused(job, *error_of(await answer.whole()), answer.status)
                async for piece in answer.pieces():
                    received += piece
        except GatewayUnavailableError as error:
            return Again(str(error))
        result = _result_of(received)
        if result.state == "done":
            return Done()
        if result.state == "busy" or result.is_of_shutdown:
            return Again(after=BUSY_SECONDS, is_counted=False)
        if result.state == "wait":
            return Again(result.reason, max(result.after or 0.0, WAIT_SECONDS), is_counted=False)
        return Again(result.reason or "The gateway's answer ended early.", result.after)

    async def give_up(self, job: Job, reason: str) -> None:
        await self._fail(job, reason)

    async def _refused(self, job: Job, message: str, code: str | None, status: int) -> Outcome:
        """The gateway does not execute it. A key that is no longer valid, or a request that is not, never will be."""
        if status == 429:
            return Again(message, WAIT_SECONDS, is_counted=False)
        if code == SHUTTING_DOWN:
            return Again(after=BUSY_SECONDS, is_counted=False)
        if status in (408, 409) or status >= 500 or code == "invalid_job_credential":
            return Again(message)  # that code: clocks differ, or the platform's secret was changed
        await self._fail(job, message)
        return Done()

    async def _fail(self, job: Job, message: str) -> None:
        found = await self._store.read_open(job.subject, job.org)
        if found is None:
            return
        error = {"code": "server_error", "message": message}
        body = ended_by_others(found.body, found.steps, "failed", shows_logprobs=found.shows_logprobs, error=error)
        await self._store.end(job.subject, job.org, found, body, now=self._wall())


def _result_of(received: bytes) -> _Result:
    for event in sse.events(received):
        if data := sse.data(event):
            try:
                return msgspec.json.decode(data, type=_Result)
            except (msgspec.MsgspecError, UnicodeDecodeError):
                return _Result()
    return _Result()
