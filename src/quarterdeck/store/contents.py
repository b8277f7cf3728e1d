"""Inputs and outputs of requests, as the worker stored them: redacted, compressed, until they are too old or deleted.

A deletion is a row of its own, and it comes first: what was captured before it, and turns up after it from Redis, a
spool or a gateway's memory, is not stored (`Deletion.covers`). So nothing that is under way can bring content back.
"""

import asyncio
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import msgspec
from sqlalchemy import ColumnElement, Row, delete, func, select
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.exc import StatementError

from quarterdeck import ids
from quarterdeck.content import Content, Level
from quarterdeck.record import RequestRecord
from quarterdeck.store.database import Database, is_unacceptable
from quarterdeck.store.jobs import JobStore, NewJob
from quarterdeck.store.ledger import RecordRefusedError
from quarterdeck.store.ledger_insert import MAX_TEXT
from quarterdeck.store.ledger_tables import content_deletions, contents

DeleteBy = Literal["request", "user", "session"]

AT_ONCE = 500
"""Rows deleted, or ids looked up, in one statement: a few milliseconds, in which an insert waits."""
DELETIONS_KEPT_SECONDS = 30 * 86_400.0
"""How long deletions are remembered: longer than any record waits in Redis or in a spool, and as an answer to "was it
deleted?" for a month."""
PAGE = 8
"""Rows of one INSERT. SQLite's driver keeps 128 statements with the values that they last had, and each number of rows
is a statement of its own: with any number, hundreds of contents would stay in memory."""
RESULT_DELETION_KIND = "result_deletion"
"""Of the jobs that delete results of batches. Their payload is the deletion."""
RESULT_DELETION_SECONDS = 7 * 86_400.0
_COMPRESSION = 6
_MAX_UNPACKED = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Deletion:
    """All contents of one request, user or session that were captured before `at`, Unix seconds."""

    org: str
    by: DeleteBy
    value: str
    at: float

    def covers(self, record: RequestRecord) -> bool:
        """Whether the record's content must not be stored."""
        return self.covers_request(record.org, record.id, record.user, record.session, record.started)

    def covers_request(self, org: str, id: str, user: str | None, session: str | None, started: float) -> bool:
        """Whether the content of this request must not be stored or exported."""
        if org != self.org or started > self.at:
            return False
        if self.by == "request":
            return id == self.value
        return _stored(user if self.by == "user" else session) == self.value


class ContentStore:
    """The worker inserts and deletes what is too old; the admin API reads and deletes."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._insert = insert_sqlite if database.is_sqlite else insert_postgres

    async def insert(self, found: Sequence[tuple[RequestRecord, Content]]) -> int:
        """Store contents; of a request that has one, nothing changes. Returns how many were new.

        Raises RecordRefusedError, and stores none, where one of them can't be stored.
        """
        if not found:
            return 0
        rows = {record.id: _row(record, content) for record, content in found}
        statement = self._insert(contents).on_conflict_do_nothing(index_elements=["id"]).returning(contents.c.id)
        try:
            async with self._database.begin() as connection:
                sorted_rows, paged = [rows[id] for id in sorted(rows)], {"insertmanyvalues_page_size": PAGE}
                return len((await connection.execute(statement, sorted_rows, execution_options=paged)).all())
        except (StatementError, ValueError, OverflowError) as error:
            if is_unacceptable(error):
                raise RecordRefusedError(str(error).splitlines()[0][:300]) from error
            raise

    async def retrieve(self, ids: Sequence[str], *, org: str) -> dict[str, Content]:
        """The contents of these requests, by id, as far as there are any."""
        found: dict[str, Content] = {}
        async with self._database.connect() as connection:
            for start in range(0, len(ids), AT_ONCE):
                some = contents.c.id.in_(ids[start : start + AT_ONCE])
                rows = (await connection.execute(select(contents).where(some, contents.c.org == org))).all()
                found |= await asyncio.to_thread(_by_id, rows)  # a hundred have megabytes
        return found

    async def outputs(self, ids: Sequence[str], *, org: str) -> list[bytes]:
        """The captured outputs of these requests that are whole: neither cut nor with anything replaced."""
        found: list[bytes] = []
        columns = contents.c
        async with self._database.report() as connection:
            for start in range(0, len(ids), AT_ONCE):
                wanted = columns.id.in_(ids[start : start + AT_ONCE]), columns.org == org, columns.output.is_not(None)
                query = select(columns.output, columns.redacted).where(*wanted, columns.is_output_cut.is_(False))
                packed = [row.output for row in await connection.execute(query) if not row.redacted]
                found += await asyncio.to_thread(lambda some: [unpacked(each) or b"" for each in some], packed)
        return found

    async def delete(self, by: DeleteBy, value: str, *, org: str, key: str) -> tuple[Deletion, int]:
        """Delete the contents of a request, a user or a session, and remember it. Returns the deletion and how many
        rows there were. `key`: the id of the admin key that asks."""
        deletion, deletion_id = Deletion(org, by, value, time.time()), ids.object_id("del")
        async with self._database.begin() as connection:
            await connection.execute(
                content_deletions.insert().values(id=deletion_id, org=org, by=by, value=value, key=key, at=deletion.at)
            )
            # Results of batches are in files: the worker deletes them.
            job = NewJob(
                kind=RESULT_DELETION_KIND,
                org=org,
                team="",
                key=key,
                subject=deletion_id,
                payload=msgspec.json.encode(deletion),
                max_attempts=10_000,
                deadline_seconds=RESULT_DELETION_SECONDS,
            )
            await JobStore(self._database).add_on(connection, job)
        return deletion, await self.apply(deletion)

    async def apply(self, deletion: Deletion) -> int:
        """Delete what a deletion covers, in batches. Returns how many rows there were."""
        column = {"request": contents.c.id, "user": contents.c.user, "session": contents.c.session}[deletion.by]
        return await self._delete(
            contents.c.org == deletion.org, column == deletion.value, contents.c.started <= deletion.at
        )

    async def deletions(self, orgs: Iterable[str], *, since: float) -> list[Deletion]:
        """The deletions of these orgs from `since` (Unix seconds) on."""
        query = select(content_deletions).where(
            content_deletions.c.org.in_(tuple(orgs)), content_deletions.c.at >= since
        )
        async with self._database.connect() as connection:
            return [Deletion(row.org, row.by, row.value, row.at) for row in await connection.execute(query)]

    async def delete_older(self, before: float, *, org: str) -> int:
        """Delete contents of requests that started before then, in batches. Returns how many."""
        return await self._delete(contents.c.org == org, contents.c.started < before)

    async def forget_deletions(self, before: float, *, org: str) -> None:
        """Delete what is remembered of deletions before then."""
        async with self._database.begin() as connection:
            await connection.execute(
                delete(content_deletions).where(content_deletions.c.org == org, content_deletions.c.at < before)
            )

    async def count(self, *, org: str) -> int:
        async with self._database.connect() as connection:
            return await connection.scalar(select(func.count()).select_from(contents).where(contents.c.org == org)) or 0

    async def _delete(self, *conditions: ColumnElement[bool]) -> int:
        total = 0
        batch = select(contents.c.id).where(*conditions).limit(AT_ONCE)
        while True:
            async with self._database.begin() as connection:
                count = (await connection.execute(delete(contents).where(contents.c.id.in_(batch)))).rowcount
            total += count
            if count < AT_ONCE:
                return total


def _row(record: RequestRecord, content: Content) -> dict[str, Any]:
    return {
        "id": record.id,
        "org": record.org,
        "user": _stored(record.user),
        "session": _stored(record.session),
        "started": record.started,
        "level": content.level,
        "input": _packed(content.input),
        "output": _packed(content.output),
        "input_bytes": content.input_bytes,
        "output_bytes": content.output_bytes,
        "input_hash": content.input_hash,
        "output_hash": content.output_hash,
        "is_input_cut": content.is_input_cut,
        "is_output_cut": content.is_output_cut,
        "redacted": content.redacted,
    }


def _by_id(rows: Sequence[Row[Any]]) -> dict[str, Content]:
    return {row.id: _content(row) for row in rows}


def _content(row: Row[Any]) -> Content:
    level: Level = row.level
    return Content(
        level=level,
        input=unpacked(row.input),
        output=unpacked(row.output),
        input_bytes=row.input_bytes,
        output_bytes=row.output_bytes,
        input_hash=row.input_hash,
        output_hash=row.output_hash,
        is_input_cut=row.is_input_cut,
        is_output_cut=row.is_output_cut,
        redacted=dict(row.redacted),
    )


def _stored(text: str | None) -> str | None:
    """User or session as the ledger has it (`ledger.row_of`)."""
    return None if text is None else text.replace("\x00", "�")[:MAX_TEXT]


def _packed(side: bytes | None) -> bytes | None:
    return None if side is None else zlib.compress(side, _COMPRESSION)


def unpacked(side: bytes | None) -> bytes | None:
    """A side as it was before it was compressed."""
    return None if side is None else zlib.decompressobj().decompress(side, _MAX_UNPACKED)
