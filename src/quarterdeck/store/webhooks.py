"""Webhook endpoints of organisations: where events are posted to."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, Unpack

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck import ids
from quarterdeck.errors import ConflictError, NotFoundError
from quarterdeck.store.cursors import beyond
from quarterdeck.store.database import Database
from quarterdeck.store.webhook_tables import webhook_deliveries, webhook_endpoints

OLD_SECRET_SECONDS = 86_400.0
"""How long a replaced secret signs as well, where that is asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebhookEndpoint:
    """An endpoint. Times are Unix seconds."""

    id: str
    org: str
    name: str
    url: str
    event_types: tuple[str, ...] | None = None
    """None: all, those of later versions too."""
    secret: str = field(repr=False)
    """`whsec_` and base64."""
    old_secret: str | None = field(default=None, repr=False)
    old_secret_until: float | None = None
    created: float
    updated: float
    disabled: float | None = None
    disabled_reason: str | None = None

    def secrets(self, now: float) -> tuple[str, ...]:
        """Those that sign at `now`."""
        if self.old_secret is not None and (self.old_secret_until or 0) > now:
            return (self.secret, self.old_secret)
        return (self.secret,)


class EndpointChanges(TypedDict, total=False):
    """Changes of an endpoint; what is missing stays."""

    name: str
    url: str
    event_types: Sequence[str] | None


class WebhookStore:
    """OpenAI's verbs for endpoints, scoped to an organisation."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self, *, org: str, name: str, url: str, secret: str, event_types: Sequence[str] | None, most: int
    ) -> WebhookEndpoint:
        """Raises ConflictError where the organisation has `most` endpoints."""
        now = time.time()
        made = WebhookEndpoint(
            id=ids.object_id("whk"),
            org=org,
            name=name,
            url=url,
            event_types=None if event_types is None else tuple(event_types),
            secret=secret,
            created=now,
            updated=now,
        )
        async with self._database.begin() as connection:
            await connection.execute(insert(webhook_endpoints).values(**_values(made)))
            query = select(func.count()).select_from(webhook_endpoints).where(webhook_endpoints.c.org == org)
            if (await connection.scalar(query) or 0) > most:
                await connection.rollback()
                raise ConflictError(
                    f"The organisation has {most} webhook endpoints, the most that webhooks.max_endpoints allows.",
                    code="too_many_webhook_endpoints",
                )
        return made

    async def retrieve(self, id: str, *, org: str) -> WebhookEndpoint:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            return await _one(connection, id, org)

    async def list(self, *, org: str, limit: int = 20, after: str | None = None) -> list[WebhookEndpoint]:
        """Newest first. Raises NotFoundError where `after` does not exist."""
        table = webhook_endpoints.c
        query = select(webhook_endpoints).where(table.org == org)
        async with self._database.connect() as connection:
            if after is not None:
                last = await _one(connection, after, org, param="after")
                query = query.where(beyond(webhook_endpoints, last.created, last.id))
            query = query.order_by(table.created.desc(), table.id.desc()).limit(limit)
            return [endpoint_of(row) for row in await connection.execute(query)]

    async def update(self, id: str, *, org: str, **changes: Unpack[EndpointChanges]) -> WebhookEndpoint:
        """Raises NotFoundError."""
        return await self._change(id, org, dict(changes))

    async def enable(self, id: str, *, org: str) -> WebhookEndpoint:
        """Raises NotFoundError."""
        return await self._change(id, org, {"disabled": None, "disabled_reason": None})

    async def disable(self, id: str, *, org: str, reason: str) -> WebhookEndpoint:
        """Its deliveries wait. Raises NotFoundError."""
        return await self._change(id, org, {"disabled": time.time(), "disabled_reason": reason})

    async def rotate(self, id: str, *, org: str, secret: str, keep_old: bool) -> WebhookEndpoint:
        """Replace the secret. `keep_old`: the former one signs as well for a day. Raises NotFoundError."""
        until = time.time() + OLD_SECRET_SECONDS if keep_old else None
        old = webhook_endpoints.c.secret if keep_old else None
        return await self._change(id, org, {"old_secret": old, "old_secret_until": until, "secret": secret})

    async def delete(self, id: str, *, org: str) -> None:
        """Delete an endpoint and its deliveries. Raises NotFoundError."""
        async with self._database.begin() as connection:
            gone = await connection.execute(delete(webhook_endpoints).where(*_is(id, org)))
            if not gone.rowcount:
                raise no_such_endpoint(id)
            await connection.execute(delete(webhook_deliveries).where(webhook_deliveries.c.endpoint == id))

    async def subscribed_orgs(self, event_type: str) -> Sequence[str]:
        """The organisations with an endpoint that is not disabled and asks for this type of event, sorted."""
        table = webhook_endpoints.c
        query = select(table.org, table.event_types).where(table.disabled.is_(None))
        async with self._database.connect() as connection:
            found = await connection.execute(query)
            return sorted({row.org for row in found if row.event_types is None or event_type in row.event_types})

    async def _change(self, id: str, org: str, values: dict[str, Any]) -> WebhookEndpoint:
        async with self._database.begin() as connection:
            if values:
                statement = update(webhook_endpoints).where(*_is(id, org)).values(updated=time.time(), **values)
                await connection.execute(statement)
            return await _one(connection, id, org)


async def subscribers(connection: AsyncConnection, org: str, event_type: str) -> list[str]:
    """The ids of the endpoints to which an event of this type is posted."""
    table = webhook_endpoints.c
    query = select(table.id, table.event_types).where(table.org == org, table.disabled.is_(None))
    return [
        row.id for row in await connection.execute(query) if row.event_types is None or event_type in row.event_types
    ]


async def _one(connection: AsyncConnection, id: str, org: str, param: str | None = None) -> WebhookEndpoint:
    row = (await connection.execute(select(webhook_endpoints).where(*_is(id, org)))).one_or_none()
    if row is None:
        raise no_such_endpoint(id, param)
    return endpoint_of(row)


def _is(id: str, org: str) -> tuple[ColumnElement[bool], ColumnElement[bool]]:
    return webhook_endpoints.c.id == id, webhook_endpoints.c.org == org


def _values(endpoint: WebhookEndpoint) -> dict[str, Any]:
    values = {name: getattr(endpoint, name) for name in WebhookEndpoint.__slots__}
    return {**values, "event_types": None if endpoint.event_types is None else list(endpoint.event_types)}


def endpoint_of(row: Row[Any]) -> WebhookEndpoint:
    fields = row._asdict()  # public in spite of its name, as in every namedtuple
    types = fields["event_types"]
    return WebhookEndpoint(**{**fields, "event_types": None if types is None else tuple(types)})


def no_such_endpoint(id: str, param: str | None = None) -> NotFoundError:
    return NotFoundError(f"No such webhook endpoint: '{id[:100]}'.", param=param, code="webhook_endpoint_not_found")
