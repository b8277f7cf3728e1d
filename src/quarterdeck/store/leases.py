"""Leases: work that one process does at a time. By the holders' clocks, which should agree within seconds."""

import time
from collections.abc import Callable

from sqlalchemy import delete, or_
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from quarterdeck.store.database import Database
from quarterdeck.store.tables import leases


class LeaseStore:
    """`holder` names this process."""

    def __init__(self, database: Database, holder: str, *, wall: Callable[[], float] = time.time) -> None:
        self._database = database
        self._holder = holder
        self._wall = wall

    async def take(self, name: str, seconds: float) -> bool:
        """Take or renew a lease. False: another process holds it."""
        made = insert_sqlite if self._database.is_sqlite else insert_postgres
        now = self._wall()
        values = {"holder": self._holder, "until": now + seconds}
        statement = made(leases).values(name=name, **values)
        statement = statement.on_conflict_do_update(
            index_elements=["name"],
            set_=values,
            where=or_(leases.c.holder == self._holder, leases.c.until < now),
        )
        async with self._database.begin() as connection:
            return (await connection.execute(statement.returning(leases.c.name))).one_or_none() is not None

    async def release(self, name: str) -> None:
        """Let another process take it at once."""
        statement = delete(leases).where(leases.c.name == name, leases.c.holder == self._holder)
        async with self._database.begin() as connection:
            await connection.execute(statement)
