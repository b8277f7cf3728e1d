"""Makes the traces of records that are in the ledger: sampled, projected, and compressed once for all sinks."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from quarterdeck.content import Content
from quarterdeck.record import RequestRecord
from quarterdeck.settings.live import Live
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.telemetry.traces.batches import About, TraceBatch, pack
from quarterdeck.telemetry.traces.projection import TraceProjection
from quarterdeck.telemetry.traces.prompt_numbers import PromptNumbers
from quarterdeck.telemetry.traces.sampling import is_sampled
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.streams import TraceQueue

log = logging.getLogger(__name__)

MIB = 2**20
CONTENT_BYTES = MIB
"""Of one batch of traces with contents, before compression: four of them make an export."""
_NONE: Mapping[str, Content] = MappingProxyType({})


class TraceMaker:
    """For the sinks of one worker."""

    def __init__(
        self,
        sinks: Sequence[str],
        telemetry: Live[TelemetryConfig],
        metrics: WorkerMetrics,
        prompt_numbers: PromptNumbers | None = None,
    ) -> None:
        self._prompt_numbers = prompt_numbers
        self._sinks = tuple(sinks)
        self._metrics = metrics
        self._config = telemetry.current
        self._projection = TraceProjection(self._config.environment, prompt_numbers)
        telemetry.subscribe(self._adopt)

    def queues(self, orgs: int) -> list[TraceQueue]:
        """The sinks' queues in Redis, of one of so many orgs."""
        most = self._config.max_waiting_mb * MIB // max(1, orgs)
        return [TraceQueue(sink, most) for sink in self._sinks]

    def make(self, records: Sequence[RequestRecord], contents: Mapping[str, Content] = _NONE) -> list[TraceBatch]:
        """The records' traces, those with contents (by request id) in batches of their own. [] where none is
        exported."""
        if not self._sinks:
            return []
        config, encode = self._config, self._projection.encode
        traces: list[bytes] = []
        with_contents: list[tuple[bytes, About]] = []
        unsampled = 0
        for record in records:
            if not is_sampled(record, config):
                unsampled += 1
                continue
            try:
                if (content := contents.get(record.id)) is None:
                    traces.append(encode(record))
                else:
                    about = (record.id, record.user, record.session, record.started)
                    with_contents.append((encode(record, content), about))
            except Exception:
                # An error boundary: a record that can't be projected must not stop the ledger.
                self._dropped("unreadable", 1)
                log.exception("could not make a trace of a record", extra={"request_id": record.id})
        if unsampled:
            self._metrics.traces_unsampled.add(amount=unsampled)
        batches = [pack(traces)] if traces else []
        return [*batches, *_packed(with_contents)] if with_contents else batches

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
            self._projection = TraceProjection(config.environment, self._prompt_numbers)
        self._config = config


def _packed(traces: Sequence[tuple[bytes, About]]) -> Iterator[TraceBatch]:
    """Batches of about CONTENT_BYTES."""
    begin = size = 0
    for at, (trace, _) in enumerate(traces):
        if size and size + len(trace) > CONTENT_BYTES:
            yield _pack(traces[begin:at])
            begin, size = at, 0
        size += len(trace)
    yield _pack(traces[begin:])


def _pack(traces: Sequence[tuple[bytes, About]]) -> TraceBatch:
    return pack([trace for trace, _ in traces], [about for _, about in traces])
