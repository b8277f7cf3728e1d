"""The platform as processes that a test can kill, pause and restart, with timeouts ten times shorter.

Two simulated engines, `a` and `b`, serve the models: those named `…-one` only `a`, those named `…-two` both. A third,
`c`, is known only from the engine's endpoint list, like a replica of Ray Serve.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.faults.client import Shape
from tests.faults.engine_list import FakeEngineList
from tests.platform import DoorProcess, GatewayProcess, SimulatorProcess
from tests.servers import RedisServer, ServerProcess

from quarterdeck import ids
from quarterdeck.accounting import redis_keys
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.processes import descendants
from quarterdeck.record import RequestRecord, decode
from quarterdeck.settings.limits import Budget, Limits
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.store.spool import Spool

ORG = "default"
PRICE = {"input": "3", "cached_input": "0.3", "output": "15"}
TIMEOUTS: dict[str, Any] = {
    "connect_timeout_seconds": 1,
    "first_token_timeout_seconds": 2,
    "whole_answer_timeout_seconds": 2,
    "idle_timeout_seconds": 1.5,
    "total_timeout_seconds": 60,
    "client_body_timeout_seconds": 3,
    "client_write_timeout_seconds": 2,
    "drain_seconds": 10,
    "reservation_lease_seconds": 2,
}
SHAPES = (
    Shape("chat"),
    Shape("chat", stream=True, asks_usage=True),
    Shape("completions"),
    Shape("completions", stream=True),
    Shape("embeddings"),
)
KEPT = "kept-two"
"""A cached model."""
FIXED = "fixed-two"
"""A model for answers that can't be resumed elsewhere."""
GENERATING = ["mixed-one", "polled", KEPT, FIXED] + [
    f"{shape.name}-{count}" for shape in SHAPES if shape.operation != "embeddings" for count in ("one", "two")
]
EMBEDDING = ["embed-two", "embed-one", "embeddings-plain-one", "embeddings-plain-two"]
LATENCIES = ["--time-to-first-token", "20ms", "--inter-token-latency", "4ms"]


def engine(folder: Path, name: str) -> SimulatorProcess:
    models = ["--model", "mixed-two", "--more-models", *GENERATING, "--embedding-model", *EMBEDDING]
    return SimulatorProcess(folder, [*models, *LATENCIES], name)


def replica(folder: Path) -> SimulatorProcess:
    """Engine `c`, which drains slowly."""
    return SimulatorProcess(folder, ["--model", "polled", *LATENCIES, "--drain-delay", "5s"], "c")


def mixed(shape: Shape) -> str:
    """The model of a mixed load that both engines serve."""
    return "embed-two" if shape.operation == "embeddings" else "mixed-two"


def mixed_one(shape: Shape) -> str:
    """The model of a mixed load that only engine `a` serves."""
    return mixed(shape).replace("-two", "-one")


class WorkerProcess(DoorProcess):
    def __init__(self, folder: Path, environ: Mapping[str, str], name: str = "worker") -> None:
        super().__init__(folder, name, "/readyz")
        self._environ = {**environ, "QUARTERDECK_WORKER_PORT": str(self.port)}

    def command(self) -> list[str]:
        words = [f"{name}={value}" for name, value in self._environ.items()]
        return ["env", "-u", "QUARTERDECK_HOST", *words, sys.executable, "-m", "quarterdeck.worker"]


@dataclass(frozen=True, slots=True)
class Key:
    id: str
    secret: str


class Stack:
    """The parts of the platform. `whole` repairs them after the previous test."""

    def __init__(
        self,
        folder: Path,
        redis: RedisServer,
        engines: Mapping[str, SimulatorProcess],
        door: FakeEngineList,
        database_url: str,
        *,
        index: int = 0,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        """`index` is the Redis database to use."""
        self.folder = folder
        self.redis, self.door, self.database_url = redis, door, database_url
        self.a, self.b, self.c = (engines[name] for name in "abc")
        self.redis_url = redis.url(index)
        self._generation = 0
        shared = {
            "QUARTERDECK_ENGINE_URL": door.url,
            "QUARTERDECK_REDIS_URL": self.redis_url,
            "QUARTERDECK_DATABASE_URL": database_url,
            "QUARTERDECK_LOG_LEVEL": "INFO",
        }
        self._shared = shared
        self.gateway = GatewayProcess(folder, self.configuration(), shared)
        own = {
            "QUARTERDECK_STATE": str(folder / "state"),
            "QUARTERDECK_CONFIG": str(self.gateway.config),
            "QUARTERDECK_GATEWAY_URL": self.gateway.url,
        }
        self.worker = WorkerProcess(folder, {**shared, **own, **(environ or {})})

    def configuration(self, **gateway: Any) -> str:
        """The quarterdeck.yaml, with the test's gateway settings."""
        models = []
        for name in ("mixed-two", *GENERATING, *EMBEDDING):
            urls = [self.a.url] if name.endswith("-one") else [self.a.url, self.b.url]
            if name == "polled":
                urls = [self.b.url]
            endpoints = [{"url": url, "headers": {"x-generation": str(self._generation)}} for url in urls]
            models.append({"name": name, "price": PRICE, "endpoints": endpoints})
        kept = {"policies": {KEPT: {"temperature": "any"}}}
        return yaml.safe_dump({"models": models, "cache": kept, "gateway": TIMEOUTS | gateway}, sort_keys=False)

    @property
    def parts(self) -> tuple[ServerProcess, ...]:
        return (self.redis, self.a, self.b, self.c, self.worker, self.gateway)

    def another_gateway(self, name: str) -> GatewayProcess:
        """A gateway of the same platform, with a state folder of its own. Not started."""
        folder = self.folder / name
        folder.mkdir()
        return GatewayProcess(folder, self.gateway.config.read_text(), self._shared, name)

    # start, stop

    async def whole(self) -> None:
        """Start every part, restore the configuration, and clear faults."""
        self.door.start()
        for part in self.parts:
            if part.process is not None and part.process.poll() is None:
                part.resume()
            else:
                part.process = None
                part.launch()
        for part in self.parts:
            await until(part.answers, what=part.log)
        self._generation += 1  # new headers make new endpoints, without failures from the previous test
        await self.configure(self.configuration())
        async with httpx.AsyncClient() as client:
            for simulator in (self.a, self.b):
                await client.delete(simulator.url + "/admin/faults")
                await client.post(simulator.url + "/admin/config", json={"failure-injection-rate": 0})
        await until(self._answers_whole, what=self.gateway.log)

    def stop(self) -> None:
        for part in (self.gateway, self.worker):
            part.stop()

    async def start(self, part: ServerProcess) -> None:
        """Start a stopped part without blocking the traffic."""
        part.launch()
        await until(part.answers, what=part.log)

    async def ended(self, part: ServerProcess, seconds: float = 20.0) -> int:
        """Wait until it exits by itself. Returns its exit status."""
        process = part.process
        assert process is not None
        await until(lambda: process.poll() is not None, seconds=seconds, what=part.log)
        part.process = None
        assert process.returncode is not None
        return process.returncode

    async def configure(self, text: str, *, outcome: str = "applied") -> None:
        """Write the configuration, and wait until the gateway has read it."""
        before = self.metric("quarterdeck_config_reloads_total", outcome=outcome)
        written = self.gateway.config.with_suffix(".new")
        written.write_text(text)
        written.rename(self.gateway.config)
        signal_to(self.gateway, signal.SIGHUP)
        await until(lambda: self.metric("quarterdeck_config_reloads_total", outcome=outcome) > before)

    def _answers_whole(self) -> bool:
        """Whether the gateway is ready; an ejected endpoint may be missing."""
        report = self.ready()
        return report["status"] in ("ready", "degraded") and set(report["parts"].values()) == {"ready"}

    # ask

    def ready(self) -> dict[str, Any]:
        """The response of `/readyz`."""
        body = self.gateway.get("/readyz")[1]
        assert isinstance(body, dict)
        return body

    def under_way(self) -> float:
        """Requests in flight in the gateway."""
        return self.metric("quarterdeck_requests_in_flight")

    async def fault(self, simulator: SimulatorProcess, fault: str, count: int = 1) -> None:
        """Inject a fault into an engine's next requests."""
        async with httpx.AsyncClient() as client:
            told = await client.post(simulator.url + "/admin/faults", json={"fault": fault, "count": count})
            told.raise_for_status()

    def metric(self, name: str, part: DoorProcess | None = None, **labels: str) -> float:
        """A metric of `/metrics`; 0 if it is missing."""
        text = (part or self.gateway).get("/metrics")[1]
        wanted = [f'{label}="{value}"' for label, value in labels.items()]
        for line in text.splitlines():
            if line.partition("{")[0].partition(" ")[0] == name and all(label in line for label in wanted):
                return float(line.rsplit(" ", 1)[1])
        return 0.0

    async def key(
        self, name: str, limits: Limits | None = None, *, budget: Budget | None = None, is_admin: bool = False
    ) -> Key:
        """Create a key, whose ledger rows belong to this test."""
        secret = ids.api_key()
        database = Database(self.database_url)
        try:
            keys = KeyStore(database)
            row = await keys.create(secret=secret, name=name, limits=limits, budget=budget, is_admin=is_admin)
        finally:
            await database.close()
        return Key(row.id, secret)

    async def revoke(self, key: Key) -> None:
        """Revoke a key as another gateway does: in the database, then announced through Redis."""
        database = Database(self.database_url)
        try:
            await KeyStore(database).revoke(key.id)
        finally:
            await database.close()
        await self.bump_revision()

    async def bump_revision(self) -> None:
        """Announce a change of the organisation's keys."""
        redis = Redis(self.redis_url)
        try:
            await redis.call("INCR", redis_keys.revision_key(ORG))
        finally:
            await redis.close()

    def client(self, key: Key) -> httpx.AsyncClient:
        headers = {"authorization": f"Bearer {key.secret}"}
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=20)
        return httpx.AsyncClient(base_url=self.gateway.url, headers=headers, limits=limits)

    async def rows(self, key: Key) -> list[RequestRecord]:
        """The key's ledger rows."""
        database = Database(self.database_url)
        try:
            ledger, found = Ledger(database), list[RequestRecord]()
            while True:
                after = found[-1].id if found else None
                page = await ledger.list(LedgerFilter(org=ORG, key=key.id), limit=1000, after=after)
                found += page
                if len(page) < 1000:
                    return found
        finally:
            await database.close()

    async def all_settled(self, *, seconds: float = 20.0) -> None:
        """Wait until there are no reservations and no records outside the ledger."""
        left: dict[str, int] = {}

        async def is_nothing_left() -> bool:
            left.clear()
            left.update(await self.left())
            return not any(left.values())

        await until(is_nothing_left, seconds=seconds, what=lambda: f"left: {left}")

    async def left(self) -> dict[str, int]:
        """Counts of reservations, and of records in stream and spool, that have not reached the ledger."""
        return await left_in(self.redis_url, self.spooled())

    async def lose_redis(self) -> set[str]:
        """Kill Redis and remove its files. Returns the tags of the records that it held, which may be lost."""
        redis = Redis(self.redis_url)
        try:
            await redis.call("CLIENT", "PAUSE", "60000", "WRITE")  # so that none comes after they were read
            entries = await redis.call("XRANGE", redis_keys.stream_key(ORG), "-", "+")
        finally:
            await redis.close()
        self.redis.kill()
        self.forget_redis()
        return {decode(fields[1]).user or "" for _, fields in entries}

    def forget_redis(self) -> None:
        """Remove the files of a stopped Redis, so that it starts empty."""
        assert self.redis.process is None
        for path in self.redis.folder.glob("appendonly*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def spooled(self) -> int:
        """Records in the gateway's spool."""
        return Spool(self.folder / "state" / "spool").waiting()


def signal_to(part: ServerProcess, number: signal.Signals, *, children: bool = False) -> None:
    """Send a signal to the process, and with `children` to its descendants: PostgreSQL has one per connection."""
    assert part.process is not None
    part.process.send_signal(number)
    for child in descendants(part.process.pid) if children else ():
        with contextlib.suppress(ProcessLookupError):  # it has just exited
            os.kill(child.pid, number)


def resident_mib(part: ServerProcess) -> float:
    """Resident memory in MiB."""
    assert part.process is not None
    status = Path(f"/proc/{part.process.pid}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


async def until(
    condition: Callable[[], bool] | Callable[[], Awaitable[bool]],
    *,
    seconds: float = 30.0,
    what: Path | Callable[[], str] = lambda: "",
) -> None:
    """Poll a condition in another process without blocking other tasks."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    while True:
        if asyncio.iscoroutinefunction(condition):
            is_so = await condition()
        else:
            is_so = await asyncio.to_thread(condition)  # it may block on a paused part
        if is_so:
            return
        if loop.time() > deadline:
            told = _tail(what) if isinstance(what, Path) else what()
            raise TimeoutError(f"not so after {seconds} s: {told}")
        await asyncio.sleep(0.02)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


async def left_in(redis_url: str, spooled: int) -> dict[str, int]:
    """Counts of pending data in Redis, with the given `spooled` count."""
    redis = Redis(redis_url)
    try:
        return {
            "reservations": await redis.call("HLEN", redis_keys.reservations_key(ORG)),
            "deadlines": await redis.call("ZCARD", redis_keys.deadlines_key(ORG)),
            "stream": await redis.call("XLEN", redis_keys.stream_key(ORG)),
            "spool": spooled,
        }
    except (RedisUnavailableError, RedisError) as error:
        return {f"Redis does not answer ({error})": 1}
    finally:
        await redis.close()
