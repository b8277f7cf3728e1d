"""Events and their deliveries: the outbox from which workers post webhooks.

An event is recorded once for each `key`, together with a delivery for each endpoint that asks for it, in one
transaction. A worker leases a delivery, posts it and records the outcome; the lease of a worker that died expires, and
another posts it again with the same event id. So an event is delivered at least once, and once where no worker dies.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import and_, delete, func, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck import ids
from quarterdeck.errors import NotFoundError
from quarterdeck.store.cursors import beyond
from quarterdeck.store.database import Database
from quarterdeck.store.webhook_tables import webhook_deliveries, webhook_endpoints, webhook_events
from quarterdeck.store.webhooks import WebhookEndpoint, endpoint_of, no_such_endpoint, subscribers

State = Literal["pending", "delivered", "failed"]

AT_ONCE = 500
"""Values per statement, and rows removed by one turn."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What happened, as it is posted. Times are Unix seconds."""

    id: str
    org: str
    type: str
    body: str
    created: float
    key: str | None = None
    """What it is about: another event of the same key is not recorded. None: any number."""
    expires: float | None = None
    """When it may be removed, and its key used again. None: never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One event on its way to one endpoint."""

    id: str
    event: str
    event_type: str
    endpoint: str
    state: State
    attempts: int
    due: float
    """Of the next attempt."""
    retry_until: float
    """No attempt is made after it."""
    status: int | None
    """The HTTP status of the last response."""
    error: str | None
    """Why the last attempt failed."""
    created: float
    finished: float | None


@dataclass(frozen=True, slots=True)
class LeasedDelivery:
    """A delivery that this worker alone makes."""

    delivery: Delivery
    endpoint: WebhookEndpoint
    body: str
    lease: str


@dataclass(frozen=True, slots=True)
class Recorded:
    """What `record` did."""

    is_new: bool
    deliveries: tuple[str, ...] = ()
    dropped: int = 0
    """Deliveries that had no room in the queue."""


class WebhookOutbox:
    """The queue of all organisations."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(
        self, event: Event, *, retry_until: float, max_waiting: int, endpoint: str | None = None
    ) -> Recorded:
        """Record an event, with a delivery to each endpoint of its org that asks for it, or to `endpoint` alone,
        which need not ask for it. An event whose key exists changes nothing."""
        async with self._database.begin() as connection:
            return await self.record_on(
                connection, event, retry_until=retry_until, max_waiting=max_waiting, endpoint=endpoint
            )

    async def record_on(
        self,
        connection: AsyncConnection,
        event: Event,
        *,
        retry_until: float,
        max_waiting: int,
        endpoint: str | None = None,
    ) -> Recorded:
        """`record` in a transaction of the caller's: the event is recorded if what it reports is."""
        insert_once = insert_sqlite if self._database.is_sqlite else insert_postgres
        values = {name: getattr(event, name) for name in Event.__slots__}
        statement = insert_once(webhook_events).values(**values).on_conflict_do_nothing()
        if (await connection.execute(statement.returning(webhook_events.c.id))).one_or_none() is None:
            return Recorded(False)
        endpoints = [endpoint] if endpoint is not None else await subscribers(connection, event.org, event.type)
        room = max(0, max_waiting - await _waiting(connection, event.org)) if endpoints else 0
        made = [_new_delivery(event, each, retry_until) for each in endpoints[:room]]
        if made:
            await connection.execute(insert(webhook_deliveries), made)
        return Recorded(True, tuple(each["id"] for each in made), len(endpoints) - len(made))

    async def recorded(self, org: str, keys: Sequence[str]) -> set[str]:
        """Those of `keys` whose events are recorded."""
        found: set[str] = set()
        async with self._database.connect() as connection:
            for start in range(0, len(keys), AT_ONCE):
                query = select(webhook_events.c.key).where(webhook_events.c.org == org)
                found.update(
                    await connection.scalars(query.where(webhook_events.c.key.in_(keys[start : start + AT_ONCE])))
                )
        return found

    async def lease(
        self,
        *,
        now: float,
        seconds: float,
        limit: int,
        per_endpoint: int,
        per_org: int | None = None,
        busy: Collection[str] = (),
        busy_orgs: Collection[str] = (),
    ) -> list[LeasedDelivery]:
        """Lease up to `limit` deliveries that are due, those of endpoints in `busy` and of `busy_orgs` excepted. At
        most `per_endpoint` of one endpoint and `per_org` of one organisation, so that receivers that hang do not take
        all places."""
        table, of = webhook_deliveries.c, webhook_endpoints.c
        is_free = and_(
            table.state == "pending",
            table.due <= now,
            or_(table.leased_until.is_(None), table.leased_until <= now),
        )
        place = func.row_number().over(partition_by=table.endpoint, order_by=(table.due, table.id)).label("place")
        due = select(table.id, table.org, table.due, place).join(webhook_endpoints, of.id == table.endpoint)
        due = due.where(is_free, of.disabled.is_(None))
        if busy:
            due = due.where(table.endpoint.not_in(list(busy)))
        if busy_orgs:
            due = due.where(table.org.not_in(list(busy_orgs)))
        placed = due.subquery()
        of_org = func.row_number().over(partition_by=placed.c.org, order_by=(placed.c.due, placed.c.id))
        found = select(placed, of_org.label("of_org")).where(placed.c.place <= per_endpoint).subquery()
        query = select(found.c.id).order_by(found.c.due, found.c.id).limit(limit)
        if per_org is not None:
            query = query.where(found.c.of_org <= per_org)
        async with self._database.connect() as connection:
            candidates = list(await connection.scalars(query))
        if not candidates:
            return []
        lease = ids.object_id("lease")
        # Checked again: another worker may have leased some meanwhile.
        taking = update(webhook_deliveries).where(table.id.in_(candidates), is_free)
        taking = taking.values(lease=lease, leased_until=now + seconds)
        async with self._database.begin() as connection:
            await connection.execute(taking)
            leased = select(webhook_deliveries, webhook_events.c.body, webhook_events.c.type)
            leased = leased.join(webhook_events, webhook_events.c.id == table.event).where(table.lease == lease)
            rows = list(await connection.execute(leased))
            wanted = select(webhook_endpoints).where(of.id.in_({row.endpoint for row in rows}))
            endpoints = {row.id: endpoint_of(row) for row in await connection.execute(wanted)}
        return [
            LeasedDelivery(_delivery(row), endpoints[row.endpoint], row.body, lease)
            for row in rows
            if row.endpoint in endpoints
        ]

    async def finish(
        self, leased: LeasedDelivery, state: State, *, now: float, due: float, status: int | None, error: str | None
    ) -> bool:
        """Record an attempt and give the lease back. `due`: of the next attempt, where it is still pending. Returns
        whether the lease was still ours."""
        table = webhook_deliveries.c
        statement = update(webhook_deliveries).where(table.id == leased.delivery.id, table.lease == leased.lease)
        statement = statement.values(
            state=state,
            attempts=table.attempts + 1,
            due=due,
            status=status,
            error=error,
            lease=None,
            leased_until=None,
            finished=None if state == "pending" else now,
        )
        async with self._database.begin() as connection:
            return bool((await connection.execute(statement)).rowcount)

    async def disable(self, endpoint: str, *, now: float, reason: str) -> None:
        """Disable an endpoint that is gone. Its deliveries fail."""
        table = webhook_deliveries.c
        async with self._database.begin() as connection:
            changed = update(webhook_endpoints).where(webhook_endpoints.c.id == endpoint)
            await connection.execute(changed.values(disabled=now, disabled_reason=reason, updated=now))
            waiting = update(webhook_deliveries).where(table.endpoint == endpoint, table.state == "pending")
            await connection.execute(waiting.values(state="failed", error=reason, finished=now, lease=None))

    async def failing_since(self, endpoint: str) -> float | None:
        """Since when (Unix seconds) each delivery to an endpoint was given up. None: one has succeeded since the first
        of those that are still listed."""
        table = webhook_deliveries.c
        of = select(func.max(table.created)).where(table.endpoint == endpoint, table.state == "delivered")
        given_up = select(func.min(table.created)).where(table.endpoint == endpoint, table.state == "failed")
        async with self._database.connect() as connection:
            if (last := await connection.scalar(of)) is not None:
                given_up = given_up.where(table.created > last)
            first = await connection.scalar(given_up)
        return None if first is None else float(first)

    async def clean(self, *, now: float, keep_seconds: float) -> bool:
        """Fail deliveries whose time is over (their endpoint is disabled, or was deleted as they were recorded), and
        remove finished ones after `keep_seconds` and events that have expired. Returns whether there may be more to
        remove."""
        table, of = webhook_deliveries.c, webhook_events.c
        active = select(webhook_endpoints.c.id).where(webhook_endpoints.c.disabled.is_(None))
        is_late = and_(table.state == "pending", table.retry_until < now, table.endpoint.not_in(active))
        late = update(webhook_deliveries).where(is_late)
        old = select(table.id).where(table.finished < now - keep_seconds).limit(AT_ONCE)
        needed = select(table.id).where(table.event == of.id).exists()
        expired = select(of.id).where(of.expires < now, ~needed).limit(AT_ONCE)
        async with self._database.begin() as connection:
            await connection.execute(late.values(state="failed", error="the endpoint is disabled", finished=now))
            deliveries = await connection.execute(delete(webhook_deliveries).where(table.id.in_(old)))
            events = await connection.execute(delete(webhook_events).where(of.id.in_(expired)))
        return max(deliveries.rowcount, events.rowcount) >= AT_ONCE

    async def retrieve(self, id: str) -> Delivery | None:
        """A delivery, or None if it is gone."""
        async with self._database.connect() as connection:
            row = (await connection.execute(_deliveries().where(webhook_deliveries.c.id == id))).one_or_none()
        return None if row is None else _delivery(row)

    async def list(self, endpoint: str, *, org: str, limit: int = 20, after: str | None = None) -> list[Delivery]:
        """Deliveries to an endpoint, newest first. Raises NotFoundError where `endpoint` or `after` does not exist."""
        table, of = webhook_deliveries.c, webhook_endpoints.c
        query = _deliveries().where(table.endpoint == endpoint)
        async with self._database.connect() as connection:
            if await connection.scalar(select(of.id).where(of.id == endpoint, of.org == org)) is None:
                raise no_such_endpoint(endpoint)
            if after is not None:
                where = select(table.created, table.id).where(table.id == after, table.endpoint == endpoint)
                last = (await connection.execute(where)).one_or_none()
                if last is None:
                    raise NotFoundError(f"No such delivery: '{after[:100]}'.", param="after", code="delivery_not_found")
                query = query.where(beyond(webhook_deliveries, last.created, last.id))
            found = await connection.execute(query.order_by(table.created.desc(), table.id.desc()).limit(limit))
            return [_delivery(row) for row in found]


async def _waiting(connection: AsyncConnection, org: str) -> int:
    table = webhook_deliveries.c
    query = select(func.count()).select_from(webhook_deliveries).where(table.org == org, table.state == "pending")
    return int(await connection.scalar(query) or 0)


def _new_delivery(event: Event, endpoint: str, retry_until: float) -> dict[str, Any]:
    return {
        "id": ids.object_id("whd"),
        "org": event.org,
        "event": event.id,
        "endpoint": endpoint,
        "state": "pending",
        "attempts": 0,
        "due": event.created,
        "retry_until": retry_until,
        "created": event.created,
    }


def _deliveries() -> Any:
    joined = webhook_deliveries.join(webhook_events, webhook_events.c.id == webhook_deliveries.c.event)
    return select(webhook_deliveries, webhook_events.c.type).select_from(joined)


def _delivery(row: Any) -> Delivery:
    fields = {name: getattr(row, name) for name in Delivery.__slots__ if name != "event_type"}
    return Delivery(event_type=row.type, **fields)
