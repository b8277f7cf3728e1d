"""Deletion of responses, conversations and stored chat completions: by age, and by request, user or session.

As for contents, a deletion that was recorded is repeated for a while (`worker/retention_loop`), so that what is stored
meanwhile goes as well.
"""

from sqlalchemy import ColumnElement, Table, delete, select, tuple_

from quarterdeck.store.contents import Deletion
from quarterdeck.store.database import Database
from quarterdeck.store.jobs import JobStore
from quarterdeck.store.response_deletion import forget_on
from quarterdeck.store.response_tables import chat_completions, conversations, responses, stored_items

AT_ONCE = 500
"""Rows deleted in one statement: a few milliseconds, in which an insert waits."""


class StoredObjects:
    def __init__(self, database: Database) -> None:
        self._database = database
        self._jobs = JobStore(database)

    async def apply(self, deletion: Deletion) -> int:
        """Delete what a deletion covers, in batches. Returns how many responses and chat completions there were."""
        column = deletion.by
        count = 0
        for table in (responses, chat_completions, stored_items):
            covered = (table.c.org == deletion.org) & (table.c[column] == deletion.value)
            found = await self._delete(table, deletion.org, covered & (table.c.created <= deletion.at))
            count += found if table is not stored_items else 0
        return count

    async def delete_older(self, before: float, *, org: str) -> int:
        """Delete what was made before then, and conversations that were not used since. Returns how many objects."""
        count = 0
        for table in (responses, chat_completions):
            count += await self._delete(table, org, (table.c.org == org) & (table.c.created < before))
        unused = (conversations.c.org == org) & (conversations.c.used < before)
        return count + await self._delete(conversations, org, unused)

    async def _delete(self, table: Table, org: str, covered: ColumnElement[bool]) -> int:
        """Delete rows, and with responses and conversations their items."""
        keys = list(table.primary_key.columns)
        key = keys[0] if len(keys) == 1 else tuple_(*keys)
        batch = select(*keys).where(covered).limit(AT_ONCE)
        total = 0
        while True:
            async with self._database.begin() as connection:
                gone = (
                    (await connection.execute(delete(table).where(key.in_(batch)).returning(keys[0]))).scalars().all()
                )
                if table in (responses, conversations):
                    # By the owner: a search for items without one would read all of them each minute.
                    await connection.execute(delete(stored_items).where(stored_items.c.owner.in_(gone)))
                if table is responses and gone:
                    await forget_on(connection, org, gone, self._jobs)
            count = len(gone)
            total += count
            if count < AT_ONCE:
                return total
