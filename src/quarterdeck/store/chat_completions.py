"""Chat completions that their clients had stored, by team."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Row, delete, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import NotFoundError
from quarterdeck.store.cursors import beyond
from quarterdeck.store.database import RECENT_SECONDS, Database
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.packing import pack, unpack, unpack_all
from quarterdeck.store.response_tables import chat_completions


@dataclass(frozen=True, slots=True)
class NewChatCompletion:
    """`body` is the object, `messages` are the request's."""

    body: dict[str, Any]
    messages: Sequence[Any]
    owner: Owner
    origin: Origin
    created: float
    metadata: Mapping[str, str]


class ChatCompletionStore:
    """Every method but `create` raises NotFoundError for a completion that the owner has not."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = insert_sqlite if database.is_sqlite else insert_postgres

    async def check(self) -> None:
        """Raises DatabaseUnavailableError where nothing could be stored now."""
        await self._database.ping(max_age=RECENT_SECONDS)

    async def create(self, new: NewChatCompletion) -> bool:
        """Store a completion. False: there is one of this id, as engines make ids as they like."""
        body, messages = await pack(new.body), await pack(new.messages)
        async with self._database.begin() as connection:
            statement = (
                self._insert(chat_completions)
                .values(
                    id=new.body["id"],
                    org=new.owner.org,
                    team=new.owner.team,
                    key=new.owner.key,
                    request=new.origin.request,
                    user=new.origin.user,
                    session=new.origin.session,
                    model=new.body["model"],
                    created=new.created,
                    metadata=_searchable(new.metadata),
                    body=body,
                    messages=messages,
                )
                .on_conflict_do_nothing(index_elements=["id"])
            )
            return bool((await connection.execute(statement)).rowcount)

    async def retrieve(self, id: str, of: Owner) -> dict[str, Any]:
        """The object."""
        async with self._database.connect() as connection:
            row = await _found(connection, id, of)
        return {**await unpack(row.body), "metadata": row.metadata}

    async def messages(self, id: str, of: Owner) -> list[dict[str, Any]]:
        """The messages of its request."""
        async with self._database.connect() as connection:
            row = await _found(connection, id, of)
        found: list[dict[str, Any]] = await unpack(row.messages)
        return found

    async def page(
        self,
        of: Owner,
        *,
        after: str | None,
        limit: int,
        is_descending: bool,
        model: str | None = None,
        metadata: Mapping[str, str],
    ) -> list[dict[str, Any]]:
        """At most `limit` + 1 objects by time, of a model and with these pairs. Raises ServiceUnavailableError where
        too many of such lists are made."""
        columns = chat_completions.c
        query = select(chat_completions).where(of.owns(chat_completions))
        if model is not None:
            query = query.where(columns.model == model)
        for key, value in metadata.items():
            query = query.where(columns.metadata[key].as_string() == value)
        # No index has metadata: a list of few among many reads them all, and look-ups of keys must not wait for it.
        database = self._database
        async with database.report() if metadata or model is not None else database.connect() as connection:
            if after is not None:
                last = await _found(connection, after, of)
                query = query.where(beyond(chat_completions, last.created, last.id, is_descending=is_descending))
            order = (columns.created, columns.id)
            query = query.order_by(*(column.desc() if is_descending else column for column in order)).limit(limit + 1)
            rows = (await connection.execute(query)).all()
        bodies = await unpack_all([row.body for row in rows])
        return [{**body, "metadata": row.metadata} for body, row in zip(bodies, rows, strict=True)]

    async def update(self, id: str, of: Owner, metadata: Mapping[str, str]) -> dict[str, Any]:
        """Replace its metadata. Returns the object."""
        mine = (chat_completions.c.id == id) & of.owns(chat_completions)
        async with self._database.begin() as connection:
            await connection.execute(update(chat_completions).where(mine).values(metadata=_searchable(metadata)))
            row = await _found(connection, id, of)
        return {**await unpack(row.body), "metadata": row.metadata}

    async def delete(self, id: str, of: Owner) -> None:
        mine = (chat_completions.c.id == id) & of.owns(chat_completions)
        async with self._database.begin() as connection:
            if not (await connection.execute(delete(chat_completions).where(mine))).rowcount:
                raise no_such_completion(id)


def no_such_completion(id: str) -> NotFoundError:
    return NotFoundError(f"Chat completion with id '{id[:100]}' not found.", param="completion_id")


def _searchable(metadata: Mapping[str, str]) -> dict[str, str]:
    """PostgreSQL can't look into JSON that has a NUL in it: a list by metadata would fail for the whole team."""
    return {key.replace("\0", "\ufffd"): value.replace("\0", "\ufffd") for key, value in metadata.items()}


async def _found(connection: AsyncConnection, id: str, of: Owner) -> Row[Any]:
    query = select(chat_completions).where(chat_completions.c.id == id, of.owns(chat_completions))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise no_such_completion(id)
    return row
