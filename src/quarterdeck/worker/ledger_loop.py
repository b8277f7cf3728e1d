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
from quarterdeck.worker.stream_loop import BLOCK_MS, LINGER_SECONDS, StreamLoop, read_record
from quarterdeck.worker.streams import Consumer, StreamEntry
from quarterdeck.worker.trace_making import TraceMaker

log = logging.getLogger(__name__)


Received = tuple[StreamEntry, RequestRecord]


class LedgerLoop(StreamLoop):
    """Moves records from Redis into the ledger, and their traces into the queues of the trace sinks."""

    def __init__(
        self,
        consumer: Consumer,
        blocking: Redis,
        orgs: Orgs,
        condition: Condition,
        *,
        ledger: Ledger,
        metrics: WorkerMetrics,
        traces: TraceMaker,
        contents: ContentIntake | None = None,
        block_ms: int = BLOCK_MS,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        super().__init__(consumer, blocking, orgs, condition, block_ms=block_ms, linger_seconds=linger_seconds)
        self._ledger = ledger
        self._metrics = metrics
        self._contents = contents
        self._traces = traces

    async def _handle(self, entries: list[StreamEntry], stop: asyncio.Event) -> None:
        clock = asyncio.get_running_loop().time
        started = clock()
        readable: list[Received] = []
        for entry in entries:
            record, reason = read_record(entry)
            if record is None:
                await self._move_to_dead(entry, "unreadable", reason)
            else:
                readable.append((entry, record))
        inserted = await self._insert(readable)
        contents = await self._contents.store([record for _, record in readable]) if self._contents else {}
        queues = self._traces.queues(len(self._orgs()))
        for org, each in _by_org(inserted).items():
            traces = self._traces.make([record for _, record in each], contents)
            dropped = await self._consumer.commit(org, [entry.id for entry, _ in each], traces=traces, queues=queues)
            self._traces.count_overflow(dropped)
        self._metrics.batch_seconds.observe(clock() - started)

    async def _insert(self, batch: Sequence[Received]) -> Sequence[Received]:
        """Insert the batch. If the database refuses it, halve it until the bad record is found, which is moved to the
        dead stream.

        Returns those whose rows exist.
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
        return batch

    async def _move_to_dead(self, entry: StreamEntry, kind: str, reason: str) -> None:
        if await self._consumer.move_to_dead(entry, f"{kind}: {reason}"):
            self._metrics.dead.add((kind,))
            log.error(
                "record moved to the dead stream: %s", reason, extra={"org": entry.org, "entry": entry.id.decode()}
            )


def _by_org(received: Sequence[Received]) -> dict[str, list[Received]]:
    found: dict[str, list[Received]] = {}
    for each in received:
        found.setdefault(each[0].org, []).append(each)
    return found
