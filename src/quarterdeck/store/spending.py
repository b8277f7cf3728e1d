"""Sums of the ledger from which budgets in Redis are rebuilt.

In whole 10⁻⁶ $, each request rounded up, as budgets count; and in one snapshot, so that the sums and the list of rows
in them agree."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal

from sqlalchemy import Column, Numeric, func, select, type_coerce
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.money import microdollars
from quarterdeck.record import MIRROR
from quarterdeck.store.database import Database
from quarterdeck.store.ledger_retention import HOUR
from quarterdeck.store.ledger_tables import ledger
from quarterdeck.store.usage_tables import pruned_spending

AT_ONCE = 500
"""Values per statement."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """A request's row in the ledger, as far as a rebuild needs it."""

    status: str
    cost: Decimal


@dataclass(frozen=True, slots=True)
class LedgerScope:
    """What is summed: the requests of a key, a team or an organisation."""

    id: str
    kind: str
    """key, team, org."""
    name: str
    since: float = 0.0
    """Unix seconds: earlier requests are another team's of the same name."""


class Spending:
    """Reads from one snapshot."""

    def __init__(self, connection: AsyncConnection, *, is_sqlite: bool) -> None:
        self._connection = connection
        self._is_sqlite = is_sqlite

    async def of(self, org: str, scopes: Sequence[LedgerScope], since: float) -> dict[str, int]:
        """What each scope spent on requests that began at `since` (Unix seconds) or later, by the scope's id.

        Mirrored requests count against no budget.
        """
        spent = {scope.id: 0 for scope in scopes}
        for kind, column in (("key", ledger.c.key), ("team", ledger.c.team), ("org", ledger.c.org)):
            of_kind = [scope for scope in scopes if scope.kind == kind]
            for began in {max(since, scope.since) for scope in of_kind}:
                ids = {scope.name or org: scope.id for scope in of_kind if max(since, scope.since) == began}
                names = list(ids)
                for start in range(0, len(names), AT_ONCE):
                    some = names[start : start + AT_ONCE]
                    for sums in (
                        await self._sums(org, column, some, began),
                        await self._pruned(org, kind, some, began),
                    ):
                        for name, amount in sums.items():
                            spent[ids[name]] += amount
        return spent

    async def entries(self, org: str, ids: Sequence[str]) -> dict[str, LedgerEntry]:
        """The rows of these requests that are in the ledger, by id."""
        found: dict[str, LedgerEntry] = {}
        for start in range(0, len(ids), AT_ONCE):
            query = select(ledger.c.id, ledger.c.status, ledger.c.cost)
            query = query.where(ledger.c.org == org, ledger.c.id.in_(ids[start : start + AT_ONCE]))
            rows = await self._connection.execute(query)
            found |= {row.id: LedgerEntry(row.status, row.cost) for row in rows}
        return found

    async def _pruned(self, org: str, kind: str, names: Sequence[str], since: float) -> Mapping[str, int]:
        """What rows cost that were deleted by age. An hour in which `since` lies counts whole."""
        column = pruned_spending.c[kind]
        query = select(column, func.sum(pruned_spending.c.microdollars)).where(
            pruned_spending.c.org == org, column.in_(names), pruned_spending.c.hour > since - HOUR
        )
        rows = await self._connection.execute(query.group_by(column))
        return {name: int(total) for name, total in rows}

    async def _sums(self, org: str, column: Column[str], names: Sequence[str], since: float) -> Mapping[str, int]:
        conditions = (ledger.c.org == org, column.in_(names), ledger.c.started >= since, ledger.c.key != MIRROR)
        if not self._is_sqlite:
            # `money.microdollars` in SQL.
            amount = func.sum(func.ceil(type_coerce(ledger.c.cost, Numeric) * 1_000_000))
            rows = await self._connection.execute(select(column, amount).where(*conditions).group_by(column))
            return {name: int(total) for name, total in rows}
        # SQLite stores money as text (`exact`), so it is summed here.
        sums: dict[str, int] = {}
        query = select(column, ledger.c.cost).where(*conditions).execution_options(yield_per=1000)
        async with self._connection.stream(query) as result:
            async for name, cost in result:
                sums[name] = sums.get(name, 0) + microdollars(cost)
        return sums


@asynccontextmanager
async def spending(database: Database, *, timeout: float) -> AsyncIterator[Spending]:
    """A snapshot, taken by the first read. `timeout` bounds it, in seconds. Raises DatabaseUnavailableError."""
    async with database.connect(timeout) as connection:
        await database.read_snapshot(connection)
        yield Spending(connection, is_sqlite=database.is_sqlite)
        await connection.rollback()
