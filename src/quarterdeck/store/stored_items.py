"""Items of responses and conversations: one row each, in order of `position`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import BadRequestError, NotFoundError
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.packing import Packed, unpack_all
from quarterdeck.store.response_tables import stored_items

Item = dict[str, Any]

MAX_ITEMS = 20_000
"""Items that a response may continue: as many as a request may have."""
MAX_CONTEXT_BYTES = 32 * 1024 * 1024
"""JSON of all items that a response continues: what one process holds at once for it."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item with its compressed JSON."""

    id: str
    packed: Packed
    is_output: bool = False


async def insert_items(
    connection: AsyncConnection,
    owner: str,
    items: Sequence[NewItem],
    of: Owner,
    created: float,
    *,
    start: int = 0,
    origin: Origin | None = None,
) -> None:
    """Insert items at positions from `start` on."""
    if not items:
        return
    common = {
        "owner": owner,
        "org": of.org,
        "team": of.team,
        "created": created,
        "request": origin.request if origin is not None else None,
        "user": origin.user if origin is not None else None,
        "session": origin.session if origin is not None else None,
    }
    rows = [
        {
            **common,
            "position": start + index,
            "id": item.id,
            "is_output": item.is_output,
            "bytes": item.packed.bytes,
            "body": item.packed.body,
        }
        for index, item in enumerate(items)
    ]
    await connection.execute(insert(stored_items), rows)


async def page_items(
    connection: AsyncConnection,
    owner: str,
    *,
    after: str | None,
    limit: int,
    is_descending: bool,
    only_input: bool = False,
) -> list[Item]:
    """At most `limit` + 1 items of an owner, after the item `after`. Raises NotFoundError for one that it has not."""
    columns = stored_items.c
    mine = columns.owner == owner
    if only_input:
        mine &= columns.is_output.is_(False)
    query = select(columns.body).where(mine)
    if after is not None:
        position = await connection.scalar(
            select(columns.position).where(mine, columns.id == after).order_by(columns.position.desc()).limit(1)
        )
        if position is None:
            raise NotFoundError(f"Item with id '{after[:100]}' not found.", param="after")
        query = query.where(columns.position < position if is_descending else columns.position > position)
    order = columns.position.desc() if is_descending else columns.position
    rows = (await connection.execute(query.order_by(order).limit(limit + 1))).all()
    return await unpack_all([row.body for row in rows])


async def items_of(connection: AsyncConnection, owners: Sequence[str]) -> list[Item]:
    """All items of these owners, in their order. Raises BadRequestError for more than a response may continue."""
    columns = stored_items.c
    mine = columns.owner.in_(owners)
    total = select(func.count(), func.coalesce(func.sum(columns.bytes), 0)).where(mine)
    count, size = (await connection.execute(total)).one()
    if count > MAX_ITEMS or size > MAX_CONTEXT_BYTES:
        raise BadRequestError(
            f"The conversation is too long: {count} items of {size} bytes. At most {MAX_ITEMS} items of "
            f"{MAX_CONTEXT_BYTES} bytes can be continued.",
            param="input",
            code="context_too_large",
        )
    rows = (await connection.execute(select(columns.owner, columns.position, columns.body).where(mine))).all()
    place = {owner: index for index, owner in enumerate(owners)}
    rows = sorted(rows, key=lambda row: (place[row.owner], row.position))
    return await unpack_all([row.body for row in rows])


async def find_items(connection: AsyncConnection, ids: Sequence[str], of: Owner) -> dict[str, Item]:
    """The team's items with these ids, as far as there are any."""
    query = select(stored_items.c.id, stored_items.c.body).where(stored_items.c.id.in_(ids), of.owns(stored_items))
    bodies: dict[str, bytes] = {row.id: row.body for row in await connection.execute(query)}
    return dict(zip(bodies, await unpack_all(list(bodies.values())), strict=True))
