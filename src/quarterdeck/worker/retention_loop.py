"""Deletes contents, stored objects, batches and ledger rows that are too old, and repeats recent deletions, also in
what waits for trace sinks.

A deletion is repeated for an hour: a worker that read the deletions just before may have stored what it covers just
after.
"""

import logging
import time
from collections.abc import Callable, Sequence

from quarterdeck.errors import NotFoundError
from quarterdeck.net.redis import Redis
from quarterdeck.resources.tenancy.principals import org_content_days
from quarterdeck.settings.config import Config
from quarterdeck.store.batch_retention import BatchRetention
from quarterdeck.store.contents import DELETIONS_KEPT_SECONDS, ContentStore
from quarterdeck.store.ledger_retention import LedgerRetention
from quarterdeck.store.orgs import OrgStore
from quarterdeck.store.stored_objects import StoredObjects
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import OrgLoop, Orgs
from quarterdeck.worker.trace_deletion import delete_waiting_traces

log = logging.getLogger(__name__)

RETENTION_SECONDS = 60.0
"""Between two turns. A minute: retention is stated in days, and an empty turn is one indexed look-up for each org."""
REPEATED_SECONDS = 3600.0
DAY = 86_400.0


class RetentionLoop(OrgLoop):
    """`sinks`: the names of the trace sinks. `config` returns what is in force; None: no valid configuration was read
    yet, and nothing is deleted by age."""

    def __init__(
        self,
        store: ContentStore,
        objects: StoredObjects,
        batches: BatchRetention,
        ledger: LedgerRetention,
        org_store: OrgStore,
        redis: Redis,
        sinks: Sequence[str],
        config: Callable[[], Config | None],
        orgs: Orgs,
        condition: Condition,
        *,
        wall: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(orgs, condition, RETENTION_SECONDS)
        self._store = store
        self._objects = objects
        self._batches = batches
        self._ledger = ledger
        self._org_store = org_store
        self._redis = redis
        self._sinks = sinks
        self._config = config
        self._wall = wall

    async def _visit(self, org: str) -> None:
        now = self._wall()
        recent = await self._store.deletions([org], since=now - REPEATED_SECONDS)
        for deletion in recent:
            await self._store.apply(deletion)
            await self._objects.apply(deletion)
        for sink in self._sinks if recent else ():
            if count := await delete_waiting_traces(self._redis, org, sink, recent):
                log.info(
                    "removed %d traces with deleted contents from a queue", count, extra={"org": org, "sink": sink}
                )
        await self._store.forget_deletions(now - DELETIONS_KEPT_SECONDS, org=org)
        config = self._config()
        if config is None:
            return
        days = await self._days(org, config)
        ledger_days = config.ledger.retention_days
        if ledger_days is not None:
            if count := await self._ledger.delete_older(now - ledger_days * DAY, org=org):
                log.info("deleted %d requests older than %g days", count, ledger_days, extra={"org": org})
            days = min(days, ledger_days)  # contents are found through their requests
        if count := await self._store.delete_older(now - days * DAY, org=org):
            log.info("deleted %d contents older than %g days", count, days, extra={"org": org})
        if count := await self._objects.delete_older(now - days * DAY, org=org):
            log.info("deleted %d stored responses older than %g days", count, days, extra={"org": org})
        batch_days = config.batches.retention_days
        if count := await self._batches.delete_older(now - batch_days * DAY, org=org):
            log.info("deleted %d batches that ended %g days ago", count, batch_days, extra={"org": org})

    async def _days(self, org: str, config: Config) -> float:
        """How long contents of the organisation are kept. 0: it was deleted."""
        try:
            row = await self._org_store.retrieve(org, with_deleted=True)
        except NotFoundError:  # it has no key yet
            stored = None
        else:
            if row.deleted is not None:
                return 0.0
            stored = row.content_days
        return org_content_days(org, stored, config) or config.content.retention_days
