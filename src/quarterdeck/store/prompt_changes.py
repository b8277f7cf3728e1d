"""One change of a prompt: what it writes in its transaction, and the event that says so."""

import time
from collections.abc import Mapping
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck import ids
from quarterdeck.errors import BadRequestError, ConflictError, NotFoundError
from quarterdeck.settings.prompts import LabelSpec, PromptSpec
from quarterdeck.store.prompt_rows import (
    LabelRow,
    PromptChanges,
    PromptRow,
    VersionRow,
    label_of,
    prompt_of,
    version_of,
)
from quarterdeck.store.prompt_tables import prompt_events, prompt_labels, prompt_versions, prompts

MAX_VERSIONS = 10_000
"""Of a prompt."""
MAX_LABELS = 50
"""Of a prompt."""
EVENTS_A_REVISION = 1000


class PromptChange:
    """One change of a prompt, in a transaction that holds its row."""

    def __init__(self, connection: AsyncConnection, prompt: PromptRow, author: str, now: float) -> None:
        self._connection = connection
        self.prompt = prompt
        self._author = author
        self._now = now
        self._events = 0

    def refuse_archived(self) -> None:
        """Raises ConflictError."""
        if self.prompt.archived is not None:
            raise ConflictError(
                f"The prompt '{self.prompt.name}' is archived. Unarchive it first.", code="prompt_archived"
            )

    async def add_version(self, spec: PromptSpec, message: str, number: int | None = None) -> VersionRow:
        """`number`: None for the first one, which the prompt's row names already."""
        number = number or self.prompt.latest
        if number > MAX_VERSIONS:
            raise BadRequestError(f"A prompt has at most {MAX_VERSIONS} versions.", code="too_many_versions")
        values = {"prompt": self.prompt.id, "version": number, "content": spec.content(), "digest": spec.digest}
        values |= {"message": message, "author": self._author, "created": self._now}
        row = (
            await self._connection.execute(insert(prompt_versions).values(**values).returning(prompt_versions))
        ).one()
        if number != self.prompt.latest:
            await self._set(latest=number)
        await self._note("version.created", after={"version": number}, reason=message)
        return version_of(row)

    async def update(self, changes: PromptChanges) -> PromptRow:
        values: dict[str, Any] = {}
        before: dict[str, Any] = {}
        after: dict[str, Any] = {}
        if changes.description is not None and changes.description != self.prompt.description:
            before["description"], after["description"] = self.prompt.description, changes.description
        if changes.teams is not False:
            teams = None if changes.teams is None else tuple(sorted(set(changes.teams)))
            if teams != self.prompt.teams:
                before["teams"], after["teams"] = self.prompt.teams, teams
        values = {name: list(value) if isinstance(value, tuple) else value for name, value in after.items()}
        if values:
            await self._set(**values)
            await self._note("updated", before=_listed(before), after=values)
        if changes.archived is not None and changes.archived != (self.prompt.archived is not None):
            await self._set(archived=self._now if changes.archived else None)
            await self._note("archived" if changes.archived else "unarchived")
        return self.prompt

    async def delete(self) -> None:
        for table in (prompt_labels, prompt_versions):
            await self._connection.execute(delete(table).where(table.c.prompt == self.prompt.id))
        await self._set(deleted=self._now)
        await self._note("deleted")

    async def set_label(self, label: str, spec: LabelSpec, reason: str = "", *, kind: str = "label.set") -> LabelRow:
        found = await self._connection.execute(select(prompt_labels).where(prompt_labels.c.prompt == self.prompt.id))
        rows = {row.label: row for row in found}
        for each in spec.targets:
            await find_version(self._connection, self.prompt, each.version)
        if label not in rows and len(rows) >= MAX_LABELS:
            raise BadRequestError(f"A prompt has at most {MAX_LABELS} labels.", code="too_many_labels")
        target = spec.model_dump(mode="json", exclude_defaults=True)
        values = {"target": target, "is_guarded": spec.guard is not None, "author": self._author, "updated": self._now}
        mine = (prompt_labels.c.prompt == self.prompt.id) & (prompt_labels.c.label == label)
        if label in rows:
            if rows[label].target == target:
                return label_of(rows[label])
            await self._connection.execute(update(prompt_labels).where(mine).values(**values))
        else:
            await self._connection.execute(insert(prompt_labels).values(prompt=self.prompt.id, label=label, **values))
        before = rows[label].target if label in rows else None
        await self._note(kind, label=label, before=before, after=target, reason=reason)
        return await self.label(label)

    async def refuse_changed(self, label: str, since: float) -> None:
        """Raises ConflictError where the label was changed after `since`; 0: where it exists."""
        mine = (prompt_labels.c.prompt == self.prompt.id) & (prompt_labels.c.label == label)
        updated = await self._connection.scalar(select(prompt_labels.c.updated).where(mine))
        if (updated or 0.0) != since:
            raise ConflictError(f"The label '{label}' was changed meanwhile.", code="label_changed")

    async def record(self, kind: str, *, label: str | None = None, reason: str = "") -> None:
        """An event that changes nothing."""
        await self._note(kind, label=label, reason=reason)

    async def delete_label(self, label: str) -> None:
        found = await self.label(label)
        mine = (prompt_labels.c.prompt == self.prompt.id) & (prompt_labels.c.label == label)
        await self._connection.execute(delete(prompt_labels).where(mine))
        await self._note("label.deleted", label=label, before=found.target)

    async def label(self, label: str) -> LabelRow:
        mine = (prompt_labels.c.prompt == self.prompt.id) & (prompt_labels.c.label == label)
        row = (await self._connection.execute(select(prompt_labels).where(mine))).one_or_none()
        if row is None:
            raise NotFoundError(
                f"The prompt '{self.prompt.name}' has no label '{label}'.", param="label", code="label_not_found"
            )
        return label_of(row)

    async def version_before(self, now: LabelRow) -> int:
        """The version that the label pointed at, alone, before what it points at now."""
        if len(now.spec.targets) > 1:  # a canary: back to the version that was in use
            return now.spec.targets[0].version
        query = (
            select(prompt_events.c.after)
            .where(prompt_events.c.prompt == self.prompt.id, prompt_events.c.label == now.label)
            .order_by(prompt_events.c.position.desc())
        )
        for after in await self._connection.scalars(query):
            version = (after or {}).get("version")
            if version is not None and version != now.spec.version and await self._exists(version):
                return int(version)
        raise ConflictError(
            f"The label '{now.label}' of '{self.prompt.name}' has pointed at no other version.",
            param="label",
            code="nothing_to_roll_back",
        )

    async def _exists(self, number: int) -> bool:
        query = select(prompt_versions.c.version).where(
            prompt_versions.c.prompt == self.prompt.id, prompt_versions.c.version == number
        )
        return await self._connection.scalar(query) is not None

    async def _set(self, **values: Any) -> None:
        statement = update(prompts).where(prompts.c.id == self.prompt.id).values(**values).returning(prompts)
        self.prompt = prompt_of((await self._connection.execute(statement)).one())

    async def _note(
        self,
        kind: str,
        *,
        label: str | None = None,
        before: Mapping[str, Any] | None = None,
        after: Mapping[str, Any] | None = None,
        reason: str = "",
    ) -> None:
        position = self.prompt.revision * EVENTS_A_REVISION + self._events
        self._events += 1
        values = {"prompt": self.prompt.id, "position": position, "id": ids.object_id("event"), "kind": kind}
        values |= {"label": label, "before": before, "after": after, "reason": reason}
        await self._connection.execute(insert(prompt_events).values(**values, author=self._author, created=self._now))


async def begin_change(connection: AsyncConnection, ref: str, org: str, author: str) -> PromptChange:
    """Begin a change: the write comes first, and holds the row. Raises NotFoundError."""
    now = time.time()
    statement = update(prompts).where(_is(ref, org)).values(revision=prompts.c.revision + 1, updated=now)
    row = (await connection.execute(statement.returning(prompts))).one_or_none()
    if row is None:
        raise no_such_prompt(ref)
    return PromptChange(connection, prompt_of(row), author, now)


def _is(ref: str, org: str) -> ColumnElement[bool]:
    return (prompts.c.org == org) & ((prompts.c.id == ref) | (prompts.c.name == ref)) & prompts.c.deleted.is_(None)


async def find_prompt(connection: AsyncConnection, ref: str, org: str, *, param: str | None = "prompt") -> PromptRow:
    row = (await connection.execute(select(prompts).where(_is(ref, org)))).one_or_none()
    if row is None:
        raise no_such_prompt(ref, param=param)
    return prompt_of(row)


async def find_version(connection: AsyncConnection, prompt: PromptRow, number: int) -> VersionRow:
    query = select(prompt_versions).where(prompt_versions.c.prompt == prompt.id, prompt_versions.c.version == number)
    row: Row[Any] | None = (await connection.execute(query)).one_or_none()
    if row is None:
        raise NotFoundError(
            f"The prompt '{prompt.name}' has no version {number}.", param="version", code="prompt_version_not_found"
        )
    return version_of(row)


def _listed(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


def no_such_prompt(ref: str, *, param: str | None = "prompt") -> NotFoundError:
    """The same one for a prompt that does not exist and for one of other teams."""
    return NotFoundError(
        f"The prompt '{ref[:128]}' does not exist or you do not have access to it.",
        param=param,
        code="prompt_not_found",
    )
