"""Prompts that are synchronised with a Langfuse project: where each comes from, and which versions are the same."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import delete, func, insert, select, update

from quarterdeck import ids
from quarterdeck.errors import NotFoundError
from quarterdeck.store.database import Database
from quarterdeck.store.prompt_tables import prompt_link_versions, prompt_links

Side = Literal["ours", "theirs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkRow:
    """A prompt that both sides have, or that one of both should get. Times are Unix seconds."""

    id: str
    org: str
    project: str
    """Langfuse's id of the project."""
    name: str
    prompt: str | None = None
    """The id of ours, once it exists."""
    origin: Side | None = None
    """Where it was first created. None: not decided, as both sides had a prompt of this name."""
    is_detached: bool = False
    """Not synchronised any more."""
    labels: Mapping[str, int] = field(default_factory=dict)
    """Where labels stood on both sides, by our number."""
    ignored: Sequence[Sequence[Any]] = ()
    """Versions that stay on their side: `["theirs", 4]`."""
    tags: Sequence[str] = ()
    """At Langfuse."""
    conflicts: Sequence[Mapping[str, str]] = ()
    """With `kind`, `subject` and `message`."""
    notes: Sequence[str] = ()
    """What can't be synchronised, and why."""
    keep: Side | None = None
    """The side that an admin decided for, until that is carried out."""
    seen: str = ""
    """The state of both sides that was synchronised last."""
    checked: float = 0.0
    """When."""
    updated: float = 0.0


@dataclass(frozen=True, slots=True)
class LinkedVersion:
    theirs: int
    ours: int
    their_id: str = ""


class PromptLinkStore:
    """Written by the one worker that synchronises; admins only set `keep`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, *, org: str, project: str, name: str) -> LinkRow:
        row = LinkRow(id=ids.object_id("link"), org=org, project=project, name=name, updated=time.time())
        async with self._database.begin() as connection:
            await connection.execute(insert(prompt_links).values(**_values(row)))
        return row

    async def retrieve(self, link: str, *, org: str) -> LinkRow:
        """Raises NotFoundError."""
        query = select(prompt_links).where(prompt_links.c.id == link, prompt_links.c.org == org)
        async with self._database.connect() as connection:
            row = (await connection.execute(query)).one_or_none()
        if row is None:
            raise NotFoundError(f"No such link of a prompt: '{link[:64]}'.", param="link", code="link_not_found")
        return _row(row)

    async def page(
        self, *, org: str, project: str | None = None, name: str | None = None, after: str | None = None, limit: int
    ) -> tuple[list[LinkRow], bool]:
        """A page by name, after the link `after`, and whether there are more. Raises NotFoundError."""
        query = select(prompt_links).where(prompt_links.c.org == org)
        if project is not None:
            query = query.where(prompt_links.c.project == project)
        if name is not None:
            query = query.where(prompt_links.c.name == name)
        if after is not None:
            last = await self.retrieve(after, org=org)
            column = prompt_links.c.name
            query = query.where((column > last.name) | ((column == last.name) & (prompt_links.c.id > last.id)))
        query = query.order_by(prompt_links.c.name, prompt_links.c.id).limit(limit + 1)
        async with self._database.connect() as connection:
            rows = [_row(row) for row in await connection.execute(query)]
        return rows[:limit], len(rows) > limit

    async def save(self, link: LinkRow, **changes: Any) -> None:
        """Change columns of a link."""
        statement = update(prompt_links).where(prompt_links.c.id == link.id)
        async with self._database.begin() as connection:
            await connection.execute(statement.values(**changes, updated=time.time()))

    async def decide(self, link: str, keep: Side, *, org: str) -> LinkRow:
        """Have the next synchronisation keep a side; a detached prompt is synchronised again. Raises NotFoundError."""
        mine = (prompt_links.c.id == link) & (prompt_links.c.org == org)
        async with self._database.begin() as connection:
            await connection.execute(
                update(prompt_links).where(mine).values(keep=keep, is_detached=False, updated=time.time())
            )
        return await self.retrieve(link, org=org)

    async def has_decisions(self, project: str, *, org: str) -> bool:
        mine = (prompt_links.c.org == org) & (prompt_links.c.project == project)
        query = select(prompt_links.c.id).where(mine, prompt_links.c.keep.is_not(None)).limit(1)
        async with self._database.connect() as connection:
            return await connection.scalar(query) is not None

    async def remove(self, link: LinkRow) -> None:
        async with self._database.begin() as connection:
            await connection.execute(delete(prompt_link_versions).where(prompt_link_versions.c.link == link.id))
            await connection.execute(delete(prompt_links).where(prompt_links.c.id == link.id))

    async def versions(self, link: LinkRow) -> list[LinkedVersion]:
        query = select(prompt_link_versions).where(prompt_link_versions.c.link == link.id)
        async with self._database.connect() as connection:
            return [LinkedVersion(row.theirs, row.ours, row.their_id) for row in await connection.execute(query)]

    async def pair(self, link: LinkRow, version: LinkedVersion) -> None:
        """Record that a version of theirs is one of ours."""
        columns = prompt_link_versions.c
        values = {"ours": version.ours, "their_id": version.their_id}
        async with self._database.begin() as connection:
            await connection.execute(
                delete(prompt_link_versions).where(columns.link == link.id, columns.theirs == version.theirs)
            )
            await connection.execute(insert(prompt_link_versions).values(link=link.id, theirs=version.theirs, **values))

    async def unpair(self, link: LinkRow, theirs: int) -> None:
        columns = prompt_link_versions.c
        async with self._database.begin() as connection:
            await connection.execute(
                delete(prompt_link_versions).where(columns.link == link.id, columns.theirs == theirs)
            )

    async def state(self) -> tuple[int, float]:
        """Changes with each synchronised change of any link."""
        query = select(func.count(), func.max(prompt_links.c.updated))
        async with self._database.connect() as connection:
            count, updated = (await connection.execute(query)).one()
        return int(count), float(updated or 0.0)

    async def numbers(self, project: str) -> dict[tuple[str, str, int], int]:
        """Langfuse's number of each version by org, name and our number: of equal ones the newest."""
        links, versions = prompt_links.c, prompt_link_versions.c
        query = (
            select(links.org, links.name, versions.ours, func.max(versions.theirs))
            .join(prompt_link_versions, versions.link == links.id)
            .where(links.project == project)
            .group_by(links.org, links.name, versions.ours)
        )
        async with self._database.connect() as connection:
            return {(org, name, ours): theirs for org, name, ours, theirs in await connection.execute(query)}


def _values(row: LinkRow) -> dict[str, Any]:
    values = {column.name: getattr(row, column.name) for column in prompt_links.columns}
    lists = ("ignored", "tags", "conflicts", "notes")
    return values | {name: list(values[name]) for name in lists} | {"labels": dict(row.labels)}


def _row(row: Any) -> LinkRow:
    return LinkRow(**row._asdict())
