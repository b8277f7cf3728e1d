"""Jobs: work that goes on when the request that asked for it is answered. A job is a leased row.

A worker claims a job, renews its lease while it works, stores progress, and finishes or releases it. The lease of a
worker that died ends, and another claims the job: so a step may be repeated, and what it does must bear that. Every
change needs the lease, so a worker that has lost it changes nothing more.

On PostgreSQL the time is the database's; on SQLite all processes are on one machine. A clock that steps makes a lease
end early or late: the job is repeated or waits, and the fence above holds.
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Double, cast, delete, func, insert, literal, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck import ids
from quarterdeck.store.database import Database
from quarterdeck.store.job_tables import jobs

Ended = Literal["done", "failed", "cancelled"]

MAX_ATTEMPTS = 10
DEADLINE_SECONDS = 86_400.0
"""How long a job may take, waits included: a day, as OpenAI's batches."""
AT_ONCE = 500
"""Rows removed by one statement."""
MAX_ERROR = 2000
"""Characters of a stored error."""


class JobLostError(Exception):
    """The job was cancelled or deleted, or another worker has its lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """`key` pays for it; `subject` is the object that it is for, such as a response."""

    kind: str
    org: str
    team: str
    key: str
    subject: str
    payload: bytes = b""
    priority: int = 0
    """Among the jobs of the same kind and organisation: the higher first."""
    max_attempts: int = MAX_ATTEMPTS
    deadline_seconds: float = DEADLINE_SECONDS


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job that this worker has claimed. Times are Unix seconds."""

    id: str
    kind: str
    org: str
    team: str
    key: str
    subject: str
    payload: bytes
    progress: bytes
    attempts: int
    """Times that it was claimed, this one included and those that were released uncounted excepted."""
    max_attempts: int
    lease: str
    created: float
    deadline: float
    is_late: bool
    """Its deadline has passed."""
    error: str | None
    """Of the last attempt that failed."""

    @property
    def is_exhausted(self) -> bool:
        """No further attempt may be made: only its failure is to be recorded."""
        return self.is_late or self.attempts > self.max_attempts


@dataclass(frozen=True, slots=True)
class JobCounts:
    """Open jobs of one kind."""

    waiting: int
    running: int
    oldest_seconds: float
    """Age of the oldest that waits; 0: none does."""
    open_seconds: float
    """Age of the oldest that has not ended."""


class JobStore:
    """Methods that end with `_on` take part in their caller's transaction."""

    def __init__(self, database: Database, *, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._wall = wall

    async def add(self, new: NewJob) -> str:
        async with self._database.begin() as connection:
            return await self.add_on(connection, new)

    async def add_on(self, connection: AsyncConnection, new: NewJob) -> str:
        """Add a job with the object that it is for. Returns its id."""
        job_id, now = ids.object_id("job"), self._now()
        await connection.execute(
            insert(jobs).values(
                id=job_id,
                kind=new.kind,
                org=new.org,
                team=new.team,
                key=new.key,
                subject=new.subject,
                state="waiting",
                priority=new.priority,
                due=now,
                deadline=now + new.deadline_seconds,
                attempts=0,
                max_attempts=new.max_attempts,
                created=now,
                payload=new.payload,
            )
        )
        return job_id

    async def claim(
        self, kind: str, *, seconds: float, limit: int, after: str = "", busy: Collection[str] = ()
    ) -> list[Job]:
        """Claim up to `limit` jobs that are due, for `seconds`. Organisations take turns: those that follow `after` in
        order of their ids come first, and each gets an equal share. `busy` organisations get none."""
        async with self._database.connect() as connection:
            orgs = await self._waiting_orgs(connection, kind, after, limit, busy)
        if not orgs:
            return []
        claimed: list[Job] = []
        share = max(1, limit // len(orgs))
        async with self._database.begin() as connection:
            for org in orgs:
                claimed += await self._claim_of(connection, kind, org, seconds, min(share, limit - len(claimed)))
        return claimed

    async def renew(self, leases: Collection[str], *, seconds: float) -> set[str]:
        """Renew leases. Returns those that are still held: the jobs of the others are to be given up."""
        if not leases:
            return set()
        statement = update(jobs).where(jobs.c.lease.in_(list(leases)), jobs.c.finished.is_(None))
        statement = statement.values(due=self._now() + seconds)
        async with self._database.begin() as connection:
            return set(await connection.scalars(statement.returning(jobs.c.lease)))

    async def advance(self, job: Job, progress: bytes) -> None:
        """Store how far the job is. Raises JobLostError."""
        async with self._database.begin() as connection:
            await self.advance_on(connection, job, progress)

    async def advance_on(self, connection: AsyncConnection, job: Job, progress: bytes) -> None:
        """Store how far the job is, together with the effects of its step. Raises JobLostError, which rolls them
        back."""
        await self._change(connection, job, {"progress": progress})

    async def release(self, job: Job, *, delay: float = 0.0, error: str | None = None, is_counted: bool = True) -> bool:
        """Put a job back, to be claimed after `delay` seconds. `is_counted`: the attempt counts. False: the lease was
        lost."""
        values: dict[str, Any] = {"state": "waiting", "lease": None, "due": self._now() + delay}
        if error is not None:
            values["error"] = error[:MAX_ERROR]
        if not is_counted:
            values["attempts"] = jobs.c.attempts - 1
        try:
            async with self._database.begin() as connection:
                await self._change(connection, job, values)
        except JobLostError:
            return False
        return True

    async def finish(self, job: Job, state: Ended, *, error: str | None = None) -> bool:
        """End a job. False: the lease was lost."""
        try:
            async with self._database.begin() as connection:
                await self.finish_on(connection, job, state, error=error)
        except JobLostError:
            return False
        return True

    async def finish_on(self, connection: AsyncConnection, job: Job, state: Ended, *, error: str | None = None) -> None:
        """End a job together with what it was for. Raises JobLostError, which rolls both back."""
        await self._change(connection, job, {"error": (error or "")[:MAX_ERROR] or None, **self._end(state)})

    async def cancel_on(self, connection: AsyncConnection, org: str, subjects: Sequence[str]) -> None:
        """Cancel the open jobs of these objects. A worker that runs one notices it when it renews the lease."""
        statement = update(jobs).where(jobs.c.org == org, jobs.c.subject.in_(subjects), jobs.c.finished.is_(None))
        await connection.execute(statement.values(self._end("cancelled")))

    async def open_on(self, connection: AsyncConnection, kind: str, org: str) -> tuple[int, int]:
        """An organisation's jobs of a kind that have not ended, and the bytes of their payloads."""
        size = func.coalesce(func.sum(func.length(jobs.c.payload)), 0)
        query = select(func.count(), size).where(jobs.c.kind == kind, jobs.c.org == org, jobs.c.finished.is_(None))
        count, held = (await connection.execute(query)).one()
        return int(count), int(held)

    async def counts(self) -> Mapping[str, JobCounts]:
        """Open jobs by kind."""
        columns, now = jobs.c, self._now()
        waits = columns.state == "waiting"
        query = select(
            columns.kind,
            func.count().filter(waits).label("waiting"),
            func.count().label("open"),
            (now - func.min(columns.created).filter(waits)).label("oldest"),
            (now - func.min(columns.created)).label("age"),
        )
        query = query.where(columns.finished.is_(None)).group_by(columns.kind)
        async with self._database.connect() as connection:
            return {
                row.kind: JobCounts(row.waiting, row.open - row.waiting, max(0.0, row.oldest or 0.0), max(0.0, row.age))
                for row in await connection.execute(query)
            }

    async def clean(self, *, keep_seconds: float) -> bool:
        """Remove jobs that ended so long ago. Returns whether there may be more."""
        old = select(jobs.c.id).where(jobs.c.finished < self._now() - keep_seconds).limit(AT_ONCE)
        async with self._database.begin() as connection:
            return (await connection.execute(delete(jobs).where(jobs.c.id.in_(old)))).rowcount >= AT_ONCE

    async def _waiting_orgs(
        self, connection: AsyncConnection, kind: str, after: str, limit: int, busy: Collection[str]
    ) -> list[str]:
        """Organisations with a job that is due, in turns. One look-up in the index for each: there are many more
        jobs."""
        orgs: list[str] = []
        columns = jobs.c
        first = select(columns.org).where(columns.kind == kind, columns.finished.is_(None), columns.due <= self._now())
        first = first.order_by(columns.org).limit(1)
        if busy:
            first = first.where(columns.org.not_in(list(busy)))
        at, has_wrapped = after, not after
        while len(orgs) < limit:
            found = await connection.scalar(first.where(columns.org > at))
            if found is None or (orgs and found == orgs[0]):
                if has_wrapped:
                    break
                at, has_wrapped = "", True
                continue
            if found in orgs:
                break
            orgs.append(found)
            at = found
        return orgs

    async def _claim_of(
        self, connection: AsyncConnection, kind: str, org: str, seconds: float, limit: int
    ) -> list[Job]:
        if limit < 1:
            return []
        columns, now = jobs.c, self._now()
        free = (columns.kind == kind) & (columns.org == org) & columns.finished.is_(None) & (columns.due <= now)
        due = select(columns.id).where(free).order_by(columns.priority.desc(), columns.created, columns.id)
        # SQLite has no such clause, and one writer. A CTE is evaluated once: PostgreSQL may repeat a subquery.
        chosen = due.limit(limit).with_for_update(skip_locked=True).cte("chosen")
        lease = ids.object_id("lease")
        statement = update(jobs).where(columns.id.in_(select(chosen.c.id)), free)
        statement = statement.values(
            state="running", lease=literal(f"{lease}-") + columns.id, due=now + seconds, attempts=columns.attempts + 1
        )
        statement = statement.returning(*columns, (columns.deadline < now).label("is_late"))
        rows = sorted(await connection.execute(statement), key=lambda row: (-row.priority, row.created, row.id))
        names = [name for name in Job.__slots__ if name not in ("payload", "progress", "is_late")]
        return [
            Job(
                payload=row.payload or b"",
                progress=row.progress or b"",
                is_late=bool(row.is_late),
                **{name: getattr(row, name) for name in names},
            )
            for row in rows
        ]

    async def _change(self, connection: AsyncConnection, job: Job, values: Mapping[str, Any]) -> None:
        held = update(jobs).where(jobs.c.id == job.id, jobs.c.lease == job.lease, jobs.c.finished.is_(None))
        if not (await connection.execute(held.values(**values))).rowcount:
            raise JobLostError(job.id)

    def _end(self, state: Ended) -> dict[str, Any]:
        return {"state": state, "finished": self._now(), "lease": None, "payload": None, "progress": None}

    def _now(self) -> ColumnElement[float]:
        if self._database.is_sqlite:
            return literal(self._wall(), Double)
        return cast(func.extract("epoch", func.clock_timestamp()), Double)
