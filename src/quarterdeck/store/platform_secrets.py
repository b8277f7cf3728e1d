"""Secrets that all processes of a platform share. Made by the first that needs one, and kept in the database.

Read access to the database is enough to sign with them, and to read webhooks' secrets and all that is stored.
"""

import secrets
import time

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as insert_postgres
from sqlalchemy.dialects.sqlite import insert as insert_sqlite

from quarterdeck.store.database import Database
from quarterdeck.store.job_tables import platform_secrets

BYTES = 32


class PlatformSecret:
    """One secret of 256 bits, read once."""

    def __init__(self, database: Database, name: str) -> None:
        self._database = database
        self._name = name
        self._secret: bytes | None = None

    async def read(self) -> bytes:
        """Raises DatabaseUnavailableError before it was read."""
        if self._secret is not None:
            return self._secret
        made = insert_sqlite if self._database.is_sqlite else insert_postgres
        statement = made(platform_secrets).values(
            name=self._name, secret=secrets.token_bytes(BYTES), created=time.time()
        )
        query = select(platform_secrets.c.secret).where(platform_secrets.c.name == self._name)
        async with self._database.begin() as connection:
            await connection.execute(statement.on_conflict_do_nothing())  # another process may have been faster
            self._secret = bytes(await connection.scalar(query) or b"")
        return self._secret
