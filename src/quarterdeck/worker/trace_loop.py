"""Exports the ledger's records as spans (`telemetry/spans.py:span_of`), through an OTLP exporter in a thread.

The thread keeps the ledger's loop unaffected by encoding and by a slow sink.
"""

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor

from quarterdeck.net.redis import Redis
from quarterdeck.settings.config import TelemetryConfig
from quarterdeck.settings.live import Live
from quarterdeck.telemetry.otlp import OTLPExporter, Outcome
from quarterdeck.telemetry.spans import Span, span_of
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import Orgs
from quarterdeck.worker.stream_loop import BLOCK_MS, StreamLoop, ids_by_org, read_record
from quarterdeck.worker.streams import Consumer, StreamEntry

log = logging.getLogger(__name__)

TRACES_MOST = 100_000
"""Most records that wait for a trace sink, some 100 MB of Redis. Beyond it the oldest are dropped."""
CLOSE_SECONDS = 3.0
"""How long a running export may take when the worker stops."""


class TraceLoop(StreamLoop):
    def __init__(
        self,
        consumer: Consumer,
        blocking: Redis,
        orgs: Orgs,
        condition: Condition,
        *,
        exporter: OTLPExporter,
        telemetry: Live[TelemetryConfig],
        metrics: WorkerMetrics,
        block_ms: int = BLOCK_MS,
    ) -> None:
        super().__init__(consumer, blocking, orgs, condition, block_ms=block_ms)
        self._exporter = exporter
        self._telemetry = telemetry
        self._metrics = metrics
        self._pool = ThreadPoolExecutor(1, "otlp")
        self.acceptance = Condition("spans", then="they are dropped")
        """Whether the sink took every span of the last batch."""

    async def run(self, stop: asyncio.Event) -> None:
        try:
            await super().run(stop)
        finally:
            self._exporter.close()
            self._pool.submit(self._exporter.disconnect)
            self._pool.shutdown()

    async def _handle(self, entries: list[StreamEntry], stop: asyncio.Event) -> None:
        spans = []
        environment = self._telemetry.current.environment
        for entry in entries:
            if entry.data is None:
                continue  # trimmed while it waited, and counted then
            record, reason = read_record(entry)
            if record is None:
                self._metrics.traces_dropped.add(("unreadable",))
                log.error(
                    "could not make a span of a record: %s",
                    reason,
                    extra={"org": entry.org, "entry": entry.id.decode()},
                )
            else:
                spans.append(span_of(record, environment=environment))
        outcome = await self._export(spans, stop)
        self._metrics.traces_exported.add(amount=outcome.delivered)
        if outcome.refused:
            self._metrics.traces_dropped.add(("refused",), outcome.refused)
            self.acceptance.failed(f"{outcome.refused} of {len(spans)} spans were refused: {outcome.reason}")
        elif spans:
            self.acceptance.ok()
        for org, ids in ids_by_org(entries).items():
            await self._consumer.commit(org, ids)

    async def _export(self, spans: list[Span], stop: asyncio.Event) -> Outcome:
        """Wait for the thread; when the worker stops, at most CLOSE_SECONDS longer."""
        closing = asyncio.create_task(self._close_soon_after(stop))
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, self._exporter.export, spans)
        finally:
            closing.cancel()

    async def _close_soon_after(self, stop: asyncio.Event) -> None:
        await stop.wait()
        await asyncio.sleep(CLOSE_SECONDS)
        self._exporter.close()
