"""Organisations, with their limits and budgets."""

import time
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from sqlalchemy import Row, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.content import Level
from quarterdeck.errors import ConflictError, NotFoundError
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.store.database import Database
from quarterdeck.store.tenancy_tables import orgs, teams
from quarterdeck.store.terms import NO_TERMS, Terms, budget_of, limits_of, to_column

DEFAULT_ORG = "default"
"""The platform's own organisation: its admins create the others."""
DEFAULT_TEAM = "default"


@dataclass(frozen=True, slots=True)
class OrgRow:
    """An organisation in the database. `created` is in Unix seconds."""

    id: str
    created: float
    terms: Terms = NO_TERMS
    content_days: float | None = None
    """Days after which contents are deleted. None: the platform's."""
    deleted: float | None = None
    """When it was deleted. None: it was not."""


class OrgChanges(TypedDict, total=False):
    """Changes of an organisation; what is missing stays."""

    limits: Limits | None
    budget: Budget | None
    content: Level | None
    content_days: float | None


class OrgStore:
    """OpenAI's verbs for organisations. One is created by `create`, or with its first key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def ensure(self, org: str = DEFAULT_ORG, team: str = DEFAULT_TEAM) -> None:
        """Create org and team where they don't exist."""
        async with self._database.begin() as connection:
            await ensure_team(connection, org, team)

    async def create(
        self,
        id: str,
        *,
        limits: Limits | None = None,
        budget: Budget | None = None,
        content: Level | None = None,
        content_days: float | None = None,
    ) -> OrgRow:
        """Create an organisation with its default team. Raises ConflictError where it exists or existed."""
        row = OrgRow(id, time.time(), Terms(limits, budget, content=content), content_days)
        insert = insert_sqlite(orgs) if self._database.is_sqlite else insert_postgres(orgs)
        values = {"limits": to_column(limits), "budget": to_column(budget), "content": content}
        statement = insert.values(id=id, created=row.created, content_days=content_days, **values)
        async with self._database.begin() as connection:
            made = await connection.execute(statement.on_conflict_do_nothing().returning(orgs.c.id))
            if made.one_or_none() is None:
                was_deleted = await connection.scalar(select(orgs.c.deleted).where(orgs.c.id == id)) is not None
                reason = "was deleted, and its usage is kept under this id" if was_deleted else "already exists"
                raise ConflictError(f"The organisation '{id}' {reason}.", param="id", code="org_exists")
            await ensure_team(connection, id, DEFAULT_TEAM)
        return row

    async def retrieve(self, id: str, *, with_deleted: bool = False) -> OrgRow:
        """Raises NotFoundError, also for one that was deleted, unless `with_deleted`."""
        async with self._database.connect() as connection:
            row = (await connection.execute(select(orgs).where(orgs.c.id == id))).one_or_none()
        if row is None or (row.deleted is not None and not with_deleted):
            raise no_such_org(id)
        return _org_of(row)

    async def update(self, id: str, **changes: Unpack[OrgChanges]) -> OrgRow:
        """Raises NotFoundError. The caller notifies the gateways afterwards (`resources/tenancy`)."""
        values: dict[str, Any] = dict(changes)
        values |= {name: to_column(values[name]) for name in ("limits", "budget") if name in values}
        is_wanted = (orgs.c.id == id) & orgs.c.deleted.is_(None)
        async with self._database.begin() as connection:
            if values:
                await connection.execute(update(orgs).where(is_wanted).values(**values))
            row = (await connection.execute(select(orgs).where(is_wanted))).one_or_none()
        if row is None:
            raise no_such_org(id)
        return _org_of(row)

    async def page(self, *, limit: int = 20, after: str | None = None) -> list[OrgRow]:
        """Organisations ordered by id, at most `limit`, after the id `after`."""
        query = select(orgs).where(orgs.c.deleted.is_(None)).order_by(orgs.c.id).limit(limit)
        if after is not None:
            query = query.where(orgs.c.id > after)
        async with self._database.connect() as connection:
            return [_org_of(row) for row in await connection.execute(query)]

    async def list(self) -> list[str]:
        """The ids of all organisations, sorted; also deleted ones, whose last records may still come."""
        async with self._database.connect() as connection:
            return list(await connection.scalars(select(orgs.c.id).order_by(orgs.c.id)))


async def ensure_team(connection: AsyncConnection, org: str, team: str) -> None:
    """Create org and team where they don't exist, in the caller's transaction. A deleted team is restored without
    terms. Raises NotFoundError for an organisation that was deleted."""
    insert = insert_sqlite if connection.dialect.name == "sqlite" else insert_postgres
    now = time.time()
    await connection.execute(insert(orgs).values(id=org, created=now).on_conflict_do_nothing())
    await refuse_deleted(connection, org)
    statement = insert(teams).values(org=org, id=team, created=now)
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=["org", "id"],
            set_={"created": statement.excluded.created, "deleted": None, "remade": statement.excluded.created},
            where=teams.c.deleted.is_not(None),
        )
    )


async def refuse_deleted(connection: AsyncConnection, org: str) -> None:
    """Raises NotFoundError for an organisation that was deleted. Until the transaction ends, it can't be deleted."""
    query = select(orgs.c.deleted).where(orgs.c.id == org).with_for_update(read=True)
    if await connection.scalar(query) is not None:
        raise no_such_org(org)


def _org_of(row: Row[Any]) -> OrgRow:
    terms = Terms(limits_of(row.limits), budget_of(row.budget), content=row.content)
    return OrgRow(row.id, row.created, terms, row.content_days, row.deleted)


def no_such_org(id: str) -> NotFoundError:
    return NotFoundError(f"No such organisation: '{id}'.", code="org_not_found")
