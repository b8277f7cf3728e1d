"""Contents of batches' input files, kept until their batches end.

A file may be deleted, or expire, while a batch reads it. Its row goes at once; its blob stays until no open batch needs
it. On PostgreSQL the three that meet here (a batch is created, a file is deleted, a batch ends) lock the rows that they
look at, so none of them misses what another is about to commit.
"""

import time
from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from quarterdeck.store.batch_tables import batches
from quarterdeck.store.file_tables import files, unclaimed_blobs

GRACE_SECONDS = 2 * 86_400.0
"""After a batch's window, for writing its files: the storage may be away. Then its job, and what it holds, is given
up."""
AT_ONCE = 200


async def is_there_on(connection: AsyncConnection, file: str, blob: str) -> bool:
    """Whether the file exists, which it does to the end of this transaction."""
    found = select(files.c.id).where(files.c.id == file, files.c.blob == blob)
    return await connection.scalar(found.with_for_update(read=True)) is not None


async def held_on(connection: AsyncConnection, blobs: Sequence[str]) -> Mapping[str, float]:
    """Which of these blobs open batches read, and until when (Unix seconds) at the latest."""
    held: dict[str, float] = {}
    for start in range(0, len(blobs), AT_ONCE):
        some = batches.c.input_blob.in_(blobs[start : start + AT_ONCE])
        query = select(batches.c.input_blob, batches.c.expires).where(some, batches.c.finished_at.is_(None))
        for row in await connection.execute(query.with_for_update(read=True)):
            held[row.input_blob] = max(held.get(row.input_blob, 0.0), row.expires + 2 * GRACE_SECONDS)
    return held


async def release_on(connection: AsyncConnection, blobs: Collection[str | None]) -> None:
    """Batches that read these blobs have ended: where the file was deleted meanwhile, its content may go now, unless
    another batch reads it."""
    wanted = [blob for blob in blobs if blob is not None]
    still_held = await held_on(connection, wanted)
    free = [blob for blob in wanted if blob not in still_held]
    for start in range(0, len(free), AT_ONCE):
        unclaimed = unclaimed_blobs.c.name.in_(free[start : start + AT_ONCE])
        later = unclaimed_blobs.c.due > (now := time.time())
        await connection.execute(update(unclaimed_blobs).where(unclaimed, later).values(due=now))
