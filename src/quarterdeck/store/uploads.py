"""Uploads: files that come in parts. A part is a blob until its upload is completed, cancelled or expires."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Row, delete, func, insert, select, update
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.errors import BadRequestError, NotFoundError
from quarterdeck.settings.file_storage import MAX_PARTS
from quarterdeck.store.database import Database
from quarterdeck.store.file_tables import files, upload_parts, uploads
from quarterdeck.store.files import NewFile, claim, give_back, row_of_new, take, unclaim
from quarterdeck.store.ownership import Owner

Status = Literal["pending", "completed", "cancelled", "expired"]

ENDED_SECONDS = 24 * 3600.0
"""How long an upload that has ended is remembered, counted from its expiry."""
AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class UploadRow:
    """Times are Unix seconds."""

    id: str
    created: float
    expires: float
    filename: str
    purpose: str
    bytes: int
    mime: str
    """As its client says."""
    file_seconds: int | None
    """After which the file expires."""
    status: Status
    file: str | None
    """The file that it became."""


@dataclass(frozen=True, slots=True)
class PartRow:
    id: str
    created: float
    bytes: int
    blob: str


class UploadStore:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def create(self, row: UploadRow, of: Owner) -> None:
        async with self._database.begin() as connection:
            await connection.execute(
                insert(uploads).values(
                    id=row.id,
                    org=of.org,
                    team=of.team,
                    key=of.key,
                    created=row.created,
                    expires=row.expires,
                    filename=row.filename,
                    purpose=row.purpose,
                    bytes=row.bytes,
                    mime=row.mime,
                    file_seconds=row.file_seconds,
                    status=row.status,
                )
            )

    async def retrieve(self, id: str, of: Owner) -> UploadRow:
        """Raises NotFoundError."""
        async with self._database.connect() as connection:
            return await _found(connection, id, of)

    async def parts(self, id: str, of: Owner) -> dict[str, PartRow]:
        """By id. Raises NotFoundError."""
        async with self._database.connect() as connection:
            await _found(connection, id, of)
            rows = await connection.execute(select(upload_parts).where(upload_parts.c.upload == id))
            return {row.id: PartRow(row.id, row.created, row.bytes, row.blob) for row in rows}

    async def size(self, id: str) -> int:
        """Bytes of the parts that there are."""
        query = select(func.coalesce(func.sum(upload_parts.c.bytes), 0)).where(upload_parts.c.upload == id)
        async with self._database.connect() as connection:
            return int(await connection.scalar(query) or 0)

    async def add_part(self, id: str, part: PartRow, of: Owner, quota: int, *, most: int) -> None:
        """Add a part whose blob is there. `quota`: what the organisation may store; `most`: what the parts of this
        upload may have together. Raises NotFoundError, BadRequestError and InsufficientQuotaError."""
        made = insert_sqlite if self._database.is_sqlite else insert_postgres
        mine = (uploads.c.id == id) & of.owns(uploads)
        async with self._database.begin() as connection:
            # The write comes first, so that an upload is completed or cancelled before or after, not meanwhile.
            await connection.execute(update(uploads).where(mine).values(status=uploads.c.status))
            check_pending(await _found(connection, id, of))
            totals = select(func.count(), func.coalesce(func.sum(upload_parts.c.bytes), 0))
            count, size = (await connection.execute(totals.where(upload_parts.c.upload == id))).one()
            if count >= MAX_PARTS or size + part.bytes > most:
                raise too_many_parts(most)
            await claim(connection, part.blob)
            await take(connection, made, of.org, part.bytes, quota)
            await connection.execute(
                insert(upload_parts).values(
                    id=part.id, upload=id, org=of.org, created=part.created, bytes=part.bytes, blob=part.blob
                )
            )

    async def complete(self, id: str, new: NewFile) -> Sequence[str] | None:
        """Make the upload's file, whose blob is there. Returns the blobs of its parts, which are unclaimed now. None:
        it was completed meanwhile. Raises BadRequestError where it was cancelled or has expired."""
        of = new.owner
        pending = (uploads.c.id == id) & of.owns(uploads) & (uploads.c.status == "pending")
        async with self._database.begin() as connection:
            done = update(uploads).where(pending).values(status="completed", file=new.id)
            if not (await connection.execute(done)).rowcount:
                if (await _found(connection, id, of)).status == "completed":
                    return None
                check_pending(await _found(connection, id, of))
            blobs, size = await _delete_parts(connection, upload_parts.c.upload == id)
            await give_back(connection, of.org, size - new.summary.size)  # of parts that are not in the file
            await claim(connection, new.blob)
            await connection.execute(insert(files).values(row_of_new(new)))
            return blobs

    async def cancel(self, id: str, of: Owner) -> tuple[UploadRow, Sequence[str]]:
        """Returns the upload and the blobs of its parts, which are unclaimed now. Raises NotFoundError, and
        BadRequestError where it has ended otherwise."""
        mine = (uploads.c.id == id) & of.owns(uploads) & uploads.c.status.in_(("pending", "cancelled"))
        async with self._database.begin() as connection:
            await connection.execute(update(uploads).where(mine).values(status="cancelled"))
            row = await _found(connection, id, of)
            if row.status != "cancelled":
                check_pending(row)
            blobs, size = await _delete_parts(connection, upload_parts.c.upload == id)
            await give_back(connection, of.org, size)
            return row, blobs

    async def expire(self, now: float) -> int:
        """End some uploads that were not completed in time, and forget those that ended long ago. Returns how many
        expired."""
        overdue = select(uploads.c.id).where(uploads.c.expires <= now, uploads.c.status == "pending").limit(AT_ONCE)
        async with self._database.begin() as connection:
            expired = update(uploads).where(uploads.c.id.in_(overdue), uploads.c.status == "pending")
            gone = (
                await connection.execute(expired.values(status="expired").returning(uploads.c.id, uploads.c.org))
            ).all()
            for row in sorted(gone, key=lambda each: each.org):  # one order of locks in all processes
                _, size = await _delete_parts(connection, upload_parts.c.upload == row.id)
                await give_back(connection, row.org, size)
            old = select(uploads.c.id).where(uploads.c.expires <= now - ENDED_SECONDS).limit(AT_ONCE)
            await connection.execute(delete(uploads).where(uploads.c.id.in_(old), uploads.c.status != "pending"))
        return len(gone)


async def delete_uploads_of(connection: AsyncConnection, org: str) -> None:
    """Delete an organisation's uploads; the worker deletes the blobs of their parts."""
    await connection.execute(delete(uploads).where(uploads.c.org == org))
    _, size = await _delete_parts(connection, upload_parts.c.org == org)
    await give_back(connection, org, size)


def check_pending(row: UploadRow) -> None:
    """Raises BadRequestError where the upload takes no parts any more."""
    if row.status != "pending" or row.expires <= time.time():
        status = "expired" if row.status == "pending" else row.status
        raise BadRequestError(f"Upload '{row.id}' is {status}.", param="upload_id", code=f"upload_{status}")


def too_many_parts(most: int) -> BadRequestError:
    return BadRequestError(
        f"The parts have more than the {most} bytes of the upload, or are more than {MAX_PARTS}.",
        param="data",
        code="upload_too_large",
    )


def no_such_upload(id: str) -> NotFoundError:
    return NotFoundError(f"No such Upload object: {id[:100]}", param="upload_id")


async def _delete_parts(connection: AsyncConnection, covered: ColumnElement[bool]) -> tuple[Sequence[str], int]:
    """Returns the blobs, which are unclaimed now, and their size."""
    statement = delete(upload_parts).where(covered).returning(upload_parts.c.blob, upload_parts.c.bytes)
    gone = (await connection.execute(statement)).all()
    blobs = [row.blob for row in gone]
    await unclaim(connection, blobs, now=time.time())
    return blobs, sum(row.bytes for row in gone)


async def _found(connection: AsyncConnection, id: str, of: Owner) -> UploadRow:
    row = (await connection.execute(select(uploads).where(uploads.c.id == id, of.owns(uploads)))).one_or_none()
    if row is None:
        raise no_such_upload(id)
    return _upload(row)


def _upload(row: Row[Any]) -> UploadRow:
    return UploadRow(
        id=row.id,
        created=row.created,
        expires=row.expires,
        filename=row.filename,
        purpose=row.purpose,
        bytes=row.bytes,
        mime=row.mime,
        file_seconds=row.file_seconds,
        status=row.status,
        file=row.file,
    )
