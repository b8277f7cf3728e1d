"""The ledger: a row for every request, a pure projection of its record.

The stream delivers at least once, so inserting is idempotent by the record's id. `record_of(row_of(r))` is `r`, so
readers of the ledger need no other type."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, localcontext
from typing import Any, Literal

import msgspec
from sqlalchemy import BigInteger, ColumnElement, Double, Row, cast, func, literal_column, select, tuple_
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import dialect as sqlite_dialect
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import NotFoundError
from quarterdeck.money import SUM_DIGITS
from quarterdeck.record import Attempt, RequestRecord
from quarterdeck.store.database import Database, is_unacceptable
from quarterdeck.store.exact import exact_text
from quarterdeck.store.tables import ledger

GroupBy = Literal["org", "team", "key", "model", "route", "operation", "endpoint", "user", "status"]

MAX_TEXT = 512
"""Characters stored of free text from the request: `user`, `session`."""

_INT64 = 2**63
_TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
# An addition that is not exact raises instead of rounding: 200 digits are more than any sum of money has.
_EXACT = Context(prec=SUM_DIGITS, traps=[Inexact])


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerFilter:
    """Rows of an org that match every field that is set. `since` is inclusive, `until` exclusive; Unix seconds."""

    org: str
    key: str | None = None
    team: str | None = None
    model: str | None = None
    operation: str | None = None
    status: str | None = None
    user: str | None = None
    since: float | None = None
    until: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Sums over rows."""

    group: tuple[str | None, ...] = ()
    """The values of the `by` columns, in their order."""
    bucket: int | None = None
    """Unix seconds at which the time bucket begins."""
    requests: int = 0
    input_tokens: int = 0
    cached_tokens: int = 0
    output_tokens: int = 0
    reasoning_tokens: int = 0
    cost: Decimal = Decimal(0)
    """$, exact."""
    saved: Decimal = Decimal(0)
    """$ that cache hits would have cost at the engine, exact."""


class RecordRefusedError(Exception):
    """The database cannot store a value of one of the records. A retry would fail as well."""


class Ledger:
    """The worker inserts; the admin API and the CLI read."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._enter = _SqliteInsert().enter if database.is_sqlite else _enter_in_postgres

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
        rows = [row_of(once[id]) for id in sorted(once)]
        try:
            async with self._database.begin() as connection:
                return await self._enter(connection, rows)
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
        async with self._database.report() as connection:
            rows = _sum_in_python if self._database.is_sqlite else _sum_in_sql
            found = await rows(connection, where, by, bucket_seconds)
        return sorted(found, key=lambda usage: (usage.bucket or 0, [value or "" for value in usage.group]))

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


def row_of(record: RequestRecord) -> dict[str, Any]:
    """The ledger row of a record. Pure.

    Values that PostgreSQL cannot store are dropped rather than the row: NUL in text, a seed beyond 64 bits.
    """
    row = {name: getattr(record, name) for name in _FIELDS}
    row["attempts"] = [msgspec.to_builtins(attempt) for attempt in record.attempts]
    row["tags"] = list(record.tags)
    for name, value in row.items():
        if isinstance(value, str):
            row[name] = value.replace("\x00", "�")
    for name in ("user", "session"):
        row[name] = row[name][:MAX_TEXT] if row[name] is not None else None
    for name in ("max_tokens", "seed"):
        value = row[name]
        row[name] = value if value is not None and -_INT64 <= value < _INT64 else None
    return row


def record_of(row: Row[Any]) -> RequestRecord:
    """The record that a row was projected from."""
    named = row._asdict()  # public in spite of its name, as in every namedtuple
    fields = {name: named[name] for name in _FIELDS}
    fields["attempts"] = tuple(msgspec.convert(attempt, Attempt) for attempt in fields["attempts"])
    fields["tags"] = tuple(fields["tags"])
    return RequestRecord(**fields)


ROWS_AT_ONCE = 200
"""Rows summed in one turn of the event loop: a few milliseconds."""
_FIELDS = RequestRecord.__struct_fields__
_DOUBLES = frozenset(column.name for column in ledger.c if isinstance(column.type, Double))
_CONTENTS = [column for column in ledger.c if column is not ledger.c.id]


class _SqliteInsert:
    """Inserts by the driver's own `executemany`. The statement is SQLAlchemy's; its processing of each value would
    double the cost of a row."""

    def __init__(self) -> None:
        insert = insert_sqlite(ledger)
        statement = insert.on_conflict_do_update(**_where_lost(insert.excluded))
        compiled = statement.compile(dialect=sqlite_dialect(paramstyle="qmark"))
        self._text = str(compiled)
        self._names = tuple(compiled.positiontup or ())
        self._constants = {name: value for name, value in compiled.params.items() if name not in ledger.c}

    async def enter(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> int:
        """Returns how many rows were inserted or replaced."""
        values = []
        for row in rows:
            row = self._constants | _plain(row)
            values.append(tuple([row[name] for name in self._names]))
        return (await connection.exec_driver_sql(self._text, values)).rowcount


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The values as SQLite's driver takes them. `exact` says why money is text there."""
    for name, value in row.items():
        kind = type(value)
        if kind is Decimal:
            row[name] = exact_text(value)
        elif kind is list:
            row[name] = msgspec.json.encode(value).decode()
        elif name in _DOUBLES and value is not None:
            row[name] = float(value)  # SQLite would store text in a column of numbers
    return row


async def _enter_in_postgres(connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> int:
    insert = insert_postgres(ledger)
    statement = insert.on_conflict_do_update(**_where_lost(insert.excluded)).returning(ledger.c.id)
    return len((await connection.execute(statement, rows)).all())


def _where_lost(new: Any) -> dict[str, Any]:
    """A `lost` row is replaced by one that is not."""
    return {
        "index_elements": ["id"],
        "set_": {column.name: new[column.name] for column in _CONTENTS},
        "where": (ledger.c.status == "lost") & (new.status != "lost"),
    }


def _conditions(where: LedgerFilter) -> list[ColumnElement[bool]]:
    columns = ledger.c
    conditions = [columns.org == where.org]
    for name in ("key", "team", "model", "operation", "status", "user"):
        if (value := getattr(where, name)) is not None:
            conditions.append(columns[name] == value)
    if where.since is not None:
        conditions.append(columns.started >= where.since)
    if where.until is not None:
        conditions.append(columns.started < where.until)
    return conditions


async def _sum_in_sql(
    connection: AsyncConnection, where: LedgerFilter, by: Sequence[GroupBy], bucket_seconds: int | None
) -> list[Usage]:
    groups: list[ColumnElement[Any]] = [ledger.c[name] for name in by]
    if bucket_seconds is not None:
        # A literal: in a prepared statement, two expressions with parameters are not recognised as equal in GROUP BY.
        groups.insert(0, cast(func.floor(ledger.c.started / literal_column(str(int(bucket_seconds)))), BigInteger))
    sums = [func.sum(ledger.c[name]) for name in _TOKENS]
    sums += [func.sum(ledger.c.cost), func.sum(ledger.c.saved)]
    query = select(*groups, func.count(), *sums).where(*_conditions(where)).group_by(*groups)
    usages = []
    for row in await connection.execute(query):
        values = list(row)
        bucket = None if bucket_seconds is None else values.pop(0) * bucket_seconds
        group, (count, *tokens, cost, saved) = values[: len(by)], values[len(by) :]
        if count:  # without a group there is a row even where nothing matches
            usages.append(_usage(group, bucket, count, [int(n) for n in tokens], cost, saved))
    return usages


async def _sum_in_python(
    connection: AsyncConnection, where: LedgerFilter, by: Sequence[GroupBy], bucket_seconds: int | None
) -> list[Usage]:
    """SQLite stores money as text (`exact`), so it is summed here."""
    columns = [ledger.c[name] for name in by]
    tokens = [ledger.c[name] for name in _TOKENS]
    money = (ledger.c.cost, ledger.c.saved)
    query = select(*columns, ledger.c.started, *tokens, *money).where(*_conditions(where))
    totals: dict[tuple[Any, ...], list[Any]] = {}
    async with connection.stream(query.execution_options(yield_per=ROWS_AT_ONCE)) as result:
        async for row in result:
            values = tuple(row)
            group, (started, *numbers) = values[: len(by)], values[len(by) :]
            bucket = None if bucket_seconds is None else int(started // bucket_seconds) * bucket_seconds
            total = totals.setdefault((bucket, *group), [0, 0, 0, 0, 0, Decimal(0), Decimal(0)])
            with localcontext(_EXACT):
                for i, number in enumerate((1, *numbers)):
                    total[i] += number
    return [
        _usage(group, bucket, count, tokens, cost, saved)
        for (bucket, *group), (count, *tokens, cost, saved) in totals.items()
    ]


def _usage(
    group: Sequence[Any], bucket: int | None, count: int, tokens: Sequence[int], cost: Decimal, saved: Decimal
) -> Usage:
    return Usage(
        group=tuple(group),
        bucket=bucket,
        requests=count,
        cost=cost,
        saved=saved,
        **dict(zip(_TOKENS, tokens, strict=True)),
    )


def _no_such_request(id: str, param: str | None = None) -> NotFoundError:
    return NotFoundError(f"No such request: '{id}'.", param=param, code="request_not_found")
