"""API keys in the database: everything about a key but its secret.

A key is found by the digest of its secret, also when it is revoked or expired: its owner learns more from that than
from "unknown key"."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Row, Select, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck import ids
from quarterdeck.content import Level
from quarterdeck.errors import ConflictError, NotFoundError
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.store.cursors import beyond
from quarterdeck.store.database import Database
from quarterdeck.store.orgs import DEFAULT_ORG, DEFAULT_TEAM, ensure_team
from quarterdeck.store.tenancy_tables import api_keys, orgs, teams
from quarterdeck.store.terms import NO_TERMS, Terms, budget_of, limits_of, to_column

BOOTSTRAP_PREFIX = "key_bootstrap_"
"""Of the ids of keys that a deployment's secret made, so that the next secret replaces them and nothing else."""
_AT_ONCE = 500
"""Ids or digests per query."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRow:
    """A key in the database, with the terms of its team and org. Times are Unix seconds."""

    id: str
    org: str
    team: str
    name: str
    digest: str = field(repr=False)
    hint: str
    """The secret's last four characters, by which its owner recognises it."""
    limits: Limits | None = None
    """None: the defaults of quarterdeck.yaml apply."""
    budget: Budget | None = None
    models: frozenset[str] | None = None
    """The model names it may use; None: all."""
    priority: int | None = None
    """None: its team's."""
    tags: tuple[str, ...] = ()
    content: Level | None = None
    """What is kept of its inputs and outputs. None: it does not say."""
    is_admin: bool = False
    created: float
    expires: float | None = None
    revoked: float | None = None
    of_team: Terms = NO_TERMS
    team_remade: float | None = None
    """`TeamRow.remade`."""
    of_org: Terms = NO_TERMS


class KeyFields(TypedDict, total=False):
    """Fields of a new key, or changes of an existing one; what is missing stays."""

    name: str
    team: str
    limits: Limits | None
    budget: Budget | None
    models: Sequence[str] | None
    priority: int | None
    tags: Sequence[str]
    content: Level | None
    expires: float | None


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A page of a list; the next one begins `after` the last row's id."""

    rows: tuple[KeyRow, ...]
    has_more: bool


class KeyStore:
    """OpenAI's verbs for keys, scoped to an organisation, except `find`, `find_all`, `retrieve_all`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, *, secret: str, org: str = DEFAULT_ORG, is_admin: bool = False, **fields: Unpack[KeyFields]
    ) -> KeyRow:
        """Create a key whose secret the caller generated (`ids.api_key()`); only the digest is stored. A new org or
        team is created as well. Raises ConflictError where the secret belongs to a key already."""
        row, is_new = await self._insert(secret, org, is_admin, fields)
        if not is_new:
            raise ConflictError("A key with this secret already exists.", code="key_exists")
        return row

    async def ensure(
        self, *, secret: str, name: str, org: str = DEFAULT_ORG, team: str = DEFAULT_TEAM, is_admin: bool = False
    ) -> KeyRow:
        """The key with this secret, created where it does not exist: for a secret from a file of the user's. An
        existing key is not changed, revoked or not."""
        row, _ = await self._insert(secret, org, is_admin, {"name": name, "team": team})
        return row

    async def ensure_bootstrap(self, secret: str) -> tuple[KeyRow, Sequence[KeyRow]]:
        """The bootstrap key with this secret, an admin key of the platform, and the older bootstrap keys that it
        replaced just now. Any number of processes may call it at once. An existing key is not changed, revoked or
        not."""
        insert = insert_sqlite if self._database.is_sqlite else insert_postgres
        digest, now = ids.digest(secret), time.time()
        id = BOOTSTRAP_PREFIX + digest[:24]
        values = {"org": DEFAULT_ORG, "team": DEFAULT_TEAM, "name": "bootstrap", "digest": digest, "hint": secret[-4:]}
        statement = insert(api_keys).values(id=id, is_admin=True, created=now, **values)
        async with self._database.begin() as connection:
            await ensure_team(connection, DEFAULT_ORG, DEFAULT_TEAM)
            await connection.execute(statement.on_conflict_do_nothing(index_elements=["digest"]))
            row = await _one(connection, api_keys.c.digest == digest)
            assert row is not None  # noqa: S101  # it existed or was inserted, in this transaction
            if row.revoked is not None or row.id != id:
                return row, ()
            # Older ones: a gateway that still has a former secret revokes nothing.
            others = api_keys.c.id.startswith(BOOTSTRAP_PREFIX, autoescape=True) & (api_keys.c.id != id)
            former = others & api_keys.c.revoked.is_(None) & (api_keys.c.created < row.created)
            replaced = [_key_of(each) for each in await connection.execute(_select().where(former))]
            if replaced:
                found = api_keys.c.id.in_([each.id for each in replaced])
                await connection.execute(update(api_keys).where(found).values(revoked=now))
        return row, replaced

    async def find(self, digest: str) -> KeyRow | None:
        """The key with this digest, of any org, valid or not; None: there is none."""
        return (await self.find_all([digest])).get(digest)

    async def find_all(self, digests: Sequence[str]) -> dict[str, KeyRow]:
        """The keys with these digests that exist, by digest."""
        found: dict[str, KeyRow] = {}
        async with self._database.connect() as connection:
            for start in range(0, len(digests), _AT_ONCE):
                query = _select().where(api_keys.c.digest.in_(digests[start : start + _AT_ONCE]))
                found |= {row.digest: _key_of(row) for row in await connection.execute(query)}
        return found

    async def retrieve(self, id: str, *, org: str = DEFAULT_ORG) -> KeyRow:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            row = await _one(connection, (api_keys.c.id == id) & (api_keys.c.org == org))
        if row is None:
            raise _no_such_key(id)
        return row

    async def retrieve_all(self, ids: Sequence[str]) -> dict[str, KeyRow]:
        """The keys with these ids that exist, of any org, by id."""
        found: dict[str, KeyRow] = {}
        async with self._database.connect() as connection:
            for start in range(0, len(ids), _AT_ONCE):
                query = _select().where(api_keys.c.id.in_(ids[start : start + _AT_ONCE]))
                found |= {row.id: _key_of(row) for row in await connection.execute(query)}
        return found

    async def list(
        self, *, org: str = DEFAULT_ORG, limit: int = 20, after: str | None = None, team: str | None = None
    ) -> KeyPage:
        """A page of keys, newest first. Raises NotFoundError where `after` is not a key of the org."""
        query = _select().where(api_keys.c.org == org)
        if team is not None:
            query = query.where(api_keys.c.team == team)
        async with self._database.connect() as connection:
            if after is not None:
                last = await _one(connection, (api_keys.c.id == after) & (api_keys.c.org == org))
                if last is None:
                    raise _no_such_key(after, param="after")
                query = query.where(beyond(api_keys, last.created, last.id))
            query = query.order_by(api_keys.c.created.desc(), api_keys.c.id.desc()).limit(limit + 1)
            rows = [_key_of(row) for row in await connection.execute(query)]
        return KeyPage(tuple(rows[:limit]), has_more=len(rows) > limit)

    async def list_budgeted(self, *, org: str, names: Sequence[str] = ()) -> Sequence[KeyRow]:
        """Keys that are not revoked and have a budget, or one of these names."""
        is_wanted = or_(api_keys.c.budget.is_not(None), api_keys.c.name.in_(names))
        query = _select().where(api_keys.c.org == org, api_keys.c.revoked.is_(None), is_wanted)
        async with self._database.connect() as connection:
            return [_key_of(row) for row in await connection.execute(query)]

    async def update(self, id: str, *, org: str = DEFAULT_ORG, **changes: Unpack[KeyFields]) -> KeyRow:
        """Change a key. Raises NotFoundError, and ConflictError for a revoked key.

        The caller notifies the gateways afterwards (`resources/tenancy`), as for `revoke` and `rotate`.
        """
        return await self._change(id, org, _columns(changes), team=changes.get("team"))

    async def rotate(self, id: str, *, secret: str, org: str = DEFAULT_ORG) -> KeyRow:
        """Replace the key's secret; the old one is invalid from now on. Raises as `update`."""
        return await self._change(id, org, {"digest": ids.digest(secret), "hint": secret[-4:]})

    async def revoke(self, id: str, *, org: str = DEFAULT_ORG) -> KeyRow:
        """Invalidate the key. To revoke it again changes nothing. Raises NotFoundError."""
        mine = (api_keys.c.id == id) & (api_keys.c.org == org)
        async with self._database.begin() as connection:
            await connection.execute(
                update(api_keys).where(mine & api_keys.c.revoked.is_(None)).values(revoked=time.time())
            )
            row = await _one(connection, mine)
        if row is None:
            raise _no_such_key(id)
        return row

    async def _change(self, id: str, org: str, values: dict[str, Any], *, team: str | None = None) -> KeyRow:
        mine = (api_keys.c.id == id) & (api_keys.c.org == org)
        async with self._database.begin() as connection:
            if team is not None:
                await ensure_team(connection, org, team)
            if values:
                await connection.execute(update(api_keys).where(mine & api_keys.c.revoked.is_(None)).values(**values))
            row = await _one(connection, mine)
            if row is None:
                raise _no_such_key(id)
            if row.revoked is not None:
                raise ConflictError(f"The key '{id}' is revoked.", code="key_revoked")
        return row

    async def _insert(self, secret: str, org: str, is_admin: bool, fields: KeyFields) -> tuple[KeyRow, bool]:
        insert = insert_sqlite if self._database.is_sqlite else insert_postgres
        id, digest, team = ids.object_id("key"), ids.digest(secret), fields.get("team", DEFAULT_TEAM)
        values = {"team": team, **_columns(fields), "digest": digest, "hint": secret[-4:], "created": time.time()}
        statement = insert(api_keys).values(id=id, org=org, is_admin=is_admin, **values)
        async with self._database.begin() as connection:
            await ensure_team(connection, org, team)
            await connection.execute(statement.on_conflict_do_nothing(index_elements=["digest"]))
            row = await _one(connection, api_keys.c.digest == digest)
        assert row is not None  # noqa: S101  # it existed or was inserted, in this transaction
        return row, row.id == id


def _select() -> Select[Any]:
    """Keys joined with the terms of their team and org."""
    terms = (
        teams.c.limits.label("team_limits"),
        teams.c.budget.label("team_budget"),
        teams.c.priority.label("team_priority"),
        teams.c.remade.label("team_remade"),
        teams.c.content.label("team_content"),
        orgs.c.limits.label("org_limits"),
        orgs.c.budget.label("org_budget"),
        orgs.c.content.label("org_content"),
    )
    of_team = (teams.c.org == api_keys.c.org) & (teams.c.id == api_keys.c.team)
    return select(api_keys, *terms).join(teams, of_team).join(orgs, orgs.c.id == api_keys.c.org)


async def _one(connection: AsyncConnection, where: ColumnElement[bool]) -> KeyRow | None:
    row = (await connection.execute(_select().where(where))).one_or_none()
    return None if row is None else _key_of(row)


def _columns(fields: KeyFields) -> dict[str, Any]:
    columns: dict[str, Any] = dict(fields)
    for name in ("limits", "budget"):
        if name in columns:
            columns[name] = to_column(columns[name])
    if columns.get("models") is not None:
        columns["models"] = sorted(set(columns["models"]))
    if "tags" in columns:
        columns["tags"] = list(dict.fromkeys(columns["tags"]))
    return columns


def _key_of(row: Row[Any]) -> KeyRow:
    return KeyRow(
        id=row.id,
        org=row.org,
        team=row.team,
        name=row.name,
        digest=row.digest,
        hint=row.hint,
        limits=limits_of(row.limits),
        budget=budget_of(row.budget),
        models=None if row.models is None else frozenset(row.models),
        priority=row.priority,
        tags=tuple(row.tags),
        content=row.content,
        is_admin=row.is_admin,
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
        of_team=Terms(limits_of(row.team_limits), budget_of(row.team_budget), row.team_priority, row.team_content),
        team_remade=row.team_remade,
        of_org=Terms(limits_of(row.org_limits), budget_of(row.org_budget), content=row.org_content),
    )


def _no_such_key(id: str, param: str | None = None) -> NotFoundError:
    return NotFoundError(f"No such API key: '{id}'.", param=param, code="key_not_found")
