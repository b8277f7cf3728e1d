"""Items of responses and conversations: one row each, in order of `position`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, insert, select, tuple_
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import BadRequestError, NotFoundError
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.packing import Packed, unpack_all
from quarterdeck.store.response_tables import stored_items

Item = dict[str, Any]

MAX_ITEMS = 20_000
"""Items that a response may continue: as many as a request may have."""
MAX_CONTEXT_BYTES = 32 * 1024 * 1024
"""JSON of all items that a response continues, and of those that it refers to: what one process holds at once for
it."""
MAX_PAGE_BYTES = 16 * 1024 * 1024
"""JSON of one page of a list. A page whose items are larger together ends earlier, after one item at least."""
AT_ONCE = 500
"""Ids in one statement."""


@dataclass(frozen=True, slots=True)
class NewItem:
    """An item with its compressed JSON."""

    id: str
    packed: Packed
    is_output: bool = False


@dataclass(frozen=True, slots=True)
class ItemPage:
    """`has_more`: further items follow, as the page had its number or its bytes."""

    items: list[Item]
    has_more: bool


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
) -> ItemPage:
    """At most `limit` items of an owner, after the item `after`. Raises NotFoundError for one that it has not."""
    columns = stored_items.c
    mine = columns.owner == owner
    if only_input:
        mine &= columns.is_output.is_(False)
    query = select(columns.position, columns.bytes).where(mine)
    if after is not None:
        # An id may be there twice, where a client gave it twice: after the last of them, so that a list ends.
        last = func.min(columns.position) if is_descending else func.max(columns.position)
        position = await connection.scalar(select(last).where(mine, columns.id == after))
        if position is None:
            raise NotFoundError(f"Item with id '{after[:100]}' not found.", param="after")
        query = query.where(columns.position < position if is_descending else columns.position > position)
    order = columns.position.desc() if is_descending else columns.position
    found = (await connection.execute(query.order_by(order).limit(limit + 1))).all()
    kept = _within([row.bytes for row in found[:limit]])
    positions = [row.position for row in found[:kept]]
    bodies = select(columns.body).where(columns.owner == owner, columns.position.in_(positions)).order_by(order)
    return ItemPage(await unpack_all(list(await connection.scalars(bodies))), len(found) > kept)


def _within(sizes: Sequence[int]) -> int:
    """How many of these fit in a page, at least one."""
    total = 0
    for index, size in enumerate(sizes):
        total += size
        if index and total > MAX_PAGE_BYTES:
            return index
    return len(sizes)


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
    """The team's items with these ids, as far as there are any. An item is in each response and conversation that it
    was given to; the newest is found. Raises BadRequestError where they are too large together."""
    columns = stored_items.c
    newest = func.row_number().over(
        partition_by=columns.id, order_by=(columns.created.desc(), columns.owner, columns.position.desc())
    )
    places: dict[tuple[str, int], str] = {}
    size = 0
    for start in range(0, len(ids), AT_ONCE):
        named = select(columns.id, columns.owner, columns.position, columns.bytes, newest.label("place"))
        named = named.where(columns.id.in_(ids[start : start + AT_ONCE]), of.owns(stored_items))
        found = named.subquery()
        for row in await connection.execute(select(found).where(found.c.place == 1)):
            places[(row.owner, row.position)] = row.id
            size += row.bytes
    if size > MAX_CONTEXT_BYTES:
        raise BadRequestError(
            f"The items that the input refers to are too large: {size} bytes together. At most {MAX_CONTEXT_BYTES} "
            "bytes can be referred to.",
            param="input",
            code="context_too_large",
        )
    bodies: dict[str, bytes] = {}
    at = list(places)
    for start in range(0, len(at), AT_ONCE):
        chosen = tuple_(columns.owner, columns.position).in_(at[start : start + AT_ONCE])
        query = select(columns.owner, columns.position, columns.body).where(chosen)
        for row in await connection.execute(query):
            bodies[places[(row.owner, row.position)]] = row.body
    return dict(zip(bodies, await unpack_all(list(bodies.values())), strict=True))
