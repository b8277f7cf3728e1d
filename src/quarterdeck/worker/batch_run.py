"""Executes the requests of a batch through the gateway: as many at once as there is room for, each until it has a
result. Results are stored each half second, and what is stored is not executed again.

A request's id is made of the batch, its line and the number of answers that it has had. A worker that is killed leaves
requests without a stored result: they are sent again with the same ids, so each is charged once.
"""

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial

import msgspec

from quarterdeck import ids
from quarterdeck.errors import NotFoundError, StorageUnavailableError
from quarterdeck.protocol.batches.input_lines import Line, read_line
from quarterdeck.protocol.batches.results import Result, answered, retry_pause, unexecuted, verdict
from quarterdeck.resources.batches.concurrency import Concurrency
from quarterdeck.settings.batches import BatchesConfig
from quarterdeck.store.batches import BatchRow, BatchStore, NewResult
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.jobs import Job
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.gateway_client import (
    SHUTTING_DOWN,
    AnswerTooLargeError,
    GatewayAnswer,
    GatewayClient,
    GatewayUnavailableError,
    error_of,
)

log = logging.getLogger(__name__)

PRIORITY = -1
"""Below every key's in the gateway's queues."""
FLUSH_SECONDS = 0.5
"""Between two writes of results: what a killed worker repeats."""
MAX_UNWRITTEN = 8 * 1024 * 1024
"""Bytes of results that wait for the database; then no further requests are sent."""
MAX_IN_FLIGHT = 16 * 1024 * 1024
"""Bytes of the requests that are sent at once; one that is larger is sent alone."""
MAX_ANSWERS = 128 * 1024 * 1024
"""Bytes of the answers that may arrive at once, if each is as large as the largest so far."""
ALONE_AFTER, MAX_LOST = 2, 6
"""Connections to gateways that were lost while they had a request. After two it is sent with no other of its kind, so
that a request which ends its gateway takes no others with it; after six it has failed."""
ANSWER_SECONDS = 900.0
"""For one request: the gateway's own limit."""
CANCEL_SECONDS = 10.0
"""How long requests in flight may go on after a cancellation or a failure, as they are nearly paid for."""
DATABASE_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class Ending:
    """Why no more requests are executed."""

    status: str
    code: str = ""
    message: str = ""


class Tries(msgspec.Struct, array_like=True):
    """Of a request: answers that it has had, those of them that count as failures, and connections that were lost."""

    answers: int = 0
    failures: int = 0
    lost: int = 0


class BatchRun:
    """One attempt of a batch's job. `execute` may be cancelled at any time."""

    def __init__(
        self,
        job: Job,
        batch: BatchRow,
        lines: Callable[[], AsyncIterator[tuple[int, bytes]]],
        store: BatchStore,
        gateway: GatewayClient,
        settings: Callable[[], BatchesConfig],
        metrics: WorkerMetrics,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._job = job
        self._batch = batch
        self._lines = lines
        self._store = store
        self._gateway = gateway
        self._settings = settings
        self._metrics = metrics
        self._wall = wall
        self._concurrency = Concurrency(settings().max_concurrency)
        self._tries: dict[int, Tries] = _decoded(job.progress)
        self._results: list[Result] = []
        self._unwritten = 0
        self._running: set[asyncio.Task[None]] = set()
        self._in_flight = 0
        """Bytes of their requests."""
        self._largest = 0
        """Bytes of an answer."""
        self._alone = asyncio.Lock()
        """Held by a request that may have ended its gateway."""
        self._written = asyncio.Event()
        """Set by the next write, which stores the tries, and replaced by a new event."""
        self._ending: Ending | None = None
        self._failure: BaseException | None = None
        """Of a request's task: a bug. It ends the attempt."""
        self._flushed = 0.0

    async def execute(self) -> Ending:
        """Execute what has no result. Raises JobLostError, NotFoundError (the input is gone) and
        StorageUnavailableError."""
        if (ending := self._ending_of(self._batch.status)) is not None:  # meanwhile no worker had it
            return ending
        done = await self._store.done_lines(self._batch.id)
        source = self._pending(done)
        try:
            while True:
                has_more = await self._feed(source)
                is_over = self._ending is not None or self._failure is not None  # a request may have no result
                if not (has_more or self._running or is_over):
                    await self._flush()
                    return Ending("completed")
                await self._wait()
                if self._failure is not None:
                    raise self._failure
                await self._flush()
                if self._ending is not None:
                    return await self._stop(self._ending)
        except (NotFoundError, StorageUnavailableError):  # what was sent keeps its results
            await self._stop(Ending("failed"))
            raise
        finally:
            for task in self._running:
                task.cancel()
            await source.aclose()

    async def _pending(self, done: set[int]) -> AsyncGenerator[Line]:
        async for number, text in self._lines():
            if number not in done:
                yield read_line(number, text, self._batch.endpoint)

    async def _feed(self, source: AsyncIterator[Line]) -> bool:
        """Send as many requests as there is room for. False: all were sent."""
        self._concurrency.most = self._settings().max_concurrency
        while self._has_room():
            line = await anext(source, None)
            if line is None:
                return False
            task = asyncio.create_task(self._complete(line))
            self._running.add(task)
            self._in_flight += len(line.body)
            task.add_done_callback(partial(self._ended, len(line.body)))
        return True

    def _has_room(self) -> bool:
        if not self._running:
            return self._unwritten < MAX_UNWRITTEN
        if self._in_flight >= MAX_IN_FLIGHT or self._unwritten >= MAX_UNWRITTEN:
            return False
        is_small = (len(self._running) + 1) * self._largest <= MAX_ANSWERS
        return is_small and len(self._running) < self._concurrency.limit

    def _ended(self, size: int, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._in_flight -= size
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failure = error

    async def _wait(self) -> None:
        """Until a request has ended, or results are to be written."""
        left = max(0.0, self._flushed + FLUSH_SECONDS - time.monotonic())
        if self._running:
            await asyncio.wait(self._running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
        else:
            await asyncio.sleep(left)

    async def _flush(self) -> None:
        """Write results, where it is time for that, and see whether the batch is to end."""
        is_due = time.monotonic() - self._flushed >= FLUSH_SECONDS or self._unwritten >= MAX_UNWRITTEN
        if not is_due and self._running:
            return
        results, self._results, self._unwritten = self._results, [], 0
        for each in results:
            self._tries.pop(each.line, None)
        new = [NewResult(each.line, each.is_error, each.text, msgspec.structs.astuple(each.tokens)) for each in results]
        # Before the tries are encoded: those of later answers are part of the next write.
        written, self._written = self._written, asyncio.Event()
        progress = msgspec.json.encode(list(self._tries.items()))
        while True:
            try:
                status = await self._store.record(self._job, new, progress)
                break
            except DatabaseUnavailableError as error:  # the job loop ends this when the lease is over
                log.info("results of a batch wait for the database: %s", error, extra={"batch": self._batch.id})
                await asyncio.sleep(DATABASE_PAUSE)
        self._flushed = time.monotonic()
        self._metrics.batch_concurrency.set(self._concurrency.limit)
        written.set()
        for each in results:
            self._metrics.batch_requests.add(("failed" if each.is_error else "completed",))
        if self._ending is None:
            self._ending = self._ending_of(status)

    def _ending_of(self, status: str | None) -> Ending | None:
        """How a batch of this status ends now. None: it goes on."""
        if status is None:
            return Ending("deleted")
        if status == "cancelling":
            return Ending("cancelled")
        return Ending("expired") if self._wall() >= self._batch.expires else None

    async def _stop(self, ending: Ending) -> Ending:
        """End the requests in flight; what they have brought by then is kept."""
        if self._running and ending.status in ("cancelled", "failed"):
            await asyncio.wait(self._running, timeout=CANCEL_SECONDS)
        running = tuple(self._running)
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if ending.status != "deleted":
            self._flushed = 0.0
            await self._flush()
        return ending

    async def _complete(self, line: Line) -> None:
        """Send a request until it has a result."""
        refusals = 0
        while True:
            tries = self._tries.get(line.number, Tries())
            request = ids.step_request_id(self._batch.id, f"{line.number}/{tries.answers}")
            try:
                async with self._alone if tries.lost >= ALONE_AFTER else nullcontext():
                    answer = await self._send(line, request)
            except GatewayUnavailableError as error:
                self._concurrency.refused(time.monotonic())
                if error.was_sent and self._lost(line, tries):
                    return
                await asyncio.sleep(retry_pause(min(refusals, 3), None, random.random()))  # noqa: S311  # no secret
                refusals += 1
                continue
            except AnswerTooLargeError as error:
                self._fail(line, "answer_too_large", str(error))
                return
            except DatabaseUnavailableError:
                await asyncio.sleep(DATABASE_PAUSE)
                continue
            self._largest = max(self._largest, len(answer.body))
            code = error_of(answer)[1] if answer.status >= 400 else None
            if code == SHUTTING_DOWN:  # what its gateway cut off is charged once: it is sent again with its id
                self._concurrency.refused(time.monotonic())
                await asyncio.sleep(retry_pause(min(refusals, 3), None, random.random()))  # noqa: S311  # no secret
                refusals += 1
                continue
            found = verdict(answer.status, code, tries.failures)
            if found == "done":
                if answer.status < 400:
                    self._concurrency.succeeded(time.monotonic())
                self._keep(line, answer, request)
                return
            if found == "stop":
                message = f"The API key that created this batch can't be used any more: {error_of(answer)[0]}"
                self._ending = self._ending or Ending("failed", code or "invalid_api_key", message)
                return
            is_failure = found == "retry"
            self._tries[line.number] = Tries(tries.answers + 1, tries.failures + is_failure, tries.lost)
            written = self._written
            self._concurrency.refused(time.monotonic())
            self._metrics.batch_refusals.add(())
            if code == "no_idle_capacity":
                refusals = min(refusals, 1)  # an engine is idle again within seconds
            pause = retry_pause(tries.failures if is_failure else refusals, answer.retry_after, random.random())  # noqa: S311
            await asyncio.sleep(pause)
            await written.wait()  # the number of answers is part of the next id
            refusals += 1

    def _lost(self, line: Line, tries: Tries) -> bool:
        """A connection was lost while the gateway had this request. Whether that is its result."""
        lost = tries.lost + 1
        self._tries[line.number] = Tries(tries.answers, tries.failures, lost)
        if lost < MAX_LOST:
            return False
        self._fail(line, "no_answer", f"The gateway was lost {lost} times while it executed this request.")
        return True

    def _fail(self, line: Line, code: str, message: str) -> None:
        self._add(unexecuted(self._batch.id, line.number, line.custom_id, code=code, message=message))

    async def _send(self, line: Line, request: str) -> GatewayAnswer:
        claims = self._gateway.claims(self._job, request, priority=PRIORITY)
        left = max(1.0, min(ANSWER_SECONDS, self._batch.expires - self._wall()))
        return await self._gateway.post(self._batch.endpoint, line.body, claims, timeout=left)

    def _keep(self, line: Line, answer: GatewayAnswer, request: str) -> None:
        result = answered(
            self._batch.id,
            line.number,
            line.custom_id,
            status=answer.status,
            request=answer.headers.get("x-request-id", request),
            body=answer.body,
        )
        self._add(result)

    def _add(self, result: Result) -> None:
        self._results.append(result)
        self._unwritten += len(result.text)


def _decoded(progress: bytes) -> dict[int, Tries]:
    if not progress:
        return {}
    with suppress(msgspec.DecodeError):
        return dict(msgspec.json.decode(progress, type=list[tuple[int, Tries]]))
    return {}
