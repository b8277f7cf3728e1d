"""The organisations whose streams a worker reads, read again from the database every few seconds."""

import asyncio
import logging

from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.orgs import DEFAULT_ORG, OrgStore
from quarterdeck.worker.conditions import pause

log = logging.getLogger(__name__)

ORGS_SECONDS = 10.0
"""Between two reads of the organisations: how long a new one's records may wait."""


class KnownOrgs:
    """Call it for the organisations, as last read. They are not read until `is_migrated` is set."""

    def __init__(self, store: OrgStore, is_migrated: asyncio.Event) -> None:
        self._store = store
        self._is_migrated = is_migrated
        self._known: tuple[str, ...] = (DEFAULT_ORG,)

    def __call__(self) -> tuple[str, ...]:
        return self._known

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self._is_migrated.is_set():
                try:
                    found = await self._store.list()
                    self._known = tuple(sorted({DEFAULT_ORG, *found}))
                except DatabaseUnavailableError as error:
                    log.debug("could not read organisations: %s", error)  # the ledger loop's condition logs the outage
            await pause(stop, ORGS_SECONDS if self._is_migrated.is_set() else 0.5)
