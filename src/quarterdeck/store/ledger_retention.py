"""Ledger rows that are too old are deleted; usage and budgets stay right.

Only hours that are rolled up are deleted, so usage by hour goes on as before (`usage_rollups`). What the rows cost is
kept for budgets, each request rounded up as budgets count (`pruned_spending`). A record that arrives for an hour that
was deleted is added to the hour's roll-up, and deleted as well. One that arrives for the very hour that is being
deleted is not in the roll-up; it counts for budgets.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, func, not_, select
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.money import microdollars
from quarterdeck.record import MIRROR
from quarterdeck.store.database import Database
from quarterdeck.store.ledger_tables import ledger
from quarterdeck.store.usage_tables import pruned_spending, usage_late_hours, usage_rolled

HOUR = 3600
AT_ONCE = 500
"""Rows deleted in one transaction: some milliseconds, in which an insert waits."""
MOST = 50_000
"""Rows deleted in one call. Called once a minute, it keeps up with 800 requests a second."""
LOCK_CLASS = 0x71_64_72_75  # "qdru"


class LedgerRetention:
    """Any number of workers may delete at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete_older(self, before: float, *, org: str) -> int:
        """Delete rows of requests that began before the hour of `before` (Unix seconds), in batches, at most MOST.
        Returns how many. Raises DatabaseUnavailableError."""
        total = 0
        while total < MOST:
            count = await self._step(org, int(before // HOUR) * HOUR)
            total += count
            if count < AT_ONCE:
                break
        return total

    async def _step(self, org: str, before: int) -> int:
        async with self._database.begin() as connection:
            # A write first: SQLite's transaction must be the writer before it reads. A new organisation has no row.
            touched = await connection.execute(
                usage_rolled.update().where(usage_rolled.c.org == org).values(until=usage_rolled.c.until)
            )
            if not touched.rowcount:
                return 0
            if not self._database.is_sqlite:
                await lock_alone(connection, org)
            rolled = (
                await connection.execute(
                    select(usage_rolled.c.until, usage_rolled.c.pruned).where(usage_rolled.c.org == org)
                )
            ).one()
            pruned = rolled.pruned or 0
            late = list(await connection.scalars(select(usage_late_hours.c.hour).where(usage_late_hours.c.org == org)))
            end = min(before, rolled.until, *(hour for hour in late if hour >= pruned))
            waiting = [hour for hour in late if hour < pruned - HOUR]  # `Rollups.advance` adds them first
            query = select(ledger.c.id, ledger.c.team, ledger.c.key, ledger.c.started, ledger.c.cost)
            query = query.where(ledger.c.org == org, ledger.c.started < end, *map(_outside, waiting))
            rows = (await connection.execute(query.order_by(ledger.c.started).limit(AT_ONCE))).all()
            if not rows:
                return 0
            await delete_rows(connection, org, rows)
            last = int(rows[-1].started // HOUR) * HOUR + HOUR
            if last > pruned:
                await connection.execute(usage_rolled.update().where(usage_rolled.c.org == org).values(pruned=last))
            return len(rows)


async def delete_rows(connection: AsyncConnection, org: str, rows: Sequence[Any]) -> None:
    """Delete these rows (id, team, key, started, cost), and keep what they cost."""
    spent: dict[tuple[int, str, str], int] = {}
    for row in rows:
        if row.key != MIRROR:  # mirrored requests count against no budget
            scope = (int(row.started // HOUR) * HOUR, row.team, row.key)
            spent[scope] = spent.get(scope, 0) + microdollars(row.cost)
    values = [
        {"org": org, "hour": hour, "team": team, "key": key, "microdollars": amount}
        for (hour, team, key), amount in sorted(spent.items())
        if amount
    ]
    if values:
        make = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgres
        statement = make(pruned_spending)
        added = {"microdollars": pruned_spending.c.microdollars + statement.excluded.microdollars}
        columns = [column.name for column in pruned_spending.primary_key]
        await connection.execute(statement.on_conflict_do_update(index_elements=columns, set_=added), values)
    for start in range(0, len(rows), AT_ONCE):
        some = [row.id for row in rows[start : start + AT_ONCE]]
        await connection.execute(delete(ledger).where(ledger.c.id.in_(some)))


async def lock_alone(connection: AsyncConnection, org: str) -> None:
    """PostgreSQL: the lock of the organisation's roll-ups, to the end of the transaction."""
    await connection.execute(select(func.pg_advisory_xact_lock(LOCK_CLASS, func.hashtext(org))))


def _outside(hour: int) -> ColumnElement[bool]:
    return not_(and_(ledger.c.started >= hour, ledger.c.started < hour + HOUR))
