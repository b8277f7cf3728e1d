"""Scores of requests: feedback of their callers, and what evaluations found. Also the outbox of their export.

A score may come before its request's row, which the worker inserts later, or for a request that never was: it is
`pending` until the worker has seen the row, and deleted if that belongs to another team or does not come.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, and_, delete, func, not_, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from quarterdeck import ids
from quarterdeck.errors import BadRequestError, NotFoundError, RateLimitError
from quarterdeck.store.cursors import beyond
from quarterdeck.store.database import Database
from quarterdeck.store.ledger_tables import ledger, scores

Kind = Literal["boolean", "numeric", "categorical"]
Source = Literal["feedback", "api"]

MAX_PENDING = 10_000
"""Scores of one team whose requests are not in the ledger: more than wait for a worker that is away for a night."""
MAX_OF_REQUEST = 1000
"""Scores of one request, by name and user: more than its readers and an evaluation give."""
AT_ONCE = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """One score. `user` is empty where none was named. Times are Unix seconds."""

    id: str
    org: str
    team: str
    key: str
    """The key that wrote it last."""
    request: str
    name: str
    user: str = ""
    source: Source = "feedback"
    kind: Kind | None = None
    """What `value` is. None: there is only a comment."""
    value: float | None = None
    """A number; 1 or 0 for a boolean."""
    category: str | None = None
    comment: str | None = None
    created: float
    updated: float
    is_confirmed: bool = False
    """The request is in the ledger, and of this team."""
    deleted: float | None = None
    """When it was deleted; it stays until the trace backend has deleted it too."""
    exported: float | None = None
    """The `updated` that the trace backend has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreFilter:
    """Scores of an org that match everything that is set."""

    org: str
    team: str | None = None
    request: str | None = None
    name: str | None = None
    user: str | None = None
    source: Source | None = None
    since: float | None = None
    until: float | None = None


class ScoreStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = insert_sqlite if database.is_sqlite else insert_postgres

    async def put(self, score: Score, *, is_admin: bool = False) -> tuple[Score, bool]:
        """Store a score, or replace that of the same request, name and user. Returns it and whether it is new.

        Raises NotFoundError where the request is of another team or org (`is_admin`: org), BadRequestError where it has
        MAX_OF_REQUEST others, and RateLimitError where too many of the team's scores wait for their requests.
        """
        async with self._database.begin() as connection:
            query = select(ledger.c.org, ledger.c.team).where(ledger.c.id == score.request)
            row = (await connection.execute(query)).one_or_none()
            if row is not None and (row.org != score.org or (row.team != score.team and not is_admin)):
                raise no_such_request(score.request)
            if row is None and await connection.scalar(_pending_of(score)) >= MAX_PENDING:
                raise RateLimitError(
                    f"{MAX_PENDING} scores of this team wait for requests that are not in the ledger.",
                    code="too_many_pending_scores",
                )
            if await connection.scalar(_others_of_request(score)) >= MAX_OF_REQUEST:
                raise BadRequestError(
                    f"The request has {MAX_OF_REQUEST} scores already.", param="request_id", code="too_many_scores"
                )
            team = score.team if row is None else row.team
            values = {**_values(score), "team": team, "is_confirmed": row is not None}
            changed = {name: value for name, value in values.items() if name not in ("id", "created", "org", "request")}
            statement = self._insert(scores).values(**values)
            statement = statement.on_conflict_do_update(
                index_elements=["org", "request", "name", "user"],
                set_=changed,
                # Another team's pending score of a guessed id must not be taken over.
                where=and_(scores.c.team == team),
            )
            found = (await connection.execute(statement.returning(scores))).one_or_none()
        if found is None:
            raise no_such_request(score.request)
        stored = _score(found)
        return stored, stored.id == score.id

    async def list(self, where: ScoreFilter, *, limit: int = 20, after: str | None = None) -> list[Score]:
        """Newest first. Raises NotFoundError where `after` does not exist."""
        query = select(scores).where(*_conditions(where))
        async with self._database.connect() as connection:
            if after is not None:
                last = (await connection.execute(select(scores).where(scores.c.id == after, *_of(where)))).one_or_none()
                if last is None:
                    raise _no_such_score(after, param="after")
                query = query.where(beyond(scores, last.created, last.id))
            query = query.order_by(scores.c.created.desc(), scores.c.id.desc()).limit(limit)
            return [_score(row) for row in await connection.execute(query)]

    async def delete(self, id: str, *, org: str, team: str | None = None) -> Score:
        """Mark a score as deleted. Raises NotFoundError."""
        conditions = [scores.c.id == id, *_of(ScoreFilter(org=org, team=team))]
        statement = update(scores).where(*conditions).values(deleted=time.time()).returning(scores)
        async with self._database.begin() as connection:
            row = (await connection.execute(statement)).one_or_none()
        if row is None:
            raise _no_such_score(id)
        return _score(row)

    # the worker's part

    async def confirm(self, *, org: str, before: float) -> int:
        """Confirm pending scores whose requests have arrived. Those of another team's request, and those from before
        `before` (Unix seconds) without one, are deleted. Returns how many were confirmed."""
        same = select(ledger.c.id).where(ledger.c.id == scores.c.request, ledger.c.org == scores.c.org)
        mine = same.where(or_(ledger.c.team == scores.c.team, scores.c.source == "api")).exists()
        pending = and_(scores.c.org == org, scores.c.is_confirmed.is_(False))
        # A score of the admin API counts for the team of its request.
        team = select(ledger.c.team).where(ledger.c.id == scores.c.request).scalar_subquery()
        async with self._database.begin() as connection:
            changes = update(scores).where(pending, mine).values(is_confirmed=True, team=team)
            confirmed = await connection.execute(changes)
            other = select(ledger.c.id).where(ledger.c.id == scores.c.request).exists()
            await connection.execute(delete(scores).where(pending, or_(other, scores.c.created < before)))
            return confirmed.rowcount

    async def to_export(self, *, org: str) -> Sequence[tuple[Score, str]]:
        """Confirmed scores that the trace backend does not have yet, or has in an older state, or must delete, each
        with the id of its request's trace."""
        is_due = or_(scores.c.exported.is_(None), scores.c.exported < scores.c.updated, scores.c.deleted.is_not(None))
        query = select(scores, ledger.c.caller_trace_id.label("_trace"))
        query = query.outerjoin(ledger, ledger.c.id == scores.c.request)
        query = query.where(scores.c.org == org, scores.c.is_confirmed.is_(True), is_due)
        async with self._database.connect() as connection:
            found = await connection.execute(query.order_by(scores.c.updated).limit(AT_ONCE))
            return [(_score(row), row._trace or row.request.removeprefix("req_")) for row in found]

    async def mark_exported(self, score: Score) -> None:
        """The backend has the score as it is here. It may have changed since, and is exported again then."""
        async with self._database.begin() as connection:
            await connection.execute(update(scores).where(scores.c.id == score.id).values(exported=score.updated))

    async def remove(self, ids: Sequence[str], *, org: str) -> None:
        """Remove deleted scores."""
        async with self._database.begin() as connection:
            await connection.execute(
                delete(scores).where(scores.c.id.in_(ids), scores.c.org == org, scores.c.deleted.is_not(None))
            )

    async def remove_deleted(self, *, org: str) -> int:
        """Remove all deleted scores, where there is no trace backend that has them."""
        async with self._database.begin() as connection:
            gone = await connection.execute(delete(scores).where(scores.c.org == org, scores.c.deleted.is_not(None)))
            return gone.rowcount


def _pending_of(score: Score) -> Any:
    pending = select(func.count()).select_from(scores)
    return pending.where(scores.c.org == score.org, scores.c.team == score.team, scores.c.is_confirmed.is_(False))


def _others_of_request(score: Score) -> Any:
    same = and_(scores.c.name == score.name, scores.c.user == score.user)
    others = select(func.count()).select_from(scores)
    return others.where(scores.c.org == score.org, scores.c.request == score.request, not_(same))


def _of(where: ScoreFilter) -> list[ColumnElement[bool]]:
    conditions = [scores.c.org == where.org, scores.c.deleted.is_(None)]
    return [*conditions, scores.c.team == where.team] if where.team is not None else conditions


def _conditions(where: ScoreFilter) -> list[ColumnElement[bool]]:
    conditions = _of(where)
    for name in ("request", "name", "user", "source"):
        if (value := getattr(where, name)) is not None:
            conditions.append(scores.c[name] == value)
    if where.since is not None:
        conditions.append(scores.c.created >= where.since)
    if where.until is not None:
        conditions.append(scores.c.created < where.until)
    return conditions


def _values(score: Score) -> dict[str, Any]:
    return {name: getattr(score, name) for name in Score.__slots__}


def _score(row: Row[Any]) -> Score:
    return Score(**{name: getattr(row, name) for name in Score.__slots__})


def new_id() -> str:
    return ids.object_id("score")


def no_such_request(id: str) -> NotFoundError:
    return NotFoundError(f"No such request: '{id[:100]}'.", param="request_id", code="request_not_found")


def _no_such_score(id: str, param: str | None = None) -> NotFoundError:
    return NotFoundError(f"No such score: '{id[:100]}'.", param=param, code="score_not_found")
