"""Batches that ended long ago are deleted, with the files that hold their results."""

from sqlalchemy import delete, select

from quarterdeck.store.batch_tables import batches
from quarterdeck.store.database import Database
from quarterdeck.store.files import delete_files_on

AT_ONCE = 200
"""Rows deleted in one transaction: some milliseconds, in which an insert waits."""


class BatchRetention:
    """Any number of workers may delete at once."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def delete_older(self, before: float, *, org: str) -> int:
        """Delete batches that ended before then (Unix seconds), in steps. Returns how many. The contents of their files
        are deleted by the sweep of files. Raises DatabaseUnavailableError."""
        total = 0
        old = select(batches.c.id).where(batches.c.org == org, batches.c.finished_at < before).limit(AT_ONCE)
        statement = delete(batches).where(batches.c.id.in_(old))
        while True:
            async with self._database.begin() as connection:
                gone = (
                    await connection.execute(statement.returning(batches.c.output_file, batches.c.error_file))
                ).all()
                await delete_files_on(connection, org, [file for row in gone for file in row if file is not None])
            total += len(gone)
            if len(gone) < AT_ONCE:
                return total
