"""Runs the jobs of batches: validates the input, executes its requests, writes the output and error files.

Each part can be repeated: the input is checked again, requests with a result are not executed again, and the files have
ids that are derived from the batch, so a file that was written is found.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from functools import partial
from itertools import count, islice

import msgspec

from quarterdeck import ids
from quarterdeck.errors import NotFoundError, StorageFullError, StorageUnavailableError
from quarterdeck.protocol.batches.input_lines import LineError, LineTooLongError, Validation, numbered_lines, read_line
from quarterdeck.protocol.batches.results import Result, unexecuted
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.webhooks.object_events import ObjectEvents
from quarterdeck.settings.batches import BatchesConfig
from quarterdeck.store.batches import KIND, BatchRow, BatchStore, NewResult
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.jobs import Job, JobLostError
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.batch_run import BatchRun, Ending
from quarterdeck.worker.gateway_client import GatewayClient
from quarterdeck.worker.job_loop import Again, Done, Outcome

log = logging.getLogger(__name__)

READ_BYTES = 1024 * 1024
"""Of the input at once: a connection to the storage does not stay open for a day."""
LINES_PER_TURN = 256
"""Lines that are checked before other work of the worker gets a turn."""
WRITE_LINES = 500
UNEXECUTED = {
    "expired": ("batch_expired", "This request could not be executed before the completion window expired."),
    "cancelled": ("batch_cancelled", "This request was not executed, as the batch was cancelled."),
}


class BatchHandler:
    """`settings` may change."""

    kind = KIND

    def __init__(
        self,
        store: BatchStore,
        files: Files,
        gateway: GatewayClient,
        events: ObjectEvents,
        settings: Callable[[], BatchesConfig],
        metrics: WorkerMetrics,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._files = files
        self._gateway = gateway
        self._events = events
        self._settings = settings
        self._metrics = metrics
        self._wall = wall

    @property
    def max_running(self) -> int:
        return self._settings().max_running

    async def run(self, job: Job) -> Outcome:
        try:
            await self._advance(job)
        except JobLostError:
            log.info("a batch is continued by another worker", extra={"batch": job.subject})
        except (StorageUnavailableError, StorageFullError) as error:
            return Again(f"the storage of files: {error}")
        return Done()

    async def give_up(self, job: Job, reason: str) -> None:
        """The window is long over. The batch ends with what it has; without files, where they still can't be
        written."""
        try:
            await self._advance(job)
        except JobLostError:
            return
        except DatabaseUnavailableError:
            raise
        except Exception as error:  # an error boundary, as in job_loop: the batch must come to its end
            log.exception("the files of a batch could not be written", extra={"batch": job.subject})
            batch = await self._store.load(job.subject)
            if batch is not None and batch.finished_at is None:
                failure = LineError("batch_failed", f"{reason} Its files could not be written: {error}")
                await self._finish(job, batch, "failed", errors=[failure], has_files=False)

    async def _advance(self, job: Job) -> None:
        batch = await self._store.load(job.subject)
        if batch is None or batch.finished_at is not None:
            return
        if batch.in_progress_at is None:
            if batch.status == "cancelling":
                await self._finish(job, batch, "cancelled")
                return
            if not await self._validate(job, batch):
                return
            batch = await self._store.load(job.subject) or batch
        ending = batch.ending or await self._execute(job, batch)
        if ending is None:
            return
        if ending != "completed":
            await self._account(job, await self._store.load(job.subject) or batch, ending)
        await self._write(job, batch, ending)

    async def _execute(self, job: Job, batch: BatchRow) -> str | None:
        """Execute the requests. Returns how the batch ends; None: it was deleted."""
        run = BatchRun(
            job,
            batch,
            partial(self._lines, batch),
            self._store,
            self._gateway,
            self._settings,
            self._metrics,
            wall=self._wall,
        )
        try:
            found = await run.execute()
        except NotFoundError as error:  # the storage has lost it, or the batch was deleted with its file
            found = Ending("failed", error.code or "file_not_found", error.message)
            if await self._store.load(batch.id) is None:
                return None
        if found.status == "deleted":
            return None
        errors = _builtins([LineError(found.code, found.message)]) if found.code else None
        await self._store.end(job, found.status, now=self._wall(), errors=errors)
        return found.status

    async def _validate(self, job: Job, batch: BatchRow) -> bool:
        """Check every line. False: the batch has failed."""
        validation = Validation(batch.endpoint)
        try:
            async for number, text in self._lines(batch):
                validation.add(number, text)
                if validation.total % LINES_PER_TURN == 0:
                    await asyncio.sleep(0)
            validation.finish()
        except NotFoundError as error:
            validation.errors.append(LineError(error.code or "file_not_found", error.message))
        except LineTooLongError as error:
            validation.errors.append(LineError("line_too_long", "This line is too long.", error.number))
        if validation.errors:
            await self._finish(job, batch, "failed", errors=validation.errors)
            return False
        await self._store.begin(job, total=validation.total, model=validation.model, now=self._wall())
        return True

    async def _account(self, job: Job, batch: BatchRow, ending: str) -> None:
        """Give each request that was not executed an error as its result, so that every line is in one of the files."""
        code, message = UNEXECUTED.get(ending) or _reason(batch)
        done = await self._store.done_lines(batch.id)
        waiting: list[Result] = []

        async def add(number: int, custom_id: str | None) -> None:
            done.add(number)
            waiting.append(unexecuted(batch.id, number, custom_id, code=code, message=message))
            if len(waiting) == WRITE_LINES:
                await self._record(job, waiting, ending)
                waiting.clear()

        try:
            async for number, text in self._lines(batch):
                if number not in done:
                    await add(number, read_line(number, text, batch.endpoint).custom_id)
        except NotFoundError:  # which requests are left is not known, but how many
            for number in list(islice((each for each in count(1) if each not in done), batch.total - len(done))):
                await add(number, None)
        await self._record(job, waiting, ending)

    async def _record(self, job: Job, results: list[Result], ending: str) -> None:
        if results:
            await self._store.record(job, [NewResult(each.line, True, each.text) for each in results], b"")
            self._metrics.batch_requests.add((ending,), len(results))

    async def _write(self, job: Job, batch: BatchRow, status: str) -> None:
        """Write the files and end the batch. A file without lines is not made."""
        found = await self._store.load(batch.id)
        if found is None:  # deleted meanwhile
            return
        batch = found
        output = await self._file(batch, is_error=False) if batch.completed else None
        failed = await self._file(batch, is_error=True) if batch.failed else None
        await self._finish(job, batch, status, output_file=output, error_file=failed)

    async def _file(self, batch: BatchRow, *, is_error: bool) -> str:
        what = "error" if is_error else "output"
        row = await self._files.create(
            batch.owner,
            self._store.results(batch.id, is_error=is_error),
            filename=f"{batch.id}_{what}.jsonl",
            purpose="batch_output",
            expires_seconds=self._output_seconds(batch),
            file_id=ids.derived_id("file", batch.id, int(is_error)).replace("_", "-", 1),
        )
        return row.id

    def _output_seconds(self, batch: BatchRow) -> int:
        """After which a file of results expires: as the batch says, and not after the batch itself is deleted."""
        most = self._settings().retention_days * 86_400.0
        return int(most if batch.output_expires is None else min(batch.output_expires, most))

    async def _finish(
        self,
        job: Job,
        batch: BatchRow,
        status: str,
        *,
        output_file: str | None = None,
        error_file: str | None = None,
        errors: list[LineError] | None = None,
        has_files: bool = True,
    ) -> None:
        now = self._wall()
        await self._store.finish(
            job,
            status,
            now=now,
            output_file=output_file,
            error_file=error_file,
            errors=None if errors is None else _builtins(errors),
            has_files=has_files,
            record_event=lambda transaction: self._events.record_on(
                transaction, f"batch.{status}", batch.org, batch.id, now=now
            ),
        )
        self._metrics.batches_ended.add((status,))
        log.info("batch %s", status, extra={"batch": batch.id, "org": batch.org})

    async def _lines(self, batch: BatchRow) -> AsyncIterator[tuple[int, bytes]]:
        async for each in numbered_lines(self._pieces(batch)):
            yield each

    async def _pieces(self, batch: BatchRow) -> AsyncIterator[bytes]:
        """The input, in ranges, whether or not its file was deleted meanwhile. Raises NotFoundError where its content
        is gone, and StorageUnavailableError."""
        blob, size = batch.input_blob, batch.input_bytes
        if blob is None or size is None:
            row = await self._files.retrieve(batch.input_file, batch.owner)
            blob, size = row.blob, row.bytes
        for start in range(0, size, READ_BYTES):
            pieces = await self._files.open_blob(blob, start, min(start + READ_BYTES, size))
            try:
                async for piece in pieces:
                    yield piece
            finally:
                await pieces.aclose()


def _builtins(errors: list[LineError]) -> list[dict[str, object]]:
    return [msgspec.to_builtins(each) for each in errors]


def _reason(batch: BatchRow) -> tuple[str, str]:
    """Why a batch that failed in the middle did."""
    first = batch.errors[0] if batch.errors else {}
    return str(first.get("code") or "batch_failed"), str(first.get("message") or "The batch failed.")
