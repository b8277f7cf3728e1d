"""Gauges of a worker that are read from Redis before a scrape: what waits in the streams, and Redis' memory."""

import asyncio
import logging

from quarterdeck.accounting.redis_keys import stream_key
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.telemetry.worker_metrics import WorkerMetrics
from quarterdeck.worker.org_loop import Orgs
from quarterdeck.worker.streams import backlog, dead_key
from quarterdeck.worker.trace_sinks import TraceSinks

log = logging.getLogger(__name__)


class Gauges:
    """While Redis is unavailable the values are old, and `quarterdeck_redis_up` is 0."""

    def __init__(self, redis: Redis, orgs: Orgs, sinks: TraceSinks, metrics: WorkerMetrics) -> None:
        self._redis = redis
        self._orgs = orgs
        self._sinks = sinks
        self._metrics = metrics

    async def refresh(self) -> None:
        metrics = self._metrics
        try:
            async with asyncio.timeout(1.0):
                for org in self._orgs():
                    ledger = await backlog(self._redis, stream_key(org))
                    metrics.waiting.set(ledger.entries, (org,))
                    metrics.lag_seconds.set(ledger.age_seconds, (org,))
                    metrics.dead_waiting.set((await backlog(self._redis, dead_key(org))).entries, (org,))
                    await self._sinks.refresh_gauges(org)
                if not self._redis.is_cluster:  # its nodes have one each
                    await self._read_redis_memory()
        except (TimeoutError, RedisUnavailableError, RedisError) as error:
            log.debug("could not read the backlog: %s", error)

    async def _read_redis_memory(self) -> None:
        lines = bytes(await self._redis.call("INFO", "memory")).decode().splitlines()
        found = dict(line.split(":", 1) for line in lines if ":" in line)
        self._metrics.redis_memory.set(int(found["used_memory"]))
        self._metrics.redis_memory_limit.set(int(found["maxmemory"]))
