"""Makes the traces of records that are in the ledger: sampled, projected, and compressed once for all sinks."""

import logging
from collections.abc import Sequence

from quarterdeck.record import RequestRecord
from quarterdeck.settings.live import Live
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.telemetry.traces.batches import TraceBatch, pack
from quarterdeck.telemetry.traces.projection import TraceProjection
from quarterdeck.telemetry.traces.sampling import is_sampled
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.streams import TraceQueue

log = logging.getLogger(__name__)

MIB = 2**20


class TraceMaker:
    """For the sinks of one worker."""

    def __init__(self, sinks: Sequence[str], telemetry: Live[TelemetryConfig], metrics: WorkerMetrics) -> None:
        self._sinks = tuple(sinks)
        self._metrics = metrics
        self._config = telemetry.current
        self._projection = TraceProjection(self._config.environment)
        telemetry.subscribe(self._adopt)

    def queues(self, orgs: int) -> list[TraceQueue]:
        """The sinks' queues in Redis, of one of so many orgs."""
        most = self._config.max_waiting_mb * MIB // max(1, orgs)
        return [TraceQueue(sink, most) for sink in self._sinks]

    def make(self, records: Sequence[RequestRecord]) -> list[TraceBatch]:
        """The records' traces. [] where none is exported."""
        if not self._sinks:
            return []
        config, encode = self._config, self._projection.encode
        traces, unsampled = [], 0
        for record in records:
            if not is_sampled(record, config):
                unsampled += 1
                continue
            try:
                traces.append(encode(record))
            except Exception:
                # An error boundary: a record that can't be projected must not stop the ledger.
                self._dropped("unreadable", 1)
                log.exception("could not make a trace of a record", extra={"request_id": record.id})
        if unsampled:
            self._metrics.traces_unsampled.add(amount=unsampled)
        return [pack(traces)] if traces else []

    def count_overflow(self, dropped: Sequence[int]) -> None:
        """Count what the sinks' queues had no room for."""
        for sink, count in zip(self._sinks, dropped, strict=True):
            if count:
                self._metrics.traces_dropped.add((sink, "overflow"), count)

    def _dropped(self, reason: str, count: int) -> None:
        for sink in self._sinks:
            self._metrics.traces_dropped.add((sink, reason), count)

    def _adopt(self, config: TelemetryConfig) -> None:
        if config.environment != self._config.environment:
            self._projection = TraceProjection(config.environment)
        self._config = config
