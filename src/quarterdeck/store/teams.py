"""Teams: keys that share limits and a budget. A team is created by `create`, or with its first key.

A deleted team's row stays, because revoked keys refer to it. It is in no list, and a new team of its name starts
without terms."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Row, func, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.content import Level
from quarterdeck.errors import ConflictError, NotFoundError
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.store.batches import delete_batches_of
from quarterdeck.store.database import Database
from quarterdeck.store.orgs import refuse_deleted
from quarterdeck.store.tenancy_tables import api_keys, orgs, teams
from quarterdeck.store.terms import NO_TERMS, Terms, budget_of, limits_of, to_column


@dataclass(frozen=True, slots=True)
class TeamRow:
    """A team in the database. `created` is in Unix seconds."""

    org: str
    id: str
    created: float
    terms: Terms = NO_TERMS
    remade: float | None = None
    """When it was made of a deleted team of the same name, in Unix seconds."""


class TeamChanges(TypedDict, total=False):
    """Changes of a team; what is missing stays."""

    limits: Limits | None
    budget: Budget | None
    priority: int | None
    content: Level | None


class TeamStore:
    """OpenAI's verbs for teams, scoped to an organisation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        id: str,
        *,
        org: str,
        limits: Limits | None = None,
        budget: Budget | None = None,
        priority: int | None = None,
        content: Level | None = None,
    ) -> TeamRow:
        """Create a team, and its organisation where that is new. Raises ConflictError where the team exists."""
        insert = insert_sqlite if self._database.is_sqlite else insert_postgres
        row = TeamRow(org, id, time.time(), Terms(limits, budget, priority, content))
        again = {"remade": row.created}
        values = {"created": row.created, **_columns(limits=limits, budget=budget, priority=priority, content=content)}
        values["deleted"] = None
        statement = insert(teams).values(org=org, id=id, **values)
        statement = statement.on_conflict_do_update(
            index_elements=["org", "id"], set_=values | again, where=teams.c.deleted.is_not(None)
        )
        async with self._database.begin() as connection:
            await connection.execute(insert(orgs).values(id=org, created=row.created).on_conflict_do_nothing())
            await refuse_deleted(connection, org)
            made = (await connection.execute(statement.returning(teams))).one_or_none()
            if made is None:
                raise ConflictError(f"The team '{id}' already exists.", param="id", code="team_exists")
            return _team_of(made)

    async def retrieve(self, id: str, *, org: str) -> TeamRow:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            return await _one(connection, id, org)

    async def count_keys(self, id: str, *, org: str) -> int:
        """Its keys that are not revoked."""
        mine = (api_keys.c.org == org) & (api_keys.c.team == id) & api_keys.c.revoked.is_(None)
        async with self._database.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(api_keys).where(mine)) or 0

    async def list(self, *, org: str, limit: int = 20, after: str | None = None) -> list[TeamRow]:
        """Teams ordered by name, at most `limit`, after the name `after`, which need not exist."""
        query = select(teams).where(teams.c.org == org, teams.c.deleted.is_(None)).order_by(teams.c.id).limit(limit)
        if after is not None:
            query = query.where(teams.c.id > after)
        async with self._database.connect() as connection:
            return [_team_of(row) for row in await connection.execute(query)]

    async def list_budgeted(self, *, org: str, names: Sequence[str] = ()) -> Sequence[TeamRow]:
        """Teams that have a budget, or one of these names."""
        is_wanted = or_(teams.c.budget.is_not(None), teams.c.id.in_(names))
        query = select(teams).where(teams.c.org == org, teams.c.deleted.is_(None), is_wanted)
        async with self._database.connect() as connection:
            return [_team_of(row) for row in await connection.execute(query)]

    async def update(self, id: str, *, org: str, **changes: Unpack[TeamChanges]) -> TeamRow:
        """Raises NotFoundError. The caller notifies the gateways afterwards (`resources/tenancy`)."""
        async with self._database.begin() as connection:
            if changes:
                await connection.execute(update(teams).where(_is(id, org)).values(**_columns(**changes)))
            return await _one(connection, id, org)

    async def delete(self, id: str, *, org: str) -> None:
        """Raises NotFoundError, and ConflictError while the team has keys that are not revoked."""
        alive = select(func.count()).where(api_keys.c.org == org, api_keys.c.team == id, api_keys.c.revoked.is_(None))
        bare = _columns(limits=None, budget=None, priority=None, content=None)
        async with self._database.begin() as connection:
            # The write comes first, so that a key created meanwhile waits for it and finds the team deleted.
            await connection.execute(update(teams).where(_is(id, org)).values(deleted=teams.c.deleted))
            await _one(connection, id, org)
            if count := await connection.scalar(alive):
                raise ConflictError(
                    f"The team '{id}' has {count} keys that are not revoked. Revoke or move them first.",
                    code="team_not_empty",
                )
            await connection.execute(update(teams).where(_is(id, org)).values(deleted=time.time(), **bare))
            # A worker would write their files when the team is made again, which may not read them.
            await delete_batches_of(connection, org, id)


def _is(id: str, org: str) -> ColumnElement[bool]:
    return (teams.c.org == org) & (teams.c.id == id) & teams.c.deleted.is_(None)


async def _one(connection: AsyncConnection, id: str, org: str) -> TeamRow:
    row = (await connection.execute(select(teams).where(_is(id, org)))).one_or_none()
    if row is None:
        raise NotFoundError(f"No such team: '{id}'.", code="team_not_found")
    return _team_of(row)


def _columns(**changes: Any) -> dict[str, Any]:
    return {name: value if name in ("priority", "content") else to_column(value) for name, value in changes.items()}


def _team_of(row: Row[Any]) -> TeamRow:
    terms = Terms(limits_of(row.limits), budget_of(row.budget), row.priority, row.content)
    return TeamRow(row.org, row.id, row.created, terms, row.remade)
