"""Stores what gateways captured of requests' inputs and outputs, once the requests' rows are in the ledger.

A content waits in Redis under a key of its own beside the record's entry (`accounting/lua/settle.lua`). It is redacted
here, before anything else sees it, stored, and only then removed from Redis and its record acknowledged: a worker that
dies in between stores nothing twice, as the request's id is the primary key.
"""

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

import msgspec

from quarterdeck import content as contents
from quarterdeck.accounting.redis_keys import content_key
from quarterdeck.content import Content
from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord
from quarterdeck.redaction.redactor import Redactor
from quarterdeck.store.contents import ContentStore
from quarterdeck.store.ledger import RecordRefusedError
from quarterdeck.telemetry.worker_metrics import WorkerMetrics

log = logging.getLogger(__name__)

LARGE_BYTES = 8 * 1024
"""A content that is larger is redacted in a thread: a megabyte of numbers and addresses takes seconds."""


LOGGED = 10
"""Requests named in a line of the log."""


class ContentIntake:
    """`redactor` returns the one in force; None while there is no valid configuration, and then nothing is stored:
    the operator's own patterns are not known."""

    def __init__(
        self, redis: Redis, store: ContentStore, redactor: Callable[[], Redactor | None], metrics: WorkerMetrics
    ) -> None:
        self._redis = redis
        self._store = store
        self._redactor = redactor
        self._metrics = metrics

    async def store(self, records: Sequence[RequestRecord]) -> dict[str, Content]:
        """Store the contents of those records that have one, and return them, by request id, for their traces.

        Repeatable. Raises as Redis and the database do.
        """
        stored: dict[str, Content] = {}
        by_org: dict[str, dict[str, RequestRecord]] = defaultdict(dict)
        for record in records:
            if record.content != "off":
                by_org[record.org][record.id] = record
        for org, wanted in by_org.items():
            stored |= await self._store_of(org, list(wanted.values()))
        return stored

    async def _store_of(self, org: str, records: Sequence[RequestRecord]) -> dict[str, Content]:
        keys = [content_key(org, record.id) for record in records]
        waiting = await self._redis.call("MGET", *keys)
        deletions = await self._store.deletions([org], since=min(record.started for record in records))
        found: list[tuple[RequestRecord, Content]] = []
        absent: list[str] = []
        for record, data in zip(records, waiting, strict=True):
            if data is None:
                absent.append(record.id)
            elif any(deletion.covers(record) for deletion in deletions):
                self._metrics.contents.add(("deleted",))
            elif (content := await self._redacted_of(data)) is None:
                self._metrics.contents.add(("failed",))
            else:
                found.append((record, content))
        self._metrics.contents.add(("stored",), await self._insert(found))
        if taken := [key for key, data in zip(keys, waiting, strict=True) if data is not None]:
            await self._redis.call("UNLINK", *taken)
        return {record.id: content for record, content in found} | await self._stored_before(org, absent)

    async def _stored_before(self, org: str, absent: Sequence[str]) -> dict[str, Content]:
        """Contents that a worker stored before it died, so that the trace that it did not make has them too. The others
        were dropped, are too old, or were deleted."""
        if not absent:
            return {}
        stored = await self._store.retrieve(absent, org=org)
        if missing := [id for id in absent if id not in stored]:
            self._metrics.contents.add(("missing",), len(missing))
            log.warning(
                "%d captured contents are missing: Redis had no room, too many records waited, or they expired",
                len(missing),
                extra={"org": org, "requests": missing[:LOGGED]},
            )
        return stored

    async def _redacted_of(self, data: bytes) -> Content | None:
        if len(data) > LARGE_BYTES:
            return await asyncio.to_thread(self._redacted, data)
        await asyncio.sleep(0)
        return self._redacted(data)

    def _redacted(self, data: bytes) -> Content | None:
        redactor = self._redactor()
        if redactor is None:
            log.error("content dropped: without a valid configuration it can't be redacted")
            return None
        try:
            return redactor.content(contents.decode(data))
        except msgspec.DecodeError as error:
            log.error("unreadable content dropped: %s", error)
        except Exception:  # what could not be redacted must not be stored, and must not stop the ledger
            log.exception("content dropped: it could not be redacted")
        return None

    async def _insert(self, found: Sequence[tuple[RequestRecord, Content]]) -> int:
        """Insert and return how many are new. One that the database refuses is dropped: others must not wait for it."""
        try:
            return await self._store.insert(found)
        except RecordRefusedError as error:
            if len(found) > 1:
                middle = len(found) // 2
                return await self._insert(found[:middle]) + await self._insert(found[middle:])
            self._metrics.contents.add(("failed",))
            log.error("content dropped: the database refused it: %s", error, extra={"request": found[0][0].id})
            return 0
