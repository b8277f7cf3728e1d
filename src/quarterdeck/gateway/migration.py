"""The database is migrated as soon as it can be reached, which may be after the gateway has started."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from quarterdeck.store.database import Database, DatabaseUnavailableError

log = logging.getLogger(__name__)

MIGRATE_RETRY_SECONDS = 1.0


async def migrate(database: Database, on_migrated: Callable[[], None]) -> None:
    """A job: migrate, call `on_migrated`, and stay."""
    while True:
        try:
            await database.migrate()
            break
        except DatabaseUnavailableError as error:
            log.warning("database not available yet: %s", error)
            await asyncio.sleep(MIGRATE_RETRY_SECONDS)
    on_migrated()
    await asyncio.Event().wait()


async def run_after(event: asyncio.Event, job: Callable[[], Awaitable[None]]) -> None:
    """Run a job that reads tables, once they exist."""
    await event.wait()
    await job()
