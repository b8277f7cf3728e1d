"""The ledger: a row for every request, a pure projection of its record.

The stream delivers at least once, so inserting is idempotent by the record's id. A row's record is the one that it was
made of, without what only its trace shows (`record.TRACE_ONLY`), so readers of the ledger need no other type."""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Column, ColumnElement, Row, Table, and_, or_, select, true, tuple_
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import NotFoundError
from quarterdeck.record import Attempt, CallerTrace, RequestRecord
from quarterdeck.store.database import Database, is_unacceptable
from quarterdeck.store.ledger_insert import FIELDS, insert_in_postgres, insert_in_sqlite
from quarterdeck.store.ledger_tables import ledger
from quarterdeck.store.usage import Group, GroupBy, Sums, Usage, sum_rows, usages
from quarterdeck.store.usage_rollups import DIMENSIONS, HOUR, LEDGER, ROLLUPS, Split, mark_late, split_for
from quarterdeck.store.usage_tables import usage_rollups

Match = str | tuple[str, ...] | None
"""One value, or any of several. None: every value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFilter:
    """Rows of an org that match every field that is set. `since` is inclusive, `until` exclusive; Unix seconds."""

    org: str
    key: Match = None
    team: Match = None
    model: Match = None
    operation: Match = None
    status: Match = None
    user: Match = None
    since: float | None = None
    until: float | None = None


class RecordRefusedError(Exception):
    """The database cannot store a value of one of the records. A retry would fail as well."""


class Ledger:
    """The worker inserts; the admin API and the CLI read."""

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock
        self._enter = insert_in_sqlite if database.is_sqlite else insert_in_postgres

    async def insert(self, records: Iterable[RequestRecord]) -> int:
        """Insert records in one transaction. Returns how many were new.

        A record whose id exists is ignored, unless the existing row is `lost`: that was an estimate, and its gateway
        was alive after all or left the record on disk. Raises RecordRefusedError, and inserts none, where one of them
        cannot be stored; DatabaseUnavailableError where a retry may succeed."""
        once: dict[str, RequestRecord] = {}
        for record in records:
            if record.id not in once or once[record.id].status == "lost":
                once[record.id] = record
        if not once:
            return 0
        # Sorted by id, so that two workers with some of the same records cannot deadlock.
        sorted_records = [once[id] for id in sorted(once)]
        try:
            async with self._database.begin() as connection:
                count = await self._enter(connection, sorted_records)
                await mark_late(connection, sorted_records, self._clock())
                return count
        except (StatementError, ValueError, OverflowError) as error:
            if is_unacceptable(error):
                raise RecordRefusedError(str(error).splitlines()[0][:300]) from error
            raise

    async def retrieve(self, id: str, *, org: str) -> RequestRecord:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            row = await self._row(connection, id, org)
        if row is None:
            raise _no_such_request(id)
        return record_of(row)

    async def sum(
        self,
        where: LedgerFilter,
        *,
        by: Sequence[GroupBy] = (),
        bucket_seconds: int | None = None,
    ) -> list[Usage]:
        """Requests, tokens and exact cost by group, sorted by bucket and group. Raises as `Database.report`."""
        can_roll_up = {*by, *_filters(where)} <= {*DIMENSIONS, "org"} and (bucket_seconds or HOUR) % HOUR == 0
        sums: dict[Group, Sums] = {}
        async with self._database.report() as connection:
            await self._database.read_snapshot(connection)
            ranges = Split(None, (), ((where.since, where.until),))
            if can_roll_up:
                ranges = await split_for(connection, where.org, where.since, where.until)
            if ranges.rolled is not None:
                await sum_rows(connection, ROLLUPS, _in_rollups(where, ranges), by, bucket_seconds, sums)
            if ranges.raw:
                within = or_(*(and_(*_between(ledger.c.started, *each)) for each in ranges.raw))
                await sum_rows(connection, LEDGER, [*_matching(ledger, where), within], by, bucket_seconds, sums)
        return usages(sums)

    async def list(self, where: LedgerFilter, *, limit: int = 100, after: str | None = None) -> list[RequestRecord]:
        """Newest first; `after` is the last id of the previous page. Raises NotFoundError where that does not exist."""
        query = select(ledger).where(*_conditions(where))
        async with self._database.connect() as connection:
            if after is not None:
                last = await self._row(connection, after, where.org)
                if last is None:
                    raise _no_such_request(after, param="after")
                query = query.where(tuple_(ledger.c.started, ledger.c.id) < (last.started, last.id))
            query = query.order_by(ledger.c.started.desc(), ledger.c.id.desc()).limit(limit)
            return [record_of(row) for row in await connection.execute(query)]

    async def _row(self, connection: AsyncConnection, id: str, org: str) -> Row[Any] | None:
        query = select(ledger).where(ledger.c.id == id, ledger.c.org == org)
        return (await connection.execute(query)).one_or_none()


def record_of(row: Row[Any]) -> RequestRecord:
    """The record that a row was projected from."""
    named = row._asdict()  # public in spite of its name, as in every namedtuple
    fields = {name: named[name] for name in FIELDS}
    fields["attempts"] = tuple(msgspec.convert(attempt, Attempt) for attempt in fields["attempts"])
    fields["tags"] = tuple(fields["tags"])
    trace = fields.pop("caller_trace_id")
    return RequestRecord(**fields, trace=CallerTrace(trace) if trace else None)


def _conditions(where: LedgerFilter) -> list[ColumnElement[bool]]:
    return [*_matching(ledger, where), *_between(ledger.c.started, where.since, where.until)]


def _filters(where: LedgerFilter) -> list[str]:
    """The columns that a filter names, besides the organisation."""
    names = ("key", "team", "model", "operation", "status", "user")
    return [name for name in names if getattr(where, name) is not None]


def _matching(table: Table, where: LedgerFilter) -> list[ColumnElement[bool]]:
    """All conditions but those of time."""
    conditions: list[ColumnElement[bool]] = [table.c.org == where.org]
    for name in _filters(where):
        wanted = getattr(where, name)
        column = table.c[name]
        conditions.append(column == wanted if isinstance(wanted, str) else column.in_(wanted))
    return conditions


def _between(time: Column[Any], since: float | None, until: float | None) -> list[ColumnElement[bool]]:
    conditions: list[ColumnElement[bool]] = [true()]
    if since is not None:
        conditions.append(time >= since)
    if until is not None:
        conditions.append(time < until)
    return conditions


def _in_rollups(where: LedgerFilter, ranges: Split) -> list[ColumnElement[bool]]:
    assert ranges.rolled is not None  # noqa: S101  # the caller's case
    hour = usage_rollups.c.hour
    conditions = [*_matching(usage_rollups, where), *_between(hour, *ranges.rolled)]
    return [*conditions, hour.not_in(ranges.late)] if ranges.late else conditions


def _no_such_request(id: str, param: str | None = None) -> NotFoundError:
    return NotFoundError(f"No such request: '{id}'.", param=param, code="request_not_found")
