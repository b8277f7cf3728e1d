"""Files: their rows, what an organisation uses, and which blobs belong to no row.

A blob is named in `unclaimed_blobs` before it is written (`announce`), and claimed in the transaction that inserts the
row of its file. A row is deleted in the transaction that makes its blob unclaimed again. So a process that is killed
at any point leaves no blob that is not known.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import ColumnElement, Row, delete, insert, or_, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import BadRequestError, InsufficientQuotaError, NotFoundError
from quarterdeck.store.batch_inputs import held_on
from quarterdeck.store.blobs.interface import BlobSummary
from quarterdeck.store.cursors import beyond
from quarterdeck.store.database import Database
from quarterdeck.store.file_tables import file_usage, files, unclaimed_blobs
from quarterdeck.store.ownership import Owner
from quarterdeck.store.tenancy_tables import teams

CLAIM_SECONDS = 24 * 3600.0
"""How long a blob may be on its way: the slowest client that is served sends a file of 512 MB in nine hours."""
CLOCKS_SECONDS = 300.0
"""How far the clocks of gateways and workers may differ."""
AT_ONCE = 200
GIB = 1024**3
UNBOUNDED = 2**63 - 1
"""The quota of an organisation without one: the largest integer that a column can hold."""


@dataclass(frozen=True, slots=True)
class FileRow:
    """Times are Unix seconds."""

    id: str
    created: float
    expires: float | None
    filename: str
    purpose: str
    bytes: int
    mime: str
    """By its content."""
    sha256: str
    blob: str
    is_missing: bool
    """Its content is not in the storage any more."""


@dataclass(frozen=True, slots=True)
class NewFile:
    id: str
    owner: Owner
    created: float
    expires: float | None
    filename: str
    purpose: str
    mime: str
    blob: str
    summary: BlobSummary


class FileStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def announce(self, blob: str, *, now: float) -> None:
        """Name a blob that is about to be written."""
        async with self._database.begin() as connection:
            await connection.execute(insert(unclaimed_blobs).values(name=blob, due=now + CLAIM_SECONDS))

    async def create(self, new: NewFile, quota: int | None) -> FileRow:
        """Insert a file whose blob is there. One that exists with this id is returned, and the blob stays unclaimed.

        `quota`: the most that the organisation may store, in bytes. None: the file counts, and is stored whatever there
        is. Raises InsufficientQuotaError.
        """
        made = insert_sqlite if self._database.is_sqlite else insert_postgres
        row = row_of_new(new)
        async with self._database.begin() as connection:
            added = await connection.execute(made(files).values(row).on_conflict_do_nothing(index_elements=["id"]))
            if added.rowcount:
                await claim(connection, new.blob)
                await take(connection, made, new.owner.org, new.summary.size, UNBOUNDED if quota is None else quota)
            return _file(await _found(connection, new.id, new.owner))

    async def retrieve(self, id: str, of: Owner) -> FileRow:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            return _file(await _found(connection, id, of))

    async def find(self, ids: Collection[str], of: Owner) -> dict[str, FileRow]:
        """The team's files with these ids."""
        wanted, found = sorted(ids), dict[str, FileRow]()
        async with self._database.connect() as connection:
            for start in range(0, len(wanted), AT_ONCE):  # databases bound the parameters of a statement
                query = select(files).where(files.c.id.in_(wanted[start : start + AT_ONCE]), _visible(of))
                found |= {row.id: _file(row) for row in await connection.execute(query)}
        return found

    async def page(
        self, of: Owner, *, purpose: str | None, after: str | None, limit: int, is_descending: bool
    ) -> list[FileRow]:
        """At most `limit` + 1 files by time. Raises NotFoundError for a file `after` that the owner has not."""
        columns = files.c
        query = select(files).where(_visible(of))
        if purpose is not None:
            query = query.where(columns.purpose == purpose)
        async with self._database.connect() as connection:
            if after is not None:
                last = await _found(connection, after, of, param="after")
                query = query.where(beyond(files, last.created, last.id, is_descending=is_descending))
            order = (column.desc() if is_descending else column for column in (columns.created, columns.id))
            rows = (await connection.execute(query.order_by(*order).limit(limit + 1))).all()
        return [_file(row) for row in rows]

    async def delete(self, id: str, of: Owner) -> list[str]:
        """Delete a file. Returns the name of its blob, which is unclaimed now; none where an open batch reads it.
        Raises NotFoundError."""
        async with self._database.begin() as connection:
            count, free = await _delete(connection, (files.c.id == id) & _visible(of))
        if not count:
            raise no_such_file(id)
        return free

    async def replace(self, row: FileRow, of: Owner, blob: str, summary: BlobSummary) -> None:
        """Give a file another blob; the former one is unclaimed. Raises NotFoundError where it was deleted, or
        replaced, meanwhile."""
        unchanged = (files.c.id == row.id) & (files.c.blob == row.blob) & _visible(of)
        change = update(files).where(unchanged).values(blob=blob, bytes=summary.size, sha256=summary.sha256)
        async with self._database.begin() as connection:
            is_counted = await connection.scalar(change.returning(files.c.is_counted))
            if is_counted is None:
                raise no_such_file(row.id)
            await claim(connection, blob)
            await unclaim(connection, [row.blob], now=time.time())
            if is_counted:
                await give_back(connection, of.org, row.bytes - summary.size)

    async def give_up(self, blobs: Collection[str]) -> list[str]:
        """Have nothing claim these blobs any more. Returns those that nothing has claimed, to be deleted."""
        mine = update(unclaimed_blobs).where(unclaimed_blobs.c.name.in_(blobs)).values(due=time.time())
        async with self._database.begin() as connection:
            # Waits for a transaction that claims one of them, whose caller may not know whether it was committed.
            return list(await connection.scalars(mine.returning(unclaimed_blobs.c.name)))

    async def usage(self, org: str) -> int:
        """Bytes of files and parts that count toward the quota."""
        async with self._database.connect() as connection:
            return await connection.scalar(select(file_usage.c.bytes).where(file_usage.c.org == org)) or 0

    async def note_missing(self, ids: Collection[str], *, is_missing: bool) -> int:
        """Note whether the contents of these files are in the storage. Returns how many of the files there are."""
        async with self._database.begin() as connection:
            noted = update(files).where(files.c.id.in_(ids)).values(is_missing=is_missing)
            return (await connection.execute(noted)).rowcount

    # of the worker

    async def usages(self) -> dict[str, int]:
        """What each organisation uses, in bytes."""
        async with self._database.connect() as connection:
            rows = await connection.execute(select(file_usage.c.org, file_usage.c.bytes))
            return {row.org: row.bytes for row in rows}

    async def delete_expired(self, now: float) -> list[str]:
        """Delete some files that have expired, or whose team was deleted. Returns their ids."""
        of_deleted_team = (
            select(files.c.id)
            .join(teams, (teams.c.org == files.c.org) & (teams.c.id == files.c.team))
            .where(or_(files.c.created <= teams.c.deleted, files.c.created < teams.c.remade))
        )
        async with self._database.connect() as connection:
            expired = select(files.c.id).where(files.c.expires <= now).limit(AT_ONCE)
            found = list(await connection.scalars(expired))
            found += await connection.scalars(of_deleted_team.limit(AT_ONCE))
        if found:
            async with self._database.begin() as connection:
                await _delete(connection, files.c.id.in_(found))
        return found

    async def due_blobs(self, now: float, limit: int = AT_ONCE) -> list[str]:
        """Unclaimed blobs that may be deleted."""
        query = select(unclaimed_blobs.c.name).where(unclaimed_blobs.c.due <= now).order_by(unclaimed_blobs.c.due)
        async with self._database.connect() as connection:
            return list(await connection.scalars(query.limit(limit)))

    async def forget_blobs(self, names: Collection[str]) -> None:
        """Forget unclaimed blobs that were deleted."""
        async with self._database.begin() as connection:
            await connection.execute(delete(unclaimed_blobs).where(unclaimed_blobs.c.name.in_(names)))

    async def unclaimed(self, names: Collection[str]) -> list[str]:
        """Which of these blobs are known to belong to no file."""
        wanted, found = sorted(names), list[str]()
        async with self._database.connect() as connection:
            for start in range(0, len(wanted), AT_ONCE):
                some = unclaimed_blobs.c.name.in_(wanted[start : start + AT_ONCE])
                found += await connection.scalars(select(unclaimed_blobs.c.name).where(some))
        return found

    async def has_any(self, *, created_before: float) -> bool:
        """Whether there is a file from before then."""
        query = select(files.c.id).where(files.c.created < created_before).limit(1)
        async with self._database.connect() as connection:
            return await connection.scalar(query) is not None

    async def blobs_after(self, id: str, limit: int = 1000) -> Sequence[tuple[str, str, bool, float]]:
        """Id, blob, `is_missing` and `created` of files, by id."""
        columns = files.c
        query = select(columns.id, columns.blob, columns.is_missing, columns.created).where(columns.id > id)
        async with self._database.connect() as connection:
            rows = await connection.execute(query.order_by(columns.id).limit(limit))
            return [(row.id, row.blob, row.is_missing, row.created) for row in rows]


def row_of_new(new: NewFile) -> dict[str, Any]:
    """The columns of a new file."""
    return {
        "id": new.id,
        "org": new.owner.org,
        "team": new.owner.team,
        "key": new.owner.key,
        "created": new.created,
        "expires": new.expires,
        "filename": new.filename,
        "purpose": new.purpose,
        "bytes": new.summary.size,
        "mime": new.mime,
        "sha256": new.summary.sha256,
        "blob": new.blob,
        "is_counted": True,
        "is_missing": False,
    }


async def claim(connection: AsyncConnection, blob: str) -> None:
    """Raises BadRequestError where the blob took so long that the worker may have deleted it."""
    in_time = (unclaimed_blobs.c.name == blob) & (unclaimed_blobs.c.due > time.time() + CLOCKS_SECONDS)
    if not (await connection.execute(delete(unclaimed_blobs).where(in_time))).rowcount:
        raise BadRequestError("The file took too long to arrive.", param="file", code="upload_expired")


async def unclaim(
    connection: AsyncConnection, blobs: Collection[str], *, now: float, held: Mapping[str, float] | None = None
) -> None:
    """Have the worker delete these blobs, if the caller does not. `held`: those that are needed until later."""
    if blobs:
        due = held or {}
        await connection.execute(insert(unclaimed_blobs), [{"name": name, "due": due.get(name, now)} for name in blobs])


async def take(connection: AsyncConnection, made: Any, org: str, size: int, quota: int) -> None:
    """Count bytes toward the organisation's quota. Two that would exceed it together don't both succeed: the statement
    locks the row. Raises InsufficientQuotaError."""
    await connection.execute(made(file_usage).values(org=org, bytes=0).on_conflict_do_nothing(index_elements=["org"]))
    fits = (file_usage.c.org == org) & (file_usage.c.bytes + size <= quota)
    if not (await connection.execute(update(file_usage).where(fits).values(bytes=file_usage.c.bytes + size))).rowcount:
        used = await connection.scalar(select(file_usage.c.bytes).where(file_usage.c.org == org)) or 0
        raise over_quota(org, used, size, quota)


async def give_back(connection: AsyncConnection, org: str, size: int) -> None:
    if size:
        mine = file_usage.c.org == org
        await connection.execute(update(file_usage).where(mine).values(bytes=file_usage.c.bytes - size))


async def delete_files_of(connection: AsyncConnection, org: str) -> None:
    """Delete an organisation's files; the worker deletes their blobs."""
    await _delete(connection, files.c.org == org)


def over_quota(org: str, used: int, size: int, quota: int) -> InsufficientQuotaError:
    return InsufficientQuotaError(
        f"The organisation '{org}' may store {quota / GIB:.4g} GiB of files (`files.max_gb_per_org`). It stores"
        f" {used / GIB:.4g} GiB, and this file has {size} bytes. Delete files to make room.",
        param="file",
        code="storage_quota_exceeded",
    )


def no_such_file(id: str, *, param: str = "id") -> NotFoundError:
    return NotFoundError(f"No such File object: {id[:100]}", param=param)


async def delete_files_on(connection: AsyncConnection, org: str, ids: Sequence[str]) -> None:
    """Delete these files of an organisation; the worker deletes their blobs."""
    for start in range(0, len(ids), AT_ONCE):
        await _delete(connection, (files.c.org == org) & files.c.id.in_(ids[start : start + AT_ONCE]))


async def _delete(connection: AsyncConnection, covered: ColumnElement[bool]) -> tuple[int, list[str]]:
    """Delete files, and make their blobs unclaimed. Returns how many files, and the blobs that nothing reads."""
    now = time.time()
    statement = delete(files).where(covered).returning(files.c.org, files.c.bytes, files.c.blob, files.c.is_counted)
    gone = (await connection.execute(statement)).all()
    blobs = [row.blob for row in gone]
    held = await held_on(connection, blobs)
    await unclaim(connection, blobs, now=now, held=held)
    sizes: dict[str, int] = {}
    for row in gone:
        sizes[row.org] = sizes.get(row.org, 0) + (row.bytes if row.is_counted else 0)
    for org in sorted(sizes):
        await give_back(connection, org, sizes[org])
    return len(gone), [blob for blob in blobs if blob not in held]


def _visible(of: Owner) -> ColumnElement[bool]:
    """The team's files that have not expired."""
    return of.owns(files) & or_(files.c.expires.is_(None), files.c.expires > time.time())


async def _found(connection: AsyncConnection, id: str, of: Owner, *, param: str = "id") -> Row[Any]:
    row = (await connection.execute(select(files).where(files.c.id == id, _visible(of)))).one_or_none()
    if row is None:
        raise no_such_file(id, param=param)
    return row


def _file(row: Row[Any]) -> FileRow:
    return FileRow(
        id=row.id,
        created=row.created,
        expires=row.expires,
        filename=row.filename,
        purpose=row.purpose,
        bytes=row.bytes,
        mime=row.mime,
        sha256=row.sha256,
        blob=row.blob,
        is_missing=row.is_missing,
    )
