"""The platform of a soak: each part is a child process that can be killed, with two gateways as behind a load balancer.

It uses the same parts as tests/faults. Two simulated engines serve every model. Each gateway has its own state folder,
as on a separate host. Redis has an append-only file.
"""

import shutil
import threading
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml
from tests.faults.stack import TIMEOUTS, Key, WorkerProcess, left_in, until
from tests.platform import DoorProcess, GatewayProcess, SimulatorProcess
from tests.servers import RedisServer, ServerProcess, short_folder
from tests.telemetry.otlp_sink import OTLPSink

from quarterdeck import ids
from quarterdeck.record import RequestRecord
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.store.spool import Spool

ORG = "default"
MODEL, CACHED, EMBEDDING = "soak", "soak-cached", "soak-embed"
PRICES: tuple[dict[str, str], ...] = (
    {"input": "3", "cached_input": "0.3", "output": "15"},
    {"input": "5", "cached_input": "0.5", "output": "25"},
)
"""Prices between which a reload alternates."""
PATIENCE: dict[str, Any] = TIMEOUTS | {
    "connect_timeout_seconds": 2,
    "first_token_timeout_seconds": 8,  # a busy core is not a fault
    "idle_timeout_seconds": 5,
    "client_body_timeout_seconds": 30,  # the client shares the machine
    "client_write_timeout_seconds": 30,
    "drain_seconds": 20,
    "reservation_lease_seconds": 5,
}
PAGE = 1000


class CostSink(OTLPSink):
    """Keeps only the cost of each trace: an hour of spans takes hundreds of MiB."""

    def __init__(self) -> None:
        super().__init__()
        self.costs: dict[str, Decimal] = {}
        self._counting = threading.Lock()

    def answer(self, handler: BaseHTTPRequestHandler, body: bytes) -> tuple[int, bytes, dict[str, str]]:
        answered = super().answer(handler, body)
        with self._counting:
            taken, self.spans = self.spans, []
            for span in taken:
                is_call = span.observation.type in ("GENERATION", "EMBEDDING")
                if is_call or span.trace_id not in self.costs:
                    self.costs[span.trace_id] = span.observation.total_cost
        return answered


class Platform:
    """All parts of the platform."""

    def __init__(self) -> None:
        self.folder = short_folder()
        self.sink = CostSink().start()
        self.redis = RedisServer(self.folder, durable=True)
        self.engines = tuple(SimulatorProcess(self.folder, _engine_options(), f"engine-{name}") for name in "ab")
        self.redis_url = self.redis.url(0)
        self.database_url = f"sqlite+aiosqlite:///{self.folder}/quarterdeck.db"
        self.price = 0
        shared = {
            "QUARTERDECK_REDIS_URL": self.redis_url,
            "QUARTERDECK_DATABASE_URL": self.database_url,
            "QUARTERDECK_LOG_LEVEL": "WARNING",
        }
        self.gateways = tuple(self._gateway(f"gateway-{number}", shared) for number in (1, 2))
        paths = {
            "QUARTERDECK_STATE": str(self.folder / "worker-state"),
            "QUARTERDECK_CONFIG": str(self.gateways[0].config),
        }
        self.worker = WorkerProcess(self.folder, {**shared, **paths, **self.sink.environment})

    def _gateway(self, name: str, shared: dict[str, str]) -> GatewayProcess:
        folder = self.folder / name
        folder.mkdir()
        return GatewayProcess(folder, self.configuration(), shared, name)

    def configuration(self) -> str:
        endpoints = [{"url": engine.url} for engine in self.engines]
        models = [
            {"name": name, "price": PRICES[self.price], "endpoints": endpoints} for name in (MODEL, CACHED, EMBEDDING)
        ]
        cache = {"policies": {CACHED: {"exact": True}}}
        return yaml.safe_dump({"models": models, "gateway": PATIENCE, "cache": cache}, sort_keys=False)

    @property
    def parts(self) -> dict[str, ServerProcess]:
        """The parts by name, in start order."""
        engines = {f"engine-{name}": engine for name, engine in zip("ab", self.engines, strict=True)}
        gateways = {f"gateway-{number}": gateway for number, gateway in enumerate(self.gateways, 1)}
        return {"redis": self.redis, **engines, "worker": self.worker, **gateways}

    def pids(self) -> dict[int, str]:
        """pid → name of the running parts."""
        return {part.process.pid: name for name, part in self.parts.items() if part.process is not None}

    async def start(self) -> None:
        for part in self.parts.values():
            await launched(part)

    def stop(self) -> None:
        """Stop in shutdown order: gateways drain, then the worker writes their records."""
        for part in (*self.gateways, self.worker, *self.engines, self.redis):
            part.stop()
        self.sink.stop()

    def remove(self) -> None:
        """Remove the parts' folders."""
        shutil.rmtree(self.folder, ignore_errors=True)

    async def key(self, name: str, limits: Limits | None = None, budget: Budget | None = None) -> Key:
        secret = ids.api_key()
        database = Database(self.database_url)
        try:
            row = await KeyStore(database).create(secret=secret, name=name, limits=limits, budget=budget)
        finally:
            await database.close()
        return Key(row.id, secret)

    async def rows(self) -> AsyncIterator[Sequence[RequestRecord]]:
        """Yield the whole ledger, page by page."""
        database = Database(self.database_url)
        try:
            ledger, after = Ledger(database), None
            while page := await ledger.list(LedgerFilter(org=ORG), limit=PAGE, after=after):
                yield page
                after = page[-1].id
        finally:
            await database.close()

    async def left(self) -> dict[str, int]:
        """Counts of what has not reached the ledger: reservations, records in the stream and in spools."""
        spools = [self.folder / f"gateway-{number}" / "state" / "spool" for number in range(1, len(self.gateways) + 1)]
        return await left_in(self.redis_url, sum(Spool(spool).waiting() for spool in spools))


async def launched(part: ServerProcess) -> None:
    """Start a part and wait until it serves, without blocking the traffic."""
    part.launch()
    log = getattr(part, "log", None)
    await until(part.answers, seconds=60, what=log if isinstance(log, Path) else lambda: "")


def metric(part: DoorProcess, name: str, label: str) -> float:
    """A counter of `/metrics` with this label; 0 if it is missing."""
    for line in str(part.get("/metrics")[1]).splitlines():
        if line.startswith(name) and label in line:
            return float(line.rsplit(" ", 1)[1])
    return 0.0


def _engine_options() -> list[str]:
    models = ["--model", MODEL, "--more-models", CACHED, "--embedding-model", EMBEDDING]
    return [*models, "--time-to-first-token", "20ms", "--inter-token-latency", "4ms"]
