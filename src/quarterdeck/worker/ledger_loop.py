"""Inserts finished requests' records into the ledger.

Rows are committed before their entries are acknowledged, so no record is lost. A record that is delivered twice is
inserted once (`on conflict do nothing`).
"""

import asyncio
import logging
from collections.abc import Sequence

from quarterdeck.net.redis import Redis
from quarterdeck.record import RequestRecord
from quarterdeck.store.ledger import Ledger, RecordRefusedError
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.contents import ContentIntake
from quarterdeck.worker.org_loop import Orgs
from quarterdeck.worker.stream_loop import BLOCK_MS, StreamLoop, ids_by_org, read_record
from quarterdeck.worker.streams import Consumer, StreamEntry

log = logging.getLogger(__name__)


class LedgerLoop(StreamLoop):
    """Moves records from Redis into the ledger, and passes them on to the trace loop's stream.

    At most `max_waiting_traces` records may wait there; the oldest are dropped and counted. 0: no trace backend.
    """

    def __init__(
        self,
        consumer: Consumer,
        blocking: Redis,
        orgs: Orgs,
        condition: Condition,
        *,
        ledger: Ledger,
        metrics: WorkerMetrics,
        contents: ContentIntake | None = None,
        max_waiting_traces: int = 0,
        block_ms: int = BLOCK_MS,
    ) -> None:
        super().__init__(consumer, blocking, orgs, condition, block_ms=block_ms)
        self._ledger = ledger
        self._metrics = metrics
        self._contents = contents
        self._max_waiting_traces = max_waiting_traces

    async def _handle(self, entries: list[StreamEntry], stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        readable: list[tuple[StreamEntry, RequestRecord]] = []
        for entry in entries:
            record, reason = read_record(entry)
            if record is None:
                await self._move_to_dead(entry, "unreadable", reason)
            else:
                readable.append((entry, record))
        inserted = await self._insert(readable)
        if self._contents is not None:
            await self._contents.store([record for _, record in readable])
        for org, ids in ids_by_org(inserted).items():
            dropped = await self._consumer.commit(org, ids, traces=self._max_waiting_traces)
            if dropped:
                self._metrics.traces_dropped.add(("overflow",), dropped)
        self._metrics.batch_seconds.observe(clock() - started)

    async def _insert(self, batch: Sequence[tuple[StreamEntry, RequestRecord]]) -> list[StreamEntry]:
        """Insert the batch. If the database refuses it, halve it until the bad record is found, which is moved to the
        dead stream.

        Returns the entries whose rows exist.
        """
        if not batch:
            return []
        try:
            new = await self._ledger.insert(record for _, record in batch)
        except RecordRefusedError as error:
            if len(batch) == 1:
                await self._move_to_dead(batch[0][0], "refused", str(error))
                return []
            middle = len(batch) // 2
            return [*await self._insert(batch[:middle]), *await self._insert(batch[middle:])]
        self._metrics.rows.add(amount=new)
        self._metrics.duplicates.add(amount=len(batch) - new)
        return [entry for entry, _ in batch]

    async def _move_to_dead(self, entry: StreamEntry, kind: str, reason: str) -> None:
        if await self._consumer.move_to_dead(entry, f"{kind}: {reason}"):
            self._metrics.dead.add((kind,))
            log.error(
                "record moved to the dead stream: %s", reason, extra={"org": entry.org, "entry": entry.id.decode()}
            )
