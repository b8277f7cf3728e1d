"""Who there is to keep books for: orgs and their teams."""

import time

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.store.database import Database
from quarterdeck.store.tables import orgs, teams

DEFAULT_ORG = "default"
DEFAULT_TEAM = "default"


class OrgStore:
    """Orgs and teams are made when they are first named."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, org: str = DEFAULT_ORG, team: str = DEFAULT_TEAM) -> None:
        """Make org and team where they don't exist."""
        async with self._database.begin() as connection:
            await ensure_team(connection, org, team)

    async def list(self) -> list[str]:
        """The ids of all orgs, in order."""
        async with self._database.connect() as connection:
            return list(await connection.scalars(select(orgs.c.id).order_by(orgs.c.id)))


async def ensure_team(connection: AsyncConnection, org: str, team: str) -> None:
    """The same, inside a transaction under way."""
    insert = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgres
    now = time.time()
    await connection.execute(insert(orgs).values(id=org, created=now).on_conflict_do_nothing())
    await connection.execute(insert(teams).values(org=org, id=team, created=now).on_conflict_do_nothing())
