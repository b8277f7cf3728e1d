"""Usage by hour, summed once from the ledger, so that a report over months reads hours and not requests.

An hour is rolled up once it ended CLOSE_SECONDS ago. A record that is inserted later than LATE_SECONDS after its
request began marks its hour as late: until that is rolled up again, reports read the hour from the ledger. So sums are
those of the ledger at any time, to the last digit, and inserting a record that is not late costs nothing.

Workers may roll up and insert at once: who marks an hour holds the organisation's lock shared, who rolls up holds it
alone (SQLite has one writer).
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, func, insert, or_, select
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.record import RequestRecord
from quarterdeck.store import ledger_retention
from quarterdeck.store.database import Database
from quarterdeck.store.ledger_retention import LOCK_CLASS, delete_rows, lock_alone
from quarterdeck.store.ledger_tables import ledger
from quarterdeck.store.usage import COUNTS, Group, Source, Sums, sum_rows
from quarterdeck.store.usage_tables import usage_late_hours, usage_rolled, usage_rollups

HOUR = ledger_retention.HOUR
LATE_SECONDS = HOUR
"""After the request began. The database's clock and the workers' may differ by the rest of CLOSE_SECONDS."""
CLOSE_SECONDS = 2 * HOUR

DIMENSIONS = ("team", "key", "model", "route", "operation", "status", "prompt", "prompt_version")
"""What a roll-up can be grouped and filtered by. Not by user or endpoint: there may be as many as requests."""

LEDGER = Source(ledger, ledger.c.started)
ROLLUPS = Source(usage_rollups, usage_rollups.c.hour, usage_rollups.c.requests)


@dataclass(frozen=True, slots=True)
class Split:
    """A range of time, by where it is read. Unix seconds; None: unbounded."""

    rolled: tuple[int | None, int] | None
    """From roll-ups, `[from, to)`, whole hours. None: nothing is."""
    late: tuple[int, ...]
    """Hours of `rolled` that are read from the ledger."""
    raw: tuple[tuple[float | None, float | None], ...]
    """From the ledger, `[from, to)` each; the late hours are among them."""


def split(since: float | None, until: float | None, rolled_until: int, late: Iterable[int]) -> Split:
    """Divide `[since, until)`. Hours before `rolled_until` are rolled up, except the late ones. Pure."""
    start = None if since is None else -int(-since // HOUR) * HOUR
    end = rolled_until if until is None else min(rolled_until, int(until // HOUR) * HOUR)
    if end <= (start if start is not None else end - 1):
        return Split(None, (), ((since, until),))
    hours = tuple(sorted(hour for hour in set(late) if (start is None or hour >= start) and hour < end))
    raw: list[tuple[float | None, float | None]] = [(hour, hour + HOUR) for hour in hours]
    if start is not None and since is not None and since < start:
        raw.insert(0, (since, start))
    if until is None or end < until:
        raw.append((end, until))
    return Split((start, end), hours, tuple(raw))


async def mark_late(connection: AsyncConnection, records: Sequence[RequestRecord], now: float) -> None:
    """Mark the hours of records that are inserted late, in the transaction that inserts them.

    Late is also what began before the end of what is rolled up: the clock of this worker, or of the one that rolled up,
    may have been wrong.
    """
    orgs = {record.org for record in records}
    found = await connection.execute(
        select(usage_rolled.c.org, usage_rolled.c.until).where(usage_rolled.c.org.in_(orgs))
    )
    rolled = {row.org: row.until for row in found}
    before = now - LATE_SECONDS
    late = sorted(
        {
            (record.org, _hour(record.started))
            for record in records
            if record.started < before or record.started < rolled.get(record.org, 0)
        }
    )
    if not late:
        return
    is_sqlite = connection.dialect.name == "sqlite"
    if not is_sqlite:
        for org in sorted({org for org, _ in late}):
            await _lock(connection, org, "pg_advisory_xact_lock_shared")
    make = insert_sqlite if is_sqlite else insert_postgres
    statement = make(usage_late_hours).on_conflict_do_nothing()
    await connection.execute(statement, [{"org": org, "hour": hour} for org, hour in late])


async def split_for(connection: AsyncConnection, org: str, since: float | None, until: float | None) -> Split:
    """`split` as the database says. The connection must read from one snapshot."""
    query = select(usage_rolled.c.until, usage_rolled.c.pruned).where(usage_rolled.c.org == org)
    rolled = (await connection.execute(query)).one_or_none()
    if rolled is None:
        return Split(None, (), ((since, until),))
    late = await connection.scalars(select(usage_late_hours.c.hour).where(usage_late_hours.c.org == org))
    # Of hours that were deleted from the ledger, the roll-up is all there is.
    return split(since, until, rolled.until, [hour for hour in late if hour >= (rolled.pruned or 0)])


class Rollups:
    """Rolls up the hours of organisations. Any number of workers may do so at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def advance(self, org: str, now: float) -> bool:
        """Roll up one hour: a late one first, then the next that has ended. Returns whether there may be more.

        Raises DatabaseUnavailableError.
        """
        closed = _hour(now - CLOSE_SECONDS)
        async with self._database.begin() as connection:
            await self._lock_alone(connection, org)
            until = await self._until(connection, org, closed)
            pruned = await connection.scalar(select(usage_rolled.c.pruned).where(usage_rolled.c.org == org)) or 0
            query = select(func.min(usage_late_hours.c.hour)).where(usage_late_hours.c.org == org)
            # The last hour before `pruned` may be just being deleted (`ledger_retention`).
            late = await connection.scalar(
                query.where(
                    usage_late_hours.c.hour < until,
                    or_(usage_late_hours.c.hour >= pruned, usage_late_hours.c.hour < pruned - HOUR),
                )
            )
            if late is not None:
                await self._roll_up(connection, org, late, is_pruned=late < pruned)
                return True
            first = await connection.scalar(
                select(func.min(ledger.c.started)).where(ledger.c.org == org, ledger.c.started >= until)
            )
            hour = closed if first is None else min(_hour(first), closed)
            if hour < closed:
                await self._roll_up(connection, org, hour)
            done = min(hour + HOUR, closed)
            await connection.execute(usage_rolled.update().where(usage_rolled.c.org == org).values(until=done))
            return done < closed

    async def _lock_alone(self, connection: AsyncConnection, org: str) -> None:
        if not self._database.is_sqlite:
            await lock_alone(connection, org)

    async def _until(self, connection: AsyncConnection, org: str, closed: int) -> int:
        """The end of what is rolled up; for a new organisation, the hour of its first request."""
        make = insert_sqlite if self._database.is_sqlite else insert_postgres
        # A write first: SQLite's transaction must be the writer before it reads.
        await connection.execute(make(usage_rolled).values(org=org, until=0).on_conflict_do_nothing())
        until: int = await connection.scalar(select(usage_rolled.c.until).where(usage_rolled.c.org == org)) or 0
        return until

    async def _roll_up(self, connection: AsyncConnection, org: str, hour: int, *, is_pruned: bool = False) -> None:
        """Sum the hour anew. Its late mark goes with it.

        `is_pruned`: the ledger has only what came after the hour was deleted there. That is added, and deleted too.
        """
        sums: dict[Group, Sums] = {}
        conditions = (ledger.c.org == org, ledger.c.started >= hour, ledger.c.started < hour + HOUR)
        await sum_rows(connection, LEDGER, conditions, DIMENSIONS, None, sums)
        if is_pruned:
            rolled = (usage_rollups.c.org == org, usage_rollups.c.hour == hour)
            await sum_rows(connection, ROLLUPS, rolled, DIMENSIONS, None, sums)
            columns = (ledger.c.id, ledger.c.team, ledger.c.key, ledger.c.started, ledger.c.cost)
            await delete_rows(connection, org, (await connection.execute(select(*columns).where(*conditions))).all())
        for table in (usage_rollups, usage_late_hours):
            await connection.execute(delete(table).where(table.c.org == org, table.c.hour == hour))
        if sums:
            await connection.execute(insert(usage_rollups), [_row(org, hour, group, sums[group]) for group in sums])


def _row(org: str, hour: int, group: Group, total: Sums) -> dict[str, Any]:
    values = dict(zip(DIMENSIONS, (value or "" for value in group[1:]), strict=True))
    counts = dict(zip(("requests", *COUNTS), total.counts, strict=True))
    return {"org": org, "hour": hour, **values, **counts, "cost": total.cost, "saved": total.saved}


def _hour(seconds: float) -> int:
    return int(seconds // HOUR) * HOUR


async def _lock(connection: AsyncConnection, org: str, function: str) -> None:
    """Held to the end of the transaction. Two organisations may share a lock: they wait for each other."""
    await connection.execute(select(getattr(func, function)(LOCK_CLASS, func.hashtext(org))))
