"""The trace sinks of a worker: a loop, a connection and a condition each, and what the worker says of them."""

from collections.abc import Callable
from functools import partial

from quarterdeck.net.redis import Redis
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.live import Live
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.telemetry.traces.exporter import OTLPExporter
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.org_loop import Orgs
from quarterdeck.worker.sink_loop import SinkLoop
from quarterdeck.worker.sinks import Sink, exporter_of
from quarterdeck.worker.streams import TRACES_GROUP, Consumer, traces_key, waiting_traces


class TraceSinks:
    """`connect` opens a connection for reads that wait."""

    def __init__(
        self,
        sinks: list[Sink],
        *,
        redis: Redis,
        connect: Callable[[], Redis],
        consumer: str,
        idle_ms: int,
        orgs: Orgs,
        environment: Environment,
        telemetry: Live[TelemetryConfig],
        version: str,
        metrics: WorkerMetrics,
    ) -> None:
        self._redis = redis
        self._metrics = metrics
        self._reads: list[Redis] = []
        self._conditions: dict[str, Condition] = {}
        self.loops: dict[str, SinkLoop] = {}
        for sink in sinks:
            exporter = exporter_of(sink, environment, telemetry.current, version)
            telemetry.subscribe(partial(_set_labels, exporter))
            self._reads.append(reads := connect())
            name = sink.name
            up = partial(self._set_up, name)
            condition = self._conditions[name] = Condition(f"the trace sink {name}", up)
            key = partial(traces_key, sink=name)
            self.loops[name] = SinkLoop(
                name,
                Consumer(redis, TRACES_GROUP, consumer, idle_ms=idle_ms, key=key),
                reads,
                orgs,
                condition,
                exporter=exporter,
                metrics=metrics,
            )

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.loops)

    def jobs(self) -> dict[str, Condition]:
        """Whether each sink takes exports, and every trace of them. None makes a worker unready: records reach the
        ledger all the same."""
        found = {}
        for name, loop in self.loops.items():
            found[f"traces to {name}"] = self._conditions[name]
            found[f"traces refused by {name}"] = loop.acceptance
        return found

    def states(self) -> dict[str, object]:
        """Traces of this worker by sink, for `/readyz`."""
        dropped = self._metrics.traces_dropped.values
        return {
            name: {
                "exported": int(self._metrics.traces_exported.values.get((name,), 0)),
                "dropped": {reason: int(count) for (sink, reason), count in dropped.items() if sink == name},
            }
            for name in self.loops
        }

    async def refresh_gauges(self, org: str) -> None:
        for name in self.loops:
            self._metrics.traces_waiting.set(await waiting_traces(self._redis, org, name), (org, name))

    async def close(self) -> None:
        for redis in self._reads:
            await redis.close()

    def _set_up(self, name: str, up: bool) -> None:
        self._metrics.traces_up.set(int(up), (name,))


def _set_labels(exporter: OTLPExporter, telemetry: TelemetryConfig) -> None:
    exporter.set_labels(service_name=telemetry.service_name, environment=telemetry.environment)
