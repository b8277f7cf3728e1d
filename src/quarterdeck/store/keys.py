"""API keys at rest: everything about a key but the key.

The digest is what a key is found by. A revoked or expired key is found too: that it was one is worth more to its owner
than "unknown".
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck import ids
from quarterdeck.errors import ConflictError, NotFoundError
from quarterdeck.settings.limits import Limits
from quarterdeck.store.database import Database
from quarterdeck.store.orgs import DEFAULT_ORG, DEFAULT_TEAM, ensure_team
from quarterdeck.store.tables import api_keys


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it stands in the database. Times are Unix seconds."""

    id: str
    org: str
    team: str
    name: str
    hint: str
    """The secret's last four characters, so that its owner can tell it from others."""
    limits: Limits | None
    """None: none of its own, the defaults of quarterdeck.yaml hold."""
    models: frozenset[str] | None
    """The names it may use; None: all."""
    is_admin: bool
    created: float
    expires: float | None
    revoked: float | None

    def is_valid(self, now: float) -> bool:
        return self.revoked is None and (self.expires is None or now < self.expires)


@dataclass(frozen=True, slots=True)
class KeyPage:
    """A piece of a list; the next one begins `after` the last row's id."""

    rows: tuple[KeyRow, ...]
    has_more: bool


class KeyStore:
    """OpenAI's verbs for keys. Every answer is scoped to an org, except `find`: there the digest says which."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        *,
        secret: str,
        name: str,
        org: str = DEFAULT_ORG,
        team: str = DEFAULT_TEAM,
        limits: Limits | None = None,
        models: Sequence[str] | None = None,
        expires: float | None = None,
        is_admin: bool = False,
    ) -> KeyRow:
        """Enter a key that the caller made (`ids.api_key()`); only its digest is kept. A new org or team is made.

        Raises ConflictError where this very secret is a key already.
        """
        row, is_new = await self._insert(secret, name, org, team, limits, models, expires, is_admin)
        if not is_new:
            raise ConflictError("This secret is a key already.", code="key_exists")
        return row

    async def ensure(
        self, *, secret: str, name: str, org: str = DEFAULT_ORG, team: str = DEFAULT_TEAM, is_admin: bool = False
    ) -> KeyRow:
        """The key with this secret, entered where it is not there: for a secret that stands in a file of the user's.

        What exists is left as it is, revoked or not.
        """
        row, _ = await self._insert(secret, name, org, team, None, None, None, is_admin)
        return row

    async def find(self, digest: str) -> KeyRow | None:
        """The key with this digest, valid or not; None: there is none."""
        async with self._database.connect() as connection:
            return await _one(connection, api_keys.c.digest == digest)

    async def retrieve(self, id: str, *, org: str = DEFAULT_ORG) -> KeyRow:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            row = await _one(connection, (api_keys.c.id == id) & (api_keys.c.org == org))
        if row is None:
            raise _no_such_key(id)
        return row

    async def list(
        self, *, org: str = DEFAULT_ORG, limit: int = 20, after: str | None = None, team: str | None = None
    ) -> KeyPage:
        """Newest first. Raises NotFoundError where `after` is no key of the org."""
        query = _select().where(api_keys.c.org == org)
        if team is not None:
            query = query.where(api_keys.c.team == team)
        async with self._database.connect() as connection:
            if after is not None:
                last = await _one(connection, (api_keys.c.id == after) & (api_keys.c.org == org))
                if last is None:
                    raise _no_such_key(after, param="after")
                query = query.where(tuple_(api_keys.c.created, api_keys.c.id) < (last.created, last.id))
            query = query.order_by(api_keys.c.created.desc(), api_keys.c.id.desc()).limit(limit + 1)
            rows = [_key_of(row) for row in await connection.execute(query)]
        return KeyPage(tuple(rows[:limit]), has_more=len(rows) > limit)

    async def revoke(self, id: str, *, org: str = DEFAULT_ORG) -> KeyRow:
        """From now on it opens nothing. Revoking again changes nothing. Raises NotFoundError.

        The caller tells the gateways (the org's revision in Redis) once this has returned.
        """
        mine = (api_keys.c.id == id) & (api_keys.c.org == org)
        async with self._database.begin() as connection:
            await connection.execute(
                update(api_keys).where(mine & api_keys.c.revoked.is_(None)).values(revoked=time.time())
            )
            row = await _one(connection, mine)
        if row is None:
            raise _no_such_key(id)
        return row

    async def _insert(
        self,
        secret: str,
        name: str,
        org: str,
        team: str,
        limits: Limits | None,
        models: Sequence[str] | None,
        expires: float | None,
        is_admin: bool,
    ) -> tuple[KeyRow, bool]:
        insert = insert_sqlite if self._database.is_sqlite else insert_postgres
        id, digest = ids.object_id("key"), ids.digest(secret)
        statement = insert(api_keys).values(
            id=id,
            org=org,
            team=team,
            name=name,
            digest=digest,
            hint=secret[-4:],
            limits=None if limits is None else limits.model_dump(mode="json", exclude_none=True),
            models=None if models is None else sorted(set(models)),
            is_admin=is_admin,
            created=time.time(),
            expires=expires,
            revoked=None,
        )
        async with self._database.begin() as connection:
            await ensure_team(connection, org, team)
            await connection.execute(statement.on_conflict_do_nothing(index_elements=["digest"]))
            row = await _one(connection, api_keys.c.digest == digest)
        assert row is not None  # noqa: S101  # it was there or was inserted, in this transaction
        return row, row.id == id


def _select() -> Select[Any]:
    return select(api_keys)


async def _one(connection: AsyncConnection, where: ColumnElement[bool]) -> KeyRow | None:
    row = (await connection.execute(_select().where(where))).one_or_none()
    return None if row is None else _key_of(row)


def _key_of(row: Row[Any]) -> KeyRow:
    return KeyRow(
        id=row.id,
        org=row.org,
        team=row.team,
        name=row.name,
        hint=row.hint,
        limits=None if row.limits is None else Limits.model_validate(row.limits),
        models=None if row.models is None else frozenset(row.models),
        is_admin=row.is_admin,
        created=row.created,
        expires=row.expires,
        revoked=row.revoked,
    )


def _no_such_key(id: str, param: str | None = None) -> NotFoundError:
    return NotFoundError(f"No such API key: '{id}'.", param=param, code="key_not_found")
