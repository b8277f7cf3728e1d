"""Conversations: items that responses continue and add to."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy import Row, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck import ids
from quarterdeck.errors import BadRequestError, ConflictError, NotFoundError
from quarterdeck.store.database import Database, Transaction
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.packing import pack_all, unpack
from quarterdeck.store.response_tables import conversations, stored_items
from quarterdeck.store.stored_items import MAX_ITEMS, Item, ItemPage, NewItem, insert_items, items_of, page_items


@dataclass(frozen=True, slots=True)
class ConversationRow:
    """`created` is in Unix seconds."""

    id: str
    created: float
    metadata: Mapping[str, str]


class ConversationStore:
    """Every method raises NotFoundError for a conversation that the owner has not."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, of: Owner, metadata: Mapping[str, str], items: Sequence[Item]) -> ConversationRow:
        row = ConversationRow(ids.object_id("conv"), time.time(), metadata)
        new = await _packed(items)
        async with self._database.begin() as connection:
            await connection.execute(
                insert(conversations).values(
                    id=row.id,
                    org=of.org,
                    team=of.team,
                    key=of.key,
                    created=row.created,
                    used=row.created,
                    metadata=dict(metadata),
                    next_position=len(items),
                )
            )
            await insert_items(connection, row.id, new, of, row.created)
        return row

    async def retrieve(self, id: str, of: Owner) -> ConversationRow:
        async with self._database.connect() as connection:
            return _row(await _found(connection, id, of))

    async def update(self, id: str, of: Owner, metadata: Mapping[str, str]) -> ConversationRow:
        mine = (conversations.c.id == id) & of.owns(conversations)
        statement = update(conversations).where(mine).values(metadata=dict(metadata), used=time.time())
        async with self._database.begin() as connection:
            await connection.execute(statement)
            return _row(await _found(connection, id, of))

    async def delete(self, id: str, of: Owner) -> None:
        mine = (conversations.c.id == id) & of.owns(conversations)
        async with self._database.begin() as connection:
            if not (await connection.execute(delete(conversations).where(mine))).rowcount:
                raise no_such_conversation(id)
            await connection.execute(delete(stored_items).where(stored_items.c.owner == id))

    async def append(
        self, id: str, items: Sequence[Item], of: Owner, *, origin: Origin | None = None, by: str | None = None
    ) -> None:
        """Add items at the end, all of them or none. `by`: the response that holds the conversation's lock, which ends
        with it. Raises BadRequestError where there would be too many, and ConflictError without `by` while a response
        is made in it."""
        new, now = await _packed(items), time.time()
        async with self._database.begin() as connection:
            await append_on(connection, id, new, of, now, origin=origin, by=by)

    async def items(self, id: str, of: Owner) -> list[Item]:
        """All items, the oldest first. Raises BadRequestError where there are too many to be continued."""
        async with self._database.connect() as connection:
            await _found(connection, id, of)
            return await items_of(connection, [id])

    async def page(self, id: str, of: Owner, *, after: str | None, limit: int, is_descending: bool) -> ItemPage:
        """At most `limit` items."""
        async with self._database.connect() as connection:
            await _found(connection, id, of)
            return await page_items(connection, id, after=after, limit=limit, is_descending=is_descending)

    async def item(self, id: str, item: str, of: Owner) -> Item:
        async with self._database.connect() as connection:
            await _found(connection, id, of)
            query = select(stored_items.c.body).where(stored_items.c.owner == id, stored_items.c.id == item)
            body = (await connection.execute(query.order_by(stored_items.c.position.desc()))).scalars().first()
        if body is None:
            raise no_such_item(item, id)
        found: Item = await unpack(body)
        return found

    async def delete_item(self, id: str, item: str, of: Owner) -> ConversationRow:
        async with self._database.begin() as connection:
            mine = (conversations.c.id == id) & of.owns(conversations)
            await connection.execute(update(conversations).where(mine).values(used=time.time()))
            row = await _found(connection, id, of)
            gone = (stored_items.c.owner == id) & (stored_items.c.id == item)
            if not (await connection.execute(delete(stored_items).where(gone))).rowcount:
                raise no_such_item(item, id)
            return _row(row)


async def append_on(
    transaction: Transaction,
    id: str,
    items: Sequence[NewItem],
    of: Owner,
    now: float,
    *,
    origin: Origin | None = None,
    by: str | None = None,
) -> None:
    """`ConversationStore.append` in a transaction, which an error leaves without effects of its own."""
    columns = conversations.c
    mine = (columns.id == id) & of.owns(conversations)
    has_room = columns.next_position + len(items) <= MAX_ITEMS
    is_free = or_(columns.locked_by.is_(None), columns.locked_by == by, columns.locked_until < now)
    values: dict[str, object] = {"next_position": columns.next_position + len(items), "used": now}
    if by is not None:
        values |= {"locked_by": None, "locked_until": None}
    statement = update(conversations).where(mine, has_room, is_free).values(**values)
    after = (await transaction.execute(statement.returning(columns.next_position))).scalar_one_or_none()
    if after is not None:
        await insert_items(transaction, id, items, of, now, start=after - len(items), origin=origin)
        return
    row = (await transaction.execute(select(columns.next_position).where(mine))).one_or_none()
    if row is None:
        raise no_such_conversation(id)
    if row.next_position + len(items) > MAX_ITEMS:
        raise BadRequestError(
            f"The conversation is full: it can have {MAX_ITEMS} items.", param="items", code="conversation_full"
        )
    raise conversation_locked()


def conversation_locked() -> ConflictError:
    return ConflictError(
        "Another process is currently operating on this conversation. Please retry in a few seconds.",
        param="conversation",
        code="conversation_locked",
    )


def no_such_conversation(id: str) -> NotFoundError:
    return NotFoundError(f"Conversation with id '{id[:100]}' not found.", param="conversation_id")


def no_such_item(item: str, id: str) -> NotFoundError:
    return NotFoundError(f"Item with id '{item[:100]}' not found in conversation '{id[:100]}'.", param="item_id")


async def _found(connection: AsyncConnection, id: str, of: Owner) -> Row[tuple[object, ...]]:
    query = select(conversations).where(conversations.c.id == id, of.owns(conversations))
    row = (await connection.execute(query)).one_or_none()
    if row is None:
        raise no_such_conversation(id)
    return row


def _row(row: Row[tuple[object, ...]]) -> ConversationRow:
    return ConversationRow(row.id, row.created, row.metadata)


async def _packed(items: Sequence[Item]) -> list[NewItem]:
    packed = await pack_all(items)
    return [NewItem(item["id"], each) for item, each in zip(items, packed, strict=True)]
