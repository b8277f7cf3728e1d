"""A worker's loops around a real Redis and a real database."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.net.redis import Redis, RedisUnavailableError
from quarterdeck.record import RequestRecord, encode
from quarterdeck.settings.live import Live
from quarterdeck.settings.telemetry import TelemetryConfig
from quarterdeck.store.database import Database
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.telemetry.traces.exporter import OTLPExporter
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.ledger_loop import LedgerLoop
from quarterdeck.worker.sink_loop import SinkLoop
from quarterdeck.worker.streams import Consumer, backlog, traces_key, waiting_traces
from quarterdeck.worker.trace_making import TraceMaker

ORG = "default"


ALL = LedgerFilter(org=ORG)


SINK = "otlp"


BLOCK_MS = 50
"""Short: a stop waits for the current read."""


@dataclass
class Bench:
    """A worker's parts around a real Redis and a real database."""

    url: str
    redis: Redis
    blocking: Redis
    database: Database
    metrics: WorkerMetrics
    orgs: list[str]
    states: list[bool]
    """The states that the database reported (`on_state`)."""

    def another(self) -> "Bench":
        """Return a copy with its own blocking connection. The caller closes its `blocking`."""
        return replace(self, blocking=Redis(self.url))

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.database)

    def ledger_loop(
        self, name: str = "worker_a", *, sinks: Sequence[str] = (), idle_ms: int = 0, **telemetry: Any
    ) -> LedgerLoop:
        config = Live(TelemetryConfig(**({"environment": "test"} | telemetry)))
        return LedgerLoop(
            Consumer(self.redis, "ledger", name, idle_ms=idle_ms),
            self.blocking,
            lambda: self.orgs,
            Condition("the ledger"),
            ledger=self.ledger,
            metrics=self.metrics,
            traces=TraceMaker(sinks, config, self.metrics),
            block_ms=BLOCK_MS,
            linger_seconds=0.0,
        )

    def sink_loop(self, sink: OTLPSink, name: str = SINK, *, timeout: float = 2.0) -> SinkLoop:
        exporter = OTLPExporter(
            sink.endpoint, headers=sink.headers, service_name="quarterdeck", environment="test", timeout=timeout
        )
        return SinkLoop(
            name,
            Consumer(self.redis, "traces", "worker_a", idle_ms=0, key=lambda org: traces_key(org, name)),
            self.blocking,
            lambda: self.orgs,
            Condition(f"the trace sink {name}"),
            exporter=exporter,
            metrics=self.metrics,
            block_ms=BLOCK_MS,
            linger_seconds=0.0,
        )

    async def append(self, *records: RequestRecord) -> None:
        for at in range(0, len(records), 500):
            entries = [(stream_key(record.org), encode(record)) for record in records[at : at + 500]]
            await asyncio.gather(*[self.redis.call("XADD", key, "*", "record", data) for key, data in entries])

    async def waiting(self, key: str = stream_key(ORG)) -> int:
        return (await backlog(self.redis, key)).entries

    async def waiting_traces(self, sink: str = SINK) -> int:
        return await waiting_traces(self.redis, ORG, sink)

    async def rows(self) -> set[str]:
        return {record.id for record in await self.ledger.list(ALL, limit=10_000)}


async def eventually(condition: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Poll until the condition holds: a change in a server sets no event."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110  # it changes in another process
            await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(*running_loops: LedgerLoop | SinkLoop) -> AsyncIterator[None]:
    stop = asyncio.Event()
    tasks = [asyncio.create_task(loop.run(stop)) for loop in running_loops]
    try:
        yield
    finally:
        stop.set()
        async with asyncio.timeout(20):
            await asyncio.gather(*tasks)


@contextlib.asynccontextmanager
async def a_bench(redis_url: str, database_url: str, *, timeout: float = 1.0) -> AsyncIterator[Bench]:
    states: list[bool] = []
    database = Database(database_url, timeout=timeout, on_state=states.append)
    await database.migrate()
    states.clear()
    bench = Bench(redis_url, Redis(redis_url), Redis(redis_url), database, WorkerMetrics(), [ORG], states)
    yield bench
    await bench.redis.close()
    await bench.blocking.close()
    await database.close()


async def is_empty(bench: Bench, key: str = stream_key(ORG)) -> bool:
    try:
        return await bench.waiting(key) == 0
    except RedisUnavailableError:
        return False


async def has_no_traces(bench: Bench, sink: str = SINK) -> bool:
    return await bench.waiting_traces(sink) == 0


async def answers(bench: Bench) -> bool:
    try:
        return bool(await bench.redis.call("PING"))
    except RedisUnavailableError:
        return False


async def holds(condition: Callable[[], bool]) -> bool:
    return condition()
