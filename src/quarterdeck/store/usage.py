"""Sums of requests, tokens, units and money over the ledger and over its roll-ups.

Both have the same columns, so one query does for both. SQLite stores money as text (`exact`), so it is summed in Python
there.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, Inexact, localcontext
from typing import Any, Literal

from sqlalchemy import BigInteger, Column, ColumnElement, Table, cast, func, literal_column, select
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.money import SUM_DIGITS

GroupBy = Literal[
    "org",
    "team",
    "key",
    "model",
    "route",
    "operation",
    "endpoint",
    "user",
    "status",
    "prompt",
    "prompt_version",
]
COUNTS = (
    *("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens"),
    *("audio_ms", "characters", "images"),
)
"""Columns that are summed besides the money."""
ROWS_AT_ONCE = 200
"""Rows summed in one turn of the event loop: a few milliseconds."""

# An addition that is not exact raises instead of rounding: 200 digits are more than any sum of money has.
_EXACT = Context(prec=SUM_DIGITS, traps=[Inexact])
Group = tuple[Any, ...]


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
    audio_ms: int = 0
    characters: int = 0
    images: int = 0
    cost: Decimal = Decimal(0)
    """$, exact."""
    saved: Decimal = Decimal(0)
    """$ that cache hits would have cost at the engine, exact."""


@dataclass(slots=True)
class Sums:
    """Sums of one group, in the making."""

    counts: list[int]
    """Requests, then COUNTS."""
    cost: Decimal = Decimal(0)
    saved: Decimal = Decimal(0)

    def add(self, counts: Iterable[int], cost: Decimal, saved: Decimal) -> None:
        self.counts = [have + more for have, more in zip(self.counts, counts, strict=True)]
        with localcontext(_EXACT):
            self.cost += cost
            self.saved += saved


@dataclass(frozen=True, slots=True)
class Source:
    """A table with the rows to sum."""

    table: Table
    time: Column[Any]
    """Unix seconds, by which rows are put into buckets."""
    requests: Column[Any] | None = None
    """Requests of a row. None: a row is a request."""


async def sum_rows(
    connection: AsyncConnection,
    source: Source,
    conditions: Sequence[ColumnElement[bool]],
    by: Sequence[str],
    bucket_seconds: int | None,
    into: dict[Group, Sums],
) -> None:
    """Add the sums of matching rows to `into`, by (bucket, *group)."""
    is_sqlite = connection.dialect.name == "sqlite"
    add = _add_in_python if is_sqlite else _add_in_sql
    await add(connection, source, conditions, [_group(source.table, name) for name in by], bucket_seconds, into)


def usages(sums: Mapping[Group, Sums]) -> list[Usage]:
    """Sorted by bucket and group."""
    found = [
        Usage(
            group=group,
            bucket=bucket,
            requests=total.counts[0],
            cost=total.cost,
            saved=total.saved,
            **dict(zip(COUNTS, total.counts[1:], strict=True)),
        )
        for (bucket, *rest), total in sums.items()
        for group in [tuple(rest)]
    ]
    return sorted(found, key=lambda usage: (usage.bucket or 0, [value or "" for value in usage.group]))


def _group(table: Table, name: str) -> ColumnElement[Any]:
    """A roll-up has the empty text where the ledger has null."""
    column = table.c[name]
    # A literal, as for buckets below.
    return func.nullif(column, literal_column("''")) if name in ("prompt", "prompt_version") else column


async def _add_in_sql(
    connection: AsyncConnection,
    source: Source,
    conditions: Sequence[ColumnElement[bool]],
    columns: Sequence[ColumnElement[Any]],
    bucket_seconds: int | None,
    into: dict[Group, Sums],
) -> None:
    groups: list[ColumnElement[Any]] = list(columns)
    if bucket_seconds is not None:
        # A literal: in a prepared statement, two expressions with parameters are not recognised as equal in GROUP BY.
        groups.insert(0, cast(func.floor(source.time / literal_column(str(float(bucket_seconds)))), BigInteger))
    requests: ColumnElement[Any] = func.count() if source.requests is None else func.sum(source.requests)
    sums = [func.sum(source.table.c[name]) for name in (*COUNTS, "cost", "saved")]
    query = select(*groups, requests, *sums).where(*conditions).group_by(*groups)
    for row in await connection.execute(query):
        values = list(row)
        bucket = None if bucket_seconds is None else values.pop(0) * bucket_seconds
        group, (count, *tokens, cost, saved) = values[: len(columns)], values[len(columns) :]
        if count:  # without a group there is a row even where nothing matches
            total = into.setdefault((bucket, *group), _none())
            total.add([int(number) for number in (count, *tokens)], cost, saved)


async def _add_in_python(
    connection: AsyncConnection,
    source: Source,
    conditions: Sequence[ColumnElement[bool]],
    columns: Sequence[ColumnElement[Any]],
    bucket_seconds: int | None,
    into: dict[Group, Sums],
) -> None:
    one = literal_column("1") if source.requests is None else source.requests
    numbers = [source.table.c[name] for name in (*COUNTS, "cost", "saved")]
    query = select(*columns, source.time, one, *numbers).where(*conditions)
    async with connection.stream(query.execution_options(yield_per=ROWS_AT_ONCE)) as result:
        async for row in result:
            values = tuple(row)
            group, (time, *counts, cost, saved) = values[: len(columns)], values[len(columns) :]
            bucket = None if bucket_seconds is None else int(time // bucket_seconds) * bucket_seconds
            into.setdefault((bucket, *group), _none()).add(counts, cost, saved)


def _none() -> Sums:
    return Sums([0] * (1 + len(COUNTS)))
