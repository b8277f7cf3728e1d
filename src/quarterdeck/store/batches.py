"""Batches: their rows, and the results of their requests until these are in files.

What a worker changes is committed with its job's lease (`JobStore.advance_on`, `finish_on`), so a worker that has lost
the job changes nothing more. Methods of the worker raise JobLostError then.
"""

import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck import ids
from quarterdeck.errors import ConflictError, NotFoundError, RateLimitError
from quarterdeck.store.batch_inputs import GRACE_SECONDS, is_there_on, release_on
from quarterdeck.store.batch_tables import batch_lines, batches
from quarterdeck.store.cursors import beyond
from quarterdeck.store.database import Database, Transaction
from quarterdeck.store.files import no_such_file
from quarterdeck.store.jobs import Job, JobStore, NewJob
from quarterdeck.store.ownership import Owner

KIND = "batch"
MAX_ATTEMPTS = 10_000
"""Claims of a batch's job: each worker that dies takes one. What ends a batch is its window."""
OPEN = ("validating", "in_progress", "finalizing", "cancelling")
PAGE = 200
"""Results that are read at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewBatch:
    endpoint: str
    input_file: str
    input_blob: str
    input_bytes: int
    window: str
    window_seconds: float
    output_expires: float | None
    metadata: Mapping[str, str] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRow:
    """Times are Unix seconds."""

    id: str
    org: str
    team: str
    key: str
    created: float
    expires: float
    endpoint: str
    window: str
    input_file: str
    input_blob: str | None
    """None: an older gateway has created it, and its file is looked up."""
    input_bytes: int | None
    output_expires: float | None
    metadata: Mapping[str, str] | None
    status: str
    ending: str | None
    model: str | None
    total: int
    completed: int
    failed: int
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    reasoning_tokens: int
    output_file: str | None
    error_file: str | None
    errors: Sequence[Mapping[str, Any]] | None
    in_progress_at: float | None
    finalizing_at: float | None
    cancelling_at: float | None
    finished_at: float | None

    @property
    def owner(self) -> Owner:
        return Owner(self.org, self.team, self.key)


@dataclass(frozen=True, slots=True)
class NewResult:
    """A finished request. `tokens`: input, cached, output, reasoning."""

    line: int
    is_error: bool
    text: bytes
    tokens: tuple[int, int, int, int] = (0, 0, 0, 0)


class BatchStore:
    def __init__(self, database: Database, jobs: JobStore) -> None:
        self._database = database
        self._jobs = jobs

    # of the gateway

    async def create(self, new: NewBatch, of: Owner, *, most: int) -> BatchRow:
        """Insert a batch with its job. Raises RateLimitError where the organisation has `most` that have not ended, and
        NotFoundError where its input file was deleted meanwhile."""
        id, now = ids.object_id("batch"), time.time()
        values = {
            "id": id,
            "org": of.org,
            "team": of.team,
            "key": of.key,
            "created": now,
            "expires": now + new.window_seconds,
            "endpoint": new.endpoint,
            "window": new.window,
            "input_file": new.input_file,
            "input_blob": new.input_blob,
            "input_bytes": new.input_bytes,
            "output_expires": new.output_expires,
            "metadata": None if new.metadata is None else dict(new.metadata),
            "status": "validating",
            **dict.fromkeys(("total", "completed", "failed"), 0),
            **dict.fromkeys(("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"), 0),
        }
        job = NewJob(
            kind=KIND,
            org=of.org,
            team=of.team,
            key=of.key,
            subject=id,
            max_attempts=MAX_ATTEMPTS,
            deadline_seconds=new.window_seconds + GRACE_SECONDS,
        )
        async with self._database.begin() as connection:
            await connection.execute(insert(batches).values(**values))
            is_open = (batches.c.org == of.org) & batches.c.finished_at.is_(None)
            if (await connection.scalar(select(func.count()).select_from(batches).where(is_open)) or 0) > most:
                await connection.rollback()
                raise RateLimitError(
                    f"The organisation has {most} unfinished batches, the most that batches.max_waiting allows.",
                    code="too_many_batches",
                    retry_after=60,
                )
            if not await is_there_on(connection, new.input_file, new.input_blob):
                await connection.rollback()
                raise no_such_file(new.input_file, param="input_file_id")
            await self._jobs.add_on(connection, job)
            return await _found(connection, id, of)

    async def retrieve(self, id: str, of: Owner) -> BatchRow:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            return await _found(connection, id, of)

    async def page(self, of: Owner, *, after: str | None, limit: int) -> list[BatchRow]:
        """At most `limit` + 1, the newest first. Raises NotFoundError for an unknown `after`."""
        columns = batches.c
        query = select(batches).where(of.owns(batches))
        async with self._database.connect() as connection:
            if after is not None:
                last = await _found(connection, after, of, param="after")
                query = query.where(beyond(batches, last.created, last.id))
            query = query.order_by(columns.created.desc(), columns.id.desc()).limit(limit + 1)
            return [row_of(row) for row in await connection.execute(query)]

    async def cancel(self, id: str, of: Owner) -> BatchRow:
        """Have a batch cancelled; it ends when its files are written. Raises NotFoundError, and ConflictError for one
        that has ended."""
        can = (batches.c.id == id) & of.owns(batches) & batches.c.status.in_(("validating", "in_progress"))
        async with self._database.begin() as connection:
            statement = update(batches).where(can).values(status="cancelling", cancelling_at=time.time())
            changed = (await connection.execute(statement)).rowcount
            row = await _found(connection, id, of)
        if not changed and row.status not in ("cancelling", "cancelled"):
            raise ConflictError(f"Cannot cancel a batch with status '{row.status}'.", code="batch_not_cancellable")
        return row

    # of the worker

    async def load(self, id: str) -> BatchRow | None:
        async with self._database.connect() as connection:
            row = (await connection.execute(select(batches).where(batches.c.id == id))).one_or_none()
        return None if row is None else row_of(row)

    async def begin(self, job: Job, *, total: int, model: str | None, now: float) -> None:
        """The input is valid. One that was cancelled meanwhile stays so."""
        async with self._database.begin() as connection:
            await self._jobs.advance_on(connection, job, b"")
            mine = batches.c.id == job.subject
            await connection.execute(update(batches).where(mine).values(total=total, model=model, in_progress_at=now))
            valid = mine & (batches.c.status == "validating")
            await connection.execute(update(batches).where(valid).values(status="in_progress"))

    async def record(self, job: Job, results: Sequence[NewResult], progress: bytes) -> str | None:
        """Store results and count them; a request that has one already keeps it. Returns the batch's status; None: it
        was deleted."""
        packed = [(each, zlib.compress(each.text, 1)) for each in results]
        async with self._database.begin() as connection:
            await self._jobs.advance_on(connection, job, progress)
            # A write, so that the batch is deleted before or after: results of a deleted one would stay for ever.
            held = update(batches).where(batches.c.id == job.subject).values(status=batches.c.status)
            status: str | None = await connection.scalar(held.returning(batches.c.status))
            if packed and status is not None:
                known = await _known_lines(connection, job.subject, [each.line for each in results])
                new = [(each, body) for each, body in packed if each.line not in known]
                if new:
                    await _insert(connection, job.subject, new)
            return status

    async def done_lines(self, id: str) -> set[int]:
        """Lines that have a result."""
        async with self._database.connect() as connection:
            return set(await connection.scalars(select(batch_lines.c.line).where(batch_lines.c.batch == id)))

    async def end(
        self, job: Job, ending: str, *, now: float, errors: Sequence[Mapping[str, Any]] | None = None
    ) -> None:
        """No more requests are executed: the batch will be `ending` when its files are written."""
        async with self._database.begin() as connection:
            await self._jobs.advance_on(connection, job, b"")
            values: dict[str, Any] = {"ending": ending, "finalizing_at": now}
            if errors is not None:
                values["errors"] = list(errors)
            if ending != "cancelled":
                values["status"] = "finalizing"
            await connection.execute(update(batches).where(batches.c.id == job.subject).values(**values))

    async def results(self, id: str, *, is_error: bool) -> AsyncIterator[bytes]:
        """The lines of the output file, or of the error file, in the order of the input, in pieces."""
        columns, last = batch_lines.c, -1
        while True:
            query = select(columns.line, columns.body).where(columns.batch == id, columns.line > last)
            query = query.where(columns.is_error.is_(is_error)).order_by(columns.line).limit(PAGE)
            async with self._database.connect() as connection:
                rows = (await connection.execute(query)).all()
            if not rows:
                return
            last = rows[-1].line
            for row in rows:
                yield zlib.decompress(row.body) + b"\n"

    async def finish(
        self,
        job: Job,
        status: str,
        *,
        now: float,
        output_file: str | None = None,
        error_file: str | None = None,
        errors: Sequence[Mapping[str, Any]] | None = None,
        has_files: bool = True,
        record_event: Callable[[Transaction], Awaitable[None]],
    ) -> None:
        """The batch has ended: its state, its event and the end of its job are one transaction. `has_files`: False
        where its files could not be written, so that none of its requests has a result."""
        values: dict[str, Any] = {"status": status, "ending": status, "finished_at": now}
        values |= {"output_file": output_file, "error_file": error_file}
        if errors is not None:
            values["errors"] = list(errors)
        if not has_files:
            values |= {"completed": 0, "failed": batches.c.total}
        ended = update(batches).where(batches.c.id == job.subject).values(**values)
        async with self._database.begin() as connection:
            await self._jobs.finish_on(connection, job, "done")
            await release_on(connection, list(await connection.scalars(ended.returning(batches.c.input_blob))))
            await connection.execute(delete(batch_lines).where(batch_lines.c.batch == job.subject))
            await record_event(connection)


async def delete_batches_of(connection: AsyncConnection, org: str, team: str | None = None) -> None:
    """Delete the batches of an organisation, or of one of its teams. Their jobs end when a worker sees that they are
    gone."""
    of = batches.c.org == org
    if team is not None:
        of &= batches.c.team == team
    # First the batches: a worker that adds results holds its batch, and the next statement sees what it has added.
    found = await connection.execute(delete(batches).where(of).returning(batches.c.id, batches.c.input_blob))
    gone = found.all()
    for start in range(0, len(gone), PAGE):
        ids = [row.id for row in gone[start : start + PAGE]]
        await connection.execute(delete(batch_lines).where(batch_lines.c.batch.in_(ids)))
    await release_on(connection, {row.input_blob for row in gone})


async def _known_lines(connection: AsyncConnection, id: str, lines: Sequence[int]) -> set[int]:
    found: set[int] = set()
    for start in range(0, len(lines), PAGE):
        some = batch_lines.c.line.in_(lines[start : start + PAGE])
        found.update(await connection.scalars(select(batch_lines.c.line).where(batch_lines.c.batch == id, some)))
    return found


async def _insert(connection: AsyncConnection, id: str, new: Sequence[tuple[NewResult, bytes]]) -> None:
    rows = [{"batch": id, "line": each.line, "is_error": each.is_error, "body": body} for each, body in new]
    await connection.execute(insert(batch_lines), rows)
    failed = sum(each.is_error for each, _ in new)
    sums = [sum(each.tokens[at] for each, _ in new) for at in range(4)]
    columns = batches.c
    counted = {
        "completed": columns.completed + len(new) - failed,
        "failed": columns.failed + failed,
        "input_tokens": columns.input_tokens + sums[0],
        "cached_tokens": columns.cached_tokens + sums[1],
        "output_tokens": columns.output_tokens + sums[2],
        "reasoning_tokens": columns.reasoning_tokens + sums[3],
    }
    await connection.execute(update(batches).where(columns.id == id).values(**counted))


async def _found(connection: AsyncConnection, id: str, of: Owner, *, param: str | None = None) -> BatchRow:
    query = select(batches).where(batches.c.id == id, of.owns(batches))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFoundError(f"No batch found with id '{id[:100]}'.", param=param, code="batch_not_found")
    return row_of(row)


def row_of(row: Any) -> BatchRow:
    """Of a row of the table."""
    return BatchRow(**{name: getattr(row, name) for name in BatchRow.__slots__})
