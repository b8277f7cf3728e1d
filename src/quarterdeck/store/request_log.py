"""The ledger as a log of requests: search by what is known of them, newest first, a page at a time.

A page begins after the last request that the page before it looked at, in the order of their start, so rows that are
inserted meanwhile neither repeat nor move anything. Every filter by a value has an index (`tables.ledger`); filters by
cost, latency and tag look at the rows that the others leave.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Float, Row, Select, bindparam, cast, exists, func, literal_column, or_, select
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import NotFoundError
from quarterdeck.record import RequestRecord
from quarterdeck.store.contents import unpacked
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import record_of
from quarterdeck.store.ledger_tables import contents, ledger

EQUAL = (
    *("key", "team", "model", "route", "prompt", "prompt_version", "operation", "status", "error_code", "http_status"),
    *("user", "session", "cache", "endpoint", "finish_reason"),
)
"""Columns that a filter may give a value for."""
TEXTS_AT_ONCE = 50
"""Contents that are in memory at once: with the largest caps they have 100 MB."""
MAX_TEXTS = 2000
"""Contents that a search for a text reads for one page: decompressing them takes seconds of a thread at most. The page
may then be short, and the next one goes on from there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFilter:
    """Requests of an org that match everything that is set. Times are Unix seconds, `since` inclusive, `until` not."""

    org: str
    equal: dict[str, str | int] = field(default_factory=dict)
    """Values by column, of EQUAL."""
    since: float | None = None
    until: float | None = None
    min_cost: Decimal | None = None
    """$."""
    max_cost: Decimal | None = None
    min_latency: float | None = None
    """Seconds from the request's arrival to its end."""
    max_latency: float | None = None
    is_error: bool | None = None
    """Whether its status is not `ok`."""
    tag: str | None = None
    text: str | None = None
    """In the stored input or output, ignoring case."""


@dataclass(frozen=True, slots=True)
class RequestPage:
    records: tuple[RequestRecord, ...]
    has_more: bool
    last: str | None
    """The id after which the next page begins. None: there was nothing to look at."""


class RequestLog:
    """Reads on the connections of reports, as a search may take longer than a look-up of a key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def page(self, where: RequestFilter, *, limit: int = 50, after: str | None = None) -> RequestPage:
        """Newest first, at most `limit`, after the request `after`. Raises NotFoundError where that does not exist."""
        async with self._database.report() as connection:
            start = None if after is None else await _position(connection, after, where.org)
            if where.text is not None:
                return await self._search(connection, where, where.text, limit, start)
            rows = (await connection.execute(self.query(where, limit + 1, start))).all()
        records = tuple(record_of(row) for row in rows[:limit])
        return RequestPage(records, len(rows) > limit, records[-1].id if records else None)

    async def retrieve(self, id: str, *, org: str) -> RequestRecord:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            row = (await connection.execute(select(ledger).where(ledger.c.id == id, ledger.c.org == org))).one_or_none()
        if row is None:
            raise no_such_request(id)
        return record_of(row)

    def query(self, where: RequestFilter, limit: int, start: tuple[float, str] | None = None) -> Select[Any]:
        """The statement of a page that begins after `start`: when the last request of the page before started, and its
        id."""
        return self._ordered(select(ledger), where, limit, start)

    def _ordered(
        self, query: Select[Any], where: RequestFilter, limit: int, start: tuple[float, str] | None
    ) -> Select[Any]:
        query = query.where(*self._conditions(where))
        if start is not None:
            # Not a comparison of the pair: SQLite would prefer the index of (started, id) to that of a rare value.
            started, id = start
            query = query.where(ledger.c.started <= started, or_(ledger.c.started < started, ledger.c.id < id))
        # An expression where a value is looked for: SQLite would prefer the index of the order to that of the value.
        last = ledger.c.id + "" if where.equal or where.is_error else ledger.c.id
        return query.order_by(ledger.c.started.desc(), last.desc()).limit(limit)

    def _conditions(self, where: RequestFilter) -> list[ColumnElement[bool]]:
        columns = ledger.c
        conditions = [columns.org == where.org, *(columns[name] == value for name, value in where.equal.items())]
        # The condition of the partial index, which a database does not infer from a parameter's value.
        if where.equal.get("status", "ok") != "ok" or where.is_error:
            conditions.append(columns.status != literal_column("'ok'"))
        if where.is_error is False:
            conditions.append(columns.status == "ok")
        if where.equal.get("route"):
            conditions.append(columns.route != literal_column("''"))
        if where.since is not None:
            conditions.append(columns.started >= where.since)
        if where.until is not None:
            conditions.append(columns.started < where.until)
        cost: ColumnElement[Any] = cast(columns.cost, Float) if self._database.is_sqlite else columns.cost
        latency = columns.ended - columns.started
        for value, bound in ((cost, where.min_cost), (latency, where.min_latency)):
            if bound is not None:
                conditions.append(value >= self._number(bound))
        for value, bound in ((cost, where.max_cost), (latency, where.max_latency)):
            if bound is not None:
                conditions.append(value <= self._number(bound))
        if where.tag is not None:
            conditions.append(self._has_tag(where.tag))
        return conditions

    def _number(self, bound: Decimal | float) -> Any:
        return float(bound) if self._database.is_sqlite else bound

    def _has_tag(self, tag: str) -> ColumnElement[bool]:
        if not self._database.is_sqlite:
            return cast(ledger.c.tags, JSONB).contains([tag])
        each = func.json_each(ledger.c.tags).table_valued("value")
        return exists(select(each.c.value).where(each.c.value == bindparam(None, tag, unique=True)))

    async def _search(
        self,
        connection: AsyncConnection,
        where: RequestFilter,
        wanted: str,
        limit: int,
        start: tuple[float, str] | None,
    ) -> RequestPage:
        """Look for a text in contents, the newest first, until the page is full or MAX_TEXTS were read."""
        needle = msgspec.json.encode(wanted).decode()[1:-1].casefold()
        found: list[Row[Any]] = []
        last: Row[Any] | None = None
        columns = select(ledger, contents.c.input.label("_input"), contents.c.output.label("_output"))
        query = columns.join(contents, contents.c.id == ledger.c.id)
        for _ in range(MAX_TEXTS // TEXTS_AT_ONCE):
            rows = (await connection.execute(self._ordered(query, where, TEXTS_AT_ONCE, start))).all()
            are_found = await asyncio.to_thread(_which_have, needle, rows)
            for row, is_found in zip(rows, are_found, strict=True):
                last = row
                if is_found:
                    found.append(row)
                    if len(found) == limit:
                        return _page(found, last, has_more=True)
            if len(rows) < TEXTS_AT_ONCE:
                return _page(found, last, has_more=False)
            start = (rows[-1].started, rows[-1].id)
        return _page(found, last, has_more=True)


def _which_have(needle: str, rows: Sequence[Row[Any]]) -> list[bool]:
    """Whether each row's input or output has the text."""
    return [
        any(needle in (unpacked(side) or b"").decode().casefold() for side in (row._input, row._output)) for row in rows
    ]


def _page(rows: Sequence[Row[Any]], last: Row[Any] | None, *, has_more: bool) -> RequestPage:
    return RequestPage(tuple(record_of(row) for row in rows), has_more, None if last is None else last.id)


async def _position(connection: AsyncConnection, id: str, org: str) -> tuple[float, str]:
    query = select(ledger.c.started, ledger.c.id).where(ledger.c.id == id, ledger.c.org == org)
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise no_such_request(id, param="after")
    return row.started, row.id


def no_such_request(id: str, param: str | None = None) -> NotFoundError:
    return NotFoundError(f"No such request: '{id[:100]}'.", param=param, code="request_not_found")
