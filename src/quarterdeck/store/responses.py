"""Stored responses: created when their answer begins or ends, read by their team, deleted by it or by age."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import delete, insert, select, update

from quarterdeck.errors import BadRequestError, NotFoundError
from quarterdeck.store.database import RECENT_SECONDS, Database, Transaction
from quarterdeck.store.jobs import JobStore
from quarterdeck.store.ownership import Origin, Owner
from quarterdeck.store.packing import pack, pack_all, unpack
from quarterdeck.store.response_deletion import forget_on
from quarterdeck.store.response_tables import responses, stored_items
from quarterdeck.store.stored_items import (
    MAX_ITEMS,
    Item,
    ItemPage,
    NewItem,
    find_items,
    insert_items,
    items_of,
    page_items,
)

MAX_CHAIN = 1000
"""Responses that one may continue."""


@dataclass(frozen=True, slots=True)
class NewResponse:
    """A response that is to be stored. `body` is the response object."""

    body: dict[str, Any]
    owner: Owner
    origin: Origin
    created: float
    input: Sequence[Item]
    shows_logprobs: bool = False

    @property
    def id(self) -> str:
        return str(self.body["id"])


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """`body` is the response object."""

    body: dict[str, Any]
    is_interrupted: bool
    """It is in progress, but its gateway is gone. A background response is not: another continues it."""


class ResponseStore:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs = JobStore(database)

    async def check(self) -> None:
        """Raises DatabaseUnavailableError where nothing could be stored now."""
        await self._database.ping(max_age=RECENT_SECONDS)

    async def begin(self, new: NewResponse, *, alive_until: float) -> None:
        """Store a response in progress. It counts as interrupted from `alive_until` on, unless it is renewed."""
        body, items = await pack(without_output(new.body)), await packed_items(new.input)
        async with self._database.begin() as connection:
            await insert_response(connection, new, body, None, alive_until)
            await insert_items(connection, new.id, items, new.owner, new.created, origin=new.origin)

    async def create(self, new: NewResponse, steps: Sequence[Any]) -> None:
        """Store a response that has ended."""
        body, packed = await pack(without_output(new.body)), await pack(_packable(steps, new))
        items = await packed_items(new.input) + await packed_items(new.body["output"], is_output=True)
        async with self._database.begin() as connection:
            await insert_response(connection, new, body, packed, None)
            await insert_items(connection, new.id, items, new.owner, new.created, origin=new.origin)

    async def finish(self, new: NewResponse, steps: Sequence[Any]) -> bool:
        """Store the end of a response in progress. False: it was deleted meanwhile."""
        body, packed = await pack(without_output(new.body)), await pack(_packable(steps, new))
        output = await packed_items(new.body["output"], is_output=True)
        begun = (responses.c.id == new.id) & (responses.c.status == "in_progress")
        values = {"status": new.body["status"], "alive_until": None, "body": body, "steps": packed}
        async with self._database.begin() as connection:
            if not (await connection.execute(update(responses).where(begun).values(values))).rowcount:
                return False
            start = len(new.input)
            await insert_items(connection, new.id, output, new.owner, new.created, start=start, origin=new.origin)
            return True

    async def renew(self, ids: Sequence[str], *, alive_until: float) -> None:
        """Keep responses in progress from being taken for interrupted."""
        async with self._database.begin() as connection:
            open_ones = responses.c.id.in_(ids) & (responses.c.status == "in_progress")
            await connection.execute(update(responses).where(open_ones).values(alive_until=alive_until))

    async def retrieve(self, id: str, of: Owner) -> StoredResponse:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            row = await self._row(connection, id, of)
            output = select(stored_items.c.body).where(stored_items.c.owner == id, stored_items.c.is_output)
            items = (await connection.execute(output.order_by(stored_items.c.position))).scalars().all()
        body = await unpack(row.body)
        body["output"] = [await unpack(item) for item in items]
        body["status"] = row.status  # a background response's changes before its body does
        return StoredResponse(body, _is_interrupted(row))

    async def steps(self, id: str, of: Owner) -> tuple[list[Any], bool]:
        """The steps of a response that has ended, and whether its events show logprobs. Raises NotFoundError."""
        async with self._database.connect() as connection:
            row = await self._row(connection, id, of)
        if row.steps is None:
            return [], False
        found = await unpack(row.steps)
        return found["steps"], found["shows_logprobs"]

    async def input_items(self, id: str, of: Owner, *, after: str | None, limit: int, is_descending: bool) -> ItemPage:
        """At most `limit` items of its input. Raises NotFoundError."""
        async with self._database.connect() as connection:
            await self._row(connection, id, of)
            return await page_items(
                connection, id, after=after, limit=limit, is_descending=is_descending, only_input=True
            )

    async def context(self, id: str, of: Owner) -> list[Item]:
        """The items of a response and of those that it continues, the oldest first. Raises NotFoundError where one of
        them is not there (any more), and BadRequestError for one in progress."""
        columns = responses.c
        chain = (
            select(columns.id, columns.previous, columns.status, columns.alive_until, columns.attempt)
            .where(columns.id == id, of.owns(responses))
            .cte("chain", recursive=True)
        )
        older = responses.alias()
        mine = (older.c.org == of.org) & (older.c.team == of.team) & (older.c.created >= of.since)
        chain = chain.union(
            select(older.c.id, older.c.previous, older.c.status, older.c.alive_until, older.c.attempt)
            .join(chain, older.c.id == chain.c.previous)
            .where(mine)
        )
        async with self._database.connect() as connection:
            rows = {row.id: row for row in await connection.execute(select(chain).limit(MAX_CHAIN + 1))}
            if len(rows) > MAX_CHAIN:
                raise BadRequestError(
                    f"The conversation is too long: at most {MAX_CHAIN} responses can be continued.",
                    param="previous_response_id",
                    code="context_too_large",
                )
            owners: list[str] = []
            at: str | None = id
            while at:
                row = rows.get(at)
                if row is None:
                    raise no_such_previous_response(at)
                owners.append(at)
                at = row.previous
            if rows[id].status in ("queued", "in_progress") and not _is_interrupted(rows[id]):
                raise BadRequestError(
                    f"The previous response '{id[:100]}' is still in progress.",
                    param="previous_response_id",
                    code="previous_response_in_progress",
                )
            return await items_of(connection, owners[::-1])

    async def items(self, ids: Sequence[str], of: Owner) -> dict[str, Item]:
        """The team's items with these ids, of responses and of conversations. Raises BadRequestError for too many, or
        too large ones."""
        if len(ids) > MAX_ITEMS:
            raise BadRequestError("Too many item references.", param="input", code="array_above_max_length")
        async with self._database.connect() as connection:
            return await find_items(connection, ids, of)

    async def delete(self, id: str, of: Owner) -> None:
        """Raises NotFoundError."""
        async with self._database.begin() as connection:
            mine = (responses.c.id == id) & of.owns(responses)
            if not (await connection.execute(delete(responses).where(mine))).rowcount:
                raise no_such_response(id)
            await connection.execute(delete(stored_items).where(stored_items.c.owner == id))
            await forget_on(connection, of.org, [id], self._jobs)

    async def _row(self, connection: Transaction, id: str, of: Owner) -> Any:
        query = select(responses).where(responses.c.id == id, of.owns(responses))
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise no_such_response(id)
        return row


async def insert_response(
    transaction: Transaction,
    new: NewResponse,
    body: bytes,
    steps: bytes | None,
    alive_until: float | None,
    *,
    attempt: int | None = None,
) -> None:
    conversation = new.body["conversation"]
    await transaction.execute(
        insert(responses).values(
            id=new.id,
            org=new.owner.org,
            team=new.owner.team,
            key=new.owner.key,
            request=new.origin.request,
            user=new.origin.user,
            session=new.origin.session,
            status=new.body["status"],
            previous=new.body["previous_response_id"],
            conversation=None if conversation is None else conversation["id"],
            created=new.created,
            alive_until=alive_until,
            body=body,
            steps=steps,
            attempt=attempt,
        )
    )


def no_such_response(id: str) -> NotFoundError:
    return NotFoundError(f"Response with id '{id[:100]}' not found.", param="response_id")


def no_such_previous_response(id: str) -> NotFoundError:
    return NotFoundError(
        f"Previous response with id '{id[:100]}' not found.",
        param="previous_response_id",
        code="previous_response_not_found",
    )


def _is_interrupted(row: Any) -> bool:
    return row.status == "in_progress" and row.attempt is None and (row.alive_until or 0.0) < time.time()


def without_output(body: dict[str, Any]) -> dict[str, Any]:
    return {**body, "output": []}


def _packable(steps: Sequence[Any], new: NewResponse) -> dict[str, Any]:
    return {"steps": steps, "shows_logprobs": new.shows_logprobs}


async def packed_items(items: Sequence[Item], *, is_output: bool = False) -> list[NewItem]:
    packed = await pack_all(items)
    return [NewItem(item["id"], each, is_output) for item, each in zip(items, packed, strict=True)]
