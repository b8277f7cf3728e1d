"""Prompts in the database: immutable versions, labels that point at them, and an event for each change.

A version's content is stored as it was given and never changed. Deleting a prompt removes contents and labels; the row
stays, so that a prompt of the same name continues its numbers: `name@3` in the ledger means one version for ever.

Each change counts the prompt's revision up, first thing in its transaction: changes of one prompt wait for each other,
and readers see by the revision what has changed.
"""

import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select, tuple_
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck import ids
from quarterdeck.errors import BadRequestError, ConflictError, NotFoundError
from quarterdeck.settings.prompts import LabelSpec, PromptSpec
from quarterdeck.store.database import Database
from quarterdeck.store.prompt_changes import PromptChange, begin_change, find_prompt, find_version, no_such_prompt
from quarterdeck.store.prompt_rows import (
    EventRow,
    LabelRow,
    Page,
    PromptChanges,
    PromptRow,
    VersionRow,
    event_of,
    label_of,
    prompt_of,
    version_of,
)
from quarterdeck.store.prompt_tables import prompt_events, prompt_labels, prompt_versions, prompts

MAX_PROMPTS = 10_000
"""Of an organisation. Each gateway holds a few hundred bytes of each."""


class PromptStore:
    """OpenAI's verbs for prompts, scoped to an organisation. `ref` is a prompt's id or name.

    `author` is the id of the key that changes something, or the name of a process. The caller announces a change
    afterwards (`resources/prompts`).
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(
        self,
        name: str,
        spec: PromptSpec,
        *,
        org: str,
        author: str,
        description: str = "",
        teams: Sequence[str] | None = None,
        message: str = "",
        labels: Sequence[str] = (),
    ) -> PromptRow:
        """Create a prompt with its first version, at which `labels` point. Raises ConflictError where it exists."""
        made = insert_sqlite if self._database.is_sqlite else insert_postgres
        now = time.time()
        shown = {"description": description, "teams": None if teams is None else sorted(set(teams))}
        values = {"author": author, "created": now, "updated": now, "archived": None, "deleted": None, **shown}
        statement = made(prompts).values(id=ids.object_id("prompt"), org=org, name=name, latest=1, revision=1, **values)
        again = {"latest": prompts.c.latest + 1, "revision": prompts.c.revision + 1}
        statement = statement.on_conflict_do_update(
            index_elements=["org", "name"], set_=values | again, where=prompts.c.deleted.is_not(None)
        )
        async with self._database.begin() as connection:
            row = (await connection.execute(statement.returning(prompts))).one_or_none()
            if row is None:
                raise ConflictError(f"The prompt '{name}' already exists.", param="name", code="prompt_exists")
            prompt = prompt_of(row)
            change = PromptChange(connection, prompt, author, now)
            await change.add_version(spec, message)
            for label in labels:
                await change.set_label(label, LabelSpec(version=prompt.latest))
            if await _count(connection, org) > MAX_PROMPTS:
                raise BadRequestError(f"An organisation has at most {MAX_PROMPTS} prompts.", code="too_many_prompts")
        return prompt

    async def retrieve(self, ref: str, *, org: str) -> PromptRow:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            return await find_prompt(connection, ref, org)

    async def update(self, ref: str, *, org: str, author: str, **changes: Any) -> PromptRow:
        """Change `description`, `teams` or `archived` (PromptChanges). Raises NotFoundError."""
        async with self._database.begin() as connection:
            change = await begin_change(connection, ref, org, author)
            return await change.update(PromptChanges(**changes))

    async def delete(self, ref: str, *, org: str, author: str) -> PromptRow:
        """Delete a prompt, its contents and labels. Its numbers are not used again. Raises NotFoundError."""
        async with self._database.begin() as connection:
            change = await begin_change(connection, ref, org, author)
            await change.delete()
            return change.prompt

    async def add_version(
        self,
        ref: str,
        spec: PromptSpec,
        *,
        org: str,
        author: str,
        message: str = "",
        labels: Sequence[str] = (),
        base: int | None = None,
    ) -> tuple[VersionRow, bool]:
        """Add a version, at which `labels` point from now on. Returns it, and whether it is new: content that equals
        the newest version's makes none.

        Raises NotFoundError, and ConflictError where `base` is given and is not the newest version.
        """
        async with self._database.begin() as connection:
            change = await begin_change(connection, ref, org, author)
            change.refuse_archived()
            prompt = change.prompt
            if base is not None and base != prompt.latest:
                raise ConflictError(
                    f"The newest version of '{prompt.name}' is {prompt.latest}, not {base}.",
                    param="base",
                    code="version_conflict",
                )
            newest = await find_version(connection, prompt, prompt.latest)
            is_new = newest.digest != spec.digest
            if is_new:
                newest = await change.add_version(spec, message, prompt.latest + 1)
            for label in labels:
                await change.set_label(label, LabelSpec(version=newest.version))
            return newest, is_new

    async def version(self, ref: str, number: int, *, org: str) -> VersionRow:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            return await find_version(connection, await find_prompt(connection, ref, org), number)

    async def versions(self, ref: str, *, org: str, limit: int = 20, after: int | None = None) -> Page[VersionRow]:
        """A page of versions, the newest first, after the number `after`. Raises NotFoundError."""
        async with self._database.connect() as connection:
            prompt = await find_prompt(connection, ref, org)
            query = select(prompt_versions).where(prompt_versions.c.prompt == prompt.id)
            if after is not None:
                query = query.where(prompt_versions.c.version < after)
            query = query.order_by(prompt_versions.c.version.desc()).limit(limit + 1)
            rows = [version_of(row) for row in await connection.execute(query)]
        return Page(tuple(rows[:limit]), has_more=len(rows) > limit)

    async def set_label(
        self,
        ref: str,
        label: str,
        spec: LabelSpec,
        *,
        org: str,
        author: str,
        reason: str = "",
        since: float | None = None,
    ) -> LabelRow:
        """Point a label at one version or several. Raises NotFoundError for a version that does not exist.

        `since`: only if the label was not changed after this time; 0: if it does not exist. Raises ConflictError.
        """
        async with self._database.begin() as connection:
            change = await begin_change(connection, ref, org, author)
            change.refuse_archived()
            if since is not None:
                await change.refuse_changed(label, since)
            return await change.set_label(label, spec, reason)

    async def delete_label(self, ref: str, label: str, *, org: str, author: str, since: float | None = None) -> None:
        """Raises NotFoundError; and ConflictError as `set_label`."""
        async with self._database.begin() as connection:
            change = await begin_change(connection, ref, org, author)
            if since is not None:
                await change.refuse_changed(label, since)
            await change.delete_label(label)

    async def record_event(
        self, ref: str, kind: str, *, org: str, author: str, label: str | None = None, reason: str = ""
    ) -> None:
        """Record an event that changes nothing. Raises NotFoundError."""
        async with self._database.begin() as connection:
            change = await begin_change(connection, ref, org, author)
            await change.record(kind, label=label, reason=reason)

    async def roll_back(
        self,
        ref: str,
        label: str,
        *,
        org: str,
        author: str,
        version: int | None = None,
        reason: str = "",
        since: float | None = None,
    ) -> LabelRow:
        """Point a label at `version`; None: at the version that it last pointed at, alone, before the present one.

        `since`: only if the label was not changed after this time. Raises NotFoundError, and ConflictError where
        nothing is there to go back to, or the label was changed.
        """
        async with self._database.begin() as connection:
            change = await begin_change(connection, ref, org, author)
            now = await change.label(label)
            if since is not None and now.updated != since:
                raise ConflictError(f"The label '{label}' was changed meanwhile.", code="label_changed")
            if version is None:
                version = await change.version_before(now)
            return await change.set_label(label, LabelSpec(version=version), reason, kind="label.rolled_back")

    async def labels(self, prompt_ids: Sequence[str]) -> dict[str, tuple[LabelRow, ...]]:
        """The labels of prompts, by the prompt's id; each prompt's by name."""
        found: dict[str, tuple[LabelRow, ...]] = {}
        async with self._database.connect() as connection:
            for start in range(0, len(prompt_ids), _AT_ONCE):
                some = prompt_ids[start : start + _AT_ONCE]
                query = select(prompt_labels).where(prompt_labels.c.prompt.in_(some)).order_by(prompt_labels.c.label)
                for row in await connection.execute(query):
                    found[row.prompt] = (*found.get(row.prompt, ()), label_of(row))
        return found

    async def events(self, ref: str, *, org: str, limit: int = 20, after: str | None = None) -> Page[EventRow]:
        """A page of a prompt's events, the newest first. Raises NotFoundError."""
        async with self._database.connect() as connection:
            prompt = await find_prompt(connection, ref, org)
            query = select(prompt_events).where(prompt_events.c.prompt == prompt.id)
            if after is not None:
                found = await connection.scalar(
                    select(prompt_events.c.position).where(
                        prompt_events.c.id == after, prompt_events.c.prompt == prompt.id
                    )
                )
                if found is None:
                    raise NotFoundError(f"No such event: '{after}'.", param="after", code="event_not_found")
                query = query.where(prompt_events.c.position < found)
            query = query.order_by(prompt_events.c.position.desc()).limit(limit + 1)
            rows = [event_of(row) for row in await connection.execute(query)]
        return Page(tuple(rows[:limit]), has_more=len(rows) > limit)

    # For those who keep prompts in memory, and for the worker: of all organisations.

    async def revisions(self) -> dict[str, int]:
        """The revision of each prompt that is not deleted, by its id."""
        query = select(prompts.c.id, prompts.c.revision).where(prompts.c.deleted.is_(None))
        async with self._database.connect() as connection:
            return {row.id: row.revision for row in await connection.execute(query)}

    async def retrieve_all(self, prompt_ids: Sequence[str]) -> list[PromptRow]:
        """The prompts with these ids that exist."""
        found: list[PromptRow] = []
        async with self._database.connect() as connection:
            for start in range(0, len(prompt_ids), _AT_ONCE):
                some = prompt_ids[start : start + _AT_ONCE]
                query = select(prompts).where(prompts.c.id.in_(some), prompts.c.deleted.is_(None))
                found += [prompt_of(row) for row in await connection.execute(query)]
        return found

    async def contents(self, versions: Sequence[tuple[str, int]]) -> list[VersionRow]:
        """The versions of these prompt ids and numbers that exist."""
        found: list[VersionRow] = []
        async with self._database.connect() as connection:
            for start in range(0, len(versions), _AT_ONCE):
                some = versions[start : start + _AT_ONCE]
                query = select(prompt_versions).where(
                    tuple_(prompt_versions.c.prompt, prompt_versions.c.version).in_(some)
                )
                found += [version_of(row) for row in await connection.execute(query)]
        return found

    async def guarded_labels(self) -> tuple[LabelRow, ...]:
        """The labels of all organisations whose split has a guard."""
        query = (
            select(prompt_labels)
            .join(prompts, prompts.c.id == prompt_labels.c.prompt)
            .where(prompt_labels.c.is_guarded, prompts.c.deleted.is_(None))
        )
        async with self._database.connect() as connection:
            return tuple(label_of(row) for row in await connection.execute(query))

    async def list(
        self,
        *,
        org: str,
        limit: int = 20,
        after: str | None = None,
        name: str | None = None,
        team: str | None = None,
        archived: bool = False,
    ) -> Page[PromptRow]:
        """A page of prompts by name, after the prompt `after` (its id or name). `team`: those that it may use.
        Archived ones only with `archived`. Raises NotFoundError where `after` does not exist."""
        query = select(prompts).where(prompts.c.org == org, prompts.c.deleted.is_(None))
        if not archived:
            query = query.where(prompts.c.archived.is_(None))
        if name is not None:
            query = query.where(prompts.c.name == name)
        found: list[PromptRow] = []
        async with self._database.connect() as connection:
            last = None
            if after is not None:
                begin = await find_prompt(connection, after, org, param="after")
                if team is not None and not begin.is_for(team):
                    raise no_such_prompt(after, param="after")
                last = begin.name
            while len(found) <= limit:
                page = query if last is None else query.where(prompts.c.name > last)
                rows = [
                    prompt_of(row) for row in await connection.execute(page.order_by(prompts.c.name).limit(limit + 1))
                ]
                found += [row for row in rows if team is None or row.is_for(team)]
                if len(rows) <= limit:
                    break
                last = rows[-1].name
        return Page(tuple(found[:limit]), has_more=len(found) > limit)


_AT_ONCE = 200
"""Ids per query."""


async def _count(connection: AsyncConnection, org: str) -> int:
    query = select(func.count()).where(prompts.c.org == org, prompts.c.deleted.is_(None))
    return int(await connection.scalar(query) or 0)
