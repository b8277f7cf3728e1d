"""Results of batches that a deletion covers: which batches have them, and those that are rows still.

A result names its request, and the ledger knows whose request it was, and when it began.
"""

import zlib
from collections.abc import Callable, Collection

from sqlalchemy import bindparam, or_, select, update

from quarterdeck.store.batch_tables import batch_lines, batches
from quarterdeck.store.batches import PAGE, BatchRow, row_of
from quarterdeck.store.contents import Deletion
from quarterdeck.store.database import Database
from quarterdeck.store.ledger_tables import ledger

CLOCKS_SECONDS = 300.0
"""How far the clocks of gateways and workers may differ."""


class BatchContents:
    def __init__(self, database: Database) -> None:
        self._database = database

    async def batches(self, deletion: Deletion) -> list[BatchRow]:
        """The organisation's batches that may have results of before the deletion."""
        begun = batches.c.in_progress_at.is_not(None) & (batches.c.in_progress_at <= deletion.at + CLOCKS_SECONDS)
        has_results = or_(
            batches.c.finished_at.is_(None), batches.c.output_file.is_not(None), batches.c.error_file.is_not(None)
        )
        query = select(batches).where(batches.c.org == deletion.org, begun, has_results).order_by(batches.c.created)
        async with self._database.connect() as connection:
            return [row_of(row) for row in await connection.execute(query)]

    async def requests(self, deletion: Deletion, batch: BatchRow) -> set[str]:
        """The requests that the deletion covers, among those that began while the batch ran."""
        columns = ledger.c
        column = {"request": columns.id, "user": columns.user, "session": columns.session}[deletion.by]
        begin = (batch.in_progress_at or batch.created) - CLOCKS_SECONDS
        end = deletion.at if batch.finished_at is None else min(deletion.at, batch.finished_at + CLOCKS_SECONDS)
        covered = (columns.org == deletion.org) & (column == deletion.value)
        query = select(columns.id).where(covered, columns.key == batch.key, columns.started.between(begin, end))
        query = query.where(columns.priority < 0)  # those of jobs: a user may have millions of others
        async with self._database.report() as connection:
            return set(await connection.scalars(query))

    async def clear_lines(
        self, batch: str, requests: Collection[str], clear: Callable[[bytes, Collection[str]], bytes | None]
    ) -> int:
        """Replace the results that `clear` returns another text for. Returns how many."""
        columns, last, count = batch_lines.c, -1, 0
        change = update(batch_lines).where(columns.batch == batch, columns.line == bindparam("at"))
        change = change.values(body=bindparam("new_body"))
        while True:
            query = select(columns.line, columns.body).where(columns.batch == batch, columns.line > last)
            async with self._database.connect() as connection:
                rows = (await connection.execute(query.order_by(columns.line).limit(PAGE))).all()
            if not rows:
                return count
            last = rows[-1].line
            cleared = [(row.line, clear(zlib.decompress(row.body), requests)) for row in rows]
            changes = [{"at": line, "new_body": zlib.compress(text, 1)} for line, text in cleared if text is not None]
            if changes:
                async with self._database.begin() as connection:
                    await connection.execute(change, changes)
            count += len(changes)
