"""Sends the batches of traces that wait for one sink, by an OTLP exporter in a thread.

Each sink has a loop, a queue in Redis, a thread and a back-off of its own, so that one that hangs holds up neither the
ledger nor the others.
"""

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from quarterdeck.net.redis import Redis
from quarterdeck.telemetry.traces.batches import TraceBatch
from quarterdeck.telemetry.traces.exporter import OTLPExporter, Outcome
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import Orgs
from quarterdeck.worker.stream_loop import BLOCK_MS, StreamLoop
from quarterdeck.worker.streams import Consumer, StreamEntry

log = logging.getLogger(__name__)

BATCHES = 8
"""Read at a time, over all orgs: some 2,000 traces of up to 5 KB."""
EXPORT_BYTES = 4 * 2**20
"""Of one request, before compression. Collectors take 20 MiB, and many servers less."""
LINGER_SECONDS = 0.25
"""Pause after an export that was not full, so that traces leave in few requests. OpenTelemetry's SDKs wait 5 s."""
CLOSE_SECONDS = 3.0
"""How long a running export may take when the worker stops."""


class SinkLoop(StreamLoop):
    def __init__(
        self,
        sink: str,
        consumer: Consumer,
        blocking: Redis,
        orgs: Orgs,
        condition: Condition,
        *,
        exporter: OTLPExporter,
        metrics: WorkerMetrics,
        block_ms: int = BLOCK_MS,
        linger_seconds: float = LINGER_SECONDS,
    ) -> None:
        super().__init__(consumer, blocking, orgs, condition, block_ms=block_ms, linger_seconds=linger_seconds)
        self._sink = sink
        self._exporter = exporter
        self._metrics = metrics
        self._held: frozenset[bytes] = frozenset()
        """Entries whose export failed: they are sent again if they still wait."""
        self._pool = ThreadPoolExecutor(1, f"sink-{sink}")
        self.acceptance = Condition(f"traces to {sink}", then="they are dropped")
        """Whether the sink took every trace of the last export."""

    async def run(self, stop: asyncio.Event) -> None:
        try:
            await super().run(stop)
        finally:
            self._exporter.close()
            self._pool.submit(self._exporter.disconnect)
            self._pool.shutdown()

    def _count(self, orgs: int) -> int:
        return max(1, BATCHES // max(1, orgs))

    async def _handle(self, entries: list[StreamEntry], stop: asyncio.Event) -> None:
        """Send the entries in requests of EXPORT_BYTES. What was sent leaves the batch, so that a retry repeats one
        request at most."""
        if self._held.intersection([entry.id for entry in entries]):
            await self._discard_removed(entries)
        self._held = frozenset(entry.id for entry in entries)
        readable: list[tuple[StreamEntry, TraceBatch]] = []
        for entry in entries:
            if (batch := self._read(entry)) is not None:
                readable.append((entry, batch))
        if len(readable) < len(entries):
            good = {entry.id for entry, _ in readable}
            await self._acknowledge([entry for entry in entries if entry.id not in good])
            entries[:] = [entry for entry, _ in readable]
        batches_left = [batch for _, batch in readable]
        while entries:
            batches = _fitting(batches_left)
            sent = len(batches)
            outcome = await self._export(batches, stop)
            self._metrics.traces_exported.add((self._sink,), outcome.delivered)
            if outcome.refused:
                self._metrics.traces_dropped.add((self._sink, "refused"), outcome.refused)
                count = sum(batch.traces for batch in batches)
                self.acceptance.failed(f"{outcome.refused} of {count} traces were refused: {outcome.reason}")
            else:
                self.acceptance.ok()
            await self._acknowledge(entries[:sent])
            del entries[:sent], batches_left[:sent]

    async def _discard_removed(self, entries: list[StreamEntry]) -> None:
        """Forget entries that were removed from the queue while they were held: dropped for newer ones, or replaced
        because contents were deleted."""
        waiting = await self._consumer.waiting([(entry.org, entry.id) for entry in entries])
        removed = [entry for entry, waits in zip(entries, waiting, strict=True) if not waits]
        await self._acknowledge(removed)
        entries[:] = [entry for entry, waits in zip(entries, waiting, strict=True) if waits]

    def _read(self, entry: StreamEntry) -> TraceBatch | None:
        meta, data = entry.field(b"meta"), entry.field(b"data")
        if meta is None or data is None:
            return None  # dropped while it waited, and counted then
        try:
            return TraceBatch.read(meta, data)
        except ValueError as error:
            self._metrics.traces_dropped.add((self._sink, "unreadable"), int(entry.field(b"traces") or 1))
            log.error("could not read traces: %s", error, extra={"org": entry.org, "entry": entry.id.decode()})
            return None

    async def _acknowledge(self, entries: list[StreamEntry]) -> None:
        sent: dict[str, list[tuple[bytes, int, int]]] = {}
        for entry in entries:
            traces, size = int(entry.field(b"traces") or 0), len(entry.field(b"data") or b"")
            sent.setdefault(entry.org, []).append((entry.id, traces, size))
        for org, each in sent.items():
            await self._consumer.acknowledge(org, self._sink, each)

    async def _export(self, batches: list[TraceBatch], stop: asyncio.Event) -> Outcome:
        """Wait for the thread; when the worker stops, at most CLOSE_SECONDS longer."""
        closing = asyncio.create_task(self._close_soon_after(stop))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._exporter.export, batches)
        finally:
            closing.cancel()

    async def _close_soon_after(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(CLOSE_SECONDS)
        self._exporter.close()


def _fitting(batches: Sequence[TraceBatch]) -> list[TraceBatch]:
    """The first batches, as many as one request may hold; one at least."""
    size = 0
    for count, batch in enumerate(batches):
        size += batch.size
        if size > EXPORT_BYTES and count:
            return list(batches[:count])
    return list(batches)
