"""The servers under test, started and pinned: our gateway with its platform, and peers.

Gateways run on core 0; the mock engine, Redis, the worker, the trace sink and the drivers share core 1. `Platform` has
all features on. A peer is paused (SIGSTOP) while another server is measured, so that its idle work does not interfere.
"""

import asyncio
import contextlib
import json
import os
import signal
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parts import cpu_seconds, free_port, process, wait_for

from quarterdeck import ids
from quarterdeck.cli import redis_server
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.limits import Limits
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger, LedgerFilter
from quarterdeck.store.orgs import DEFAULT_ORG
from quarterdeck.store.usage import Usage

HERE = Path(__file__).resolve().parent
CHUNKS = 64
"""Token events in a streamed answer of the mock engine."""
PRICE_INPUT, PRICE_OUTPUT = "0.10", "0.40"
KEY_NAME = "bench"
# Limits that every request is counted against and none reaches.
LIMITS = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrent_requests": 10**6}
BUDGET = {"amount": "1000000", "period": "month"}


@dataclass(frozen=True)
class Arm:
    """A server under load. `pids` is empty if its CPU is not measured."""

    name: str
    port: int
    pids: tuple[int, ...] = ()
    key: str = "sk-bench"
    stretch: int = 1
    """Multiplier of its rounds' duration, so that a slow server finishes enough requests per round."""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/v1/chat/completions"

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Resume it for a measurement, pause it afterwards."""
        self.tell(signal.SIGCONT)
        try:
            yield
            self.rest()
        finally:
            self.tell(signal.SIGSTOP)

    def rest(self, *, seconds: float = 15) -> None:
        """Wait until it is idle: paused with streams in flight, it would stall the mock engine."""
        deadline = time.monotonic() + seconds
        while self.pids and time.monotonic() < deadline:
            before = sum(cpu_seconds(pid) for pid in self.pids)
            time.sleep(0.5)
            if sum(cpu_seconds(pid) for pid in self.pids) - before <= 0.02:
                return

    def tell(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)  # each has its own process group


@dataclass(frozen=True)
class Gateway(Arm):
    """Our gateway. Never paused, because its leases would expire."""

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        yield


@dataclass
class Platform:
    """The services of our gateways, and their records."""

    folder: Path
    engine_port: int
    database_url: str
    worker_port: int
    worker_pid: int
    sink_port: int
    redis: str
    stack: contextlib.ExitStack
    log: Path
    is_traced: bool = True
    gateways: list[Gateway] = field(default_factory=list)
    direct_requests: int = 0
    """Requests sent outside the drivers."""

    def start(self, name: str, config: dict[str, Any], *, key: str, core: int = 0) -> Gateway:
        """Start a gateway on the same Redis and database with its own configuration."""
        folder = self.folder / f"gateway-{len(self.gateways)}"
        folder.mkdir()
        (folder / "quarterdeck.yaml").write_text(json.dumps(config))  # JSON is YAML
        port = free_port()
        environ = self.environ(folder) | {"QUARTERDECK_PORT": str(port)}
        log = folder / "access.log"
        log.touch()
        argv = [sys.executable, "-m", "quarterdeck.gateway"]
        child = self.stack.enter_context(process(argv, core=core, log=log, environ=environ))
        wait_for(f"http://127.0.0.1:{port}/readyz", child, log)
        gateway = Gateway(name, port, (child.pid,), key)
        self.gateways.append(gateway)
        named = config["routes"] or config["models"]
        settle(gateway, named[0]["name"])
        self.direct_requests += 1
        return gateway

    def environ(self, folder: Path) -> dict[str, str]:
        sink = f"http://127.0.0.1:{self.sink_port}/v1/traces"
        return {
            "QUARTERDECK_STATE": str(folder),
            "QUARTERDECK_CONFIG": str(folder / "quarterdeck.yaml"),
            "QUARTERDECK_REDIS_URL": self.redis,
            "QUARTERDECK_DATABASE_URL": self.database_url,
            "QUARTERDECK_WORKER_PORT": str(self.worker_port),
            "QUARTERDECK_LOG_LEVEL": "INFO",
            **({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": sink} if self.is_traced else {}),
        }

    def worker_cpu(self) -> float:
        return cpu_seconds(self.worker_pid)

    def drain(self, *, seconds: float = 300) -> float:
        """Wait until ledger and trace sink have every record. Returns the seconds."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            text = fetch(f"http://127.0.0.1:{self.worker_port}/metrics")
            waiting = ("quarterdeck_ledger_waiting_records", "quarterdeck_traces_waiting_records")
            rows, exported = (series(text, f"quarterdeck_{n}_total") for n in ("ledger_rows", "traces_exported"))
            # Gauges are sampled only periodically; counters show when everything has arrived.
            is_over = rows >= self.recorded() and (exported >= rows or not self.is_traced)
            if is_over and not any(series(text, name) for name in waiting):
                return time.monotonic() - started
            time.sleep(0.1)
        raise RuntimeError(f"records are still pending after {seconds:.0f} s: {text[-3000:]}")

    def recorded(self) -> int:
        """Finished requests, as counted by the gateways."""
        texts = [fetch(f"http://127.0.0.1:{gateway.port}/metrics") for gateway in self.gateways]
        return int(sum(series(text, "quarterdeck_requests_total") for text in texts))

    def spans(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(fetch(f"http://127.0.0.1:{self.sink_port}/"))
        return found

    def ledger(self) -> list[Usage]:
        """Counts by status."""

        async def read() -> list[Usage]:
            database = Database(self.database_url, report_seconds=300)
            try:
                return await Ledger(database).sum(LedgerFilter(org=DEFAULT_ORG), by=["status"])
            finally:
                await database.close()

        return asyncio.run(read())

    def keys(self, count: int) -> list[str]:
        """Create keys with the name for which the configuration sets limits and a budget."""

        async def create() -> list[str]:
            database = Database(self.database_url)
            secrets = [ids.api_key() for _ in range(count)]
            try:
                await database.migrate()
                store = KeyStore(database)
                for secret in secrets:
                    await store.create(secret=secret, name=KEY_NAME, limits=Limits(**LIMITS))
            finally:
                await database.close()
            return secrets

        return asyncio.run(create())


def settle(gateway: Gateway, name: str, *, seconds: float = 30) -> None:
    """Retry until answered: a new key returns 503 until its spending has been read from the ledger."""
    body = json.dumps({"model": name, "messages": [{"role": "user", "content": f"Is {gateway.port} there?"}]}).encode()
    headers = {"content-type": "application/json", "authorization": f"Bearer {gateway.key}"}
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(gateway.url, body, headers), timeout=30).close()
            return
        except urllib.error.HTTPError as error:
            if error.code != 503 or time.monotonic() > deadline:
                raise RuntimeError(f"{gateway.name} answered {error.code}: {error.read()[:500]!r}") from error
        time.sleep(0.1)


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as answer:
        text: str = answer.read().decode()
        return text


def error_counters(arm: Arm) -> str:
    """Request and error counters of our gateway, for error messages."""
    if not isinstance(arm, Gateway):
        return ""
    names = (
        "quarterdeck_errors_total",
        "quarterdeck_requests_total",
        "quarterdeck_http_requests_total",
        "quarterdeck_auth",
    )
    found = [line for line in fetch(f"{arm.origin}/metrics").splitlines() if line.startswith(names)]
    return "\n".join(["", *found[:20]])


def series(text: str, name: str) -> float:
    """The sum of a metric over its labels."""
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith((name + " ", name + "{")))


def config(models: Sequence[dict[str, Any]], *, routes: Sequence[dict[str, Any]] = (), **more: Any) -> dict[str, Any]:
    """All features on: limits and a budget on the key, and an exact cache look-up per request."""
    return {
        "models": list(models),
        "routes": list(routes),
        "keys": {KEY_NAME: {"limits": LIMITS, "budget": BUDGET}},
        # Redis may be slow on a core filled by drivers; a gateway that gives up on it would reject budgets.
        "gateway": {"redis_timeout_seconds": 5},
        "cache": {"default": {"exact": True, "temperature": "any", "ttl_seconds": 60}},
        **more,
    }


def model(name: str, urls: Sequence[str], **more: Any) -> dict[str, Any]:
    endpoints = [{"url": url, "model": "mock", "max_running": 4096} for url in urls]
    return {"name": name, "price": {"input": PRICE_INPUT, "output": PRICE_OUTPUT}, "endpoints": endpoints, **more}


@contextlib.contextmanager
def mock_engine(program: Path, log: Path, *, interval_us: int = 0, chunks: int = CHUNKS) -> Iterator[Arm]:
    port = free_port()
    argv: list[str | Path] = [program, str(port), str(chunks), str(interval_us), "mock", "0.0.0.0"]  # noqa: S104  # all of 127/8
    with process(argv, core=1, log=log) as child:
        wait_for(f"http://127.0.0.1:{port}/health", child, log)
        yield Arm("mock alone", port, ())


@contextlib.contextmanager
def platform(folder: Path, engine_port: int, *, is_traced: bool = True, **more: Any) -> Iterator[Platform]:
    """Redis (with an append-only file, as `up` starts it), the worker and a trace sink. Start gateways with `start`.
    `more`: members of the worker's quarterdeck.yaml."""
    with contextlib.ExitStack() as stack:
        log = folder / "platform.log"
        log.touch()
        server = redis_server.ensure(Environment.read().cache).path
        stack.enter_context(process(redis_server.arguments(server, folder), core=1, log=log))
        sink_port, worker_port = free_port(), free_port()
        sink = stack.enter_context(process([sys.executable, HERE / "sink.py", str(sink_port)], core=1, log=log))
        wait_for(f"http://127.0.0.1:{sink_port}/", sink, log)
        made = Platform(
            folder=folder,
            engine_port=engine_port,
            database_url=f"sqlite+aiosqlite:///{folder}/quarterdeck.db",
            worker_port=worker_port,
            worker_pid=0,
            sink_port=sink_port,
            redis=f"unix://{folder}/redis.sock",
            stack=stack,
            log=log,
            is_traced=is_traced,
        )
        state = folder / "worker"
        state.mkdir()
        url = f"http://127.0.0.1:{engine_port}"
        (state / "quarterdeck.yaml").write_text(json.dumps(config([model("mock", [url])], **more)))
        made.keys(0)  # creates the tables
        argv = [sys.executable, "-m", "quarterdeck.worker"]
        worker = stack.enter_context(process(argv, core=1, log=log, environ=made.environ(state)))
        wait_for(f"http://127.0.0.1:{worker_port}/metrics", worker, log)
        made.worker_pid = worker.pid
        yield made


@contextlib.contextmanager
def vllm_router(peers: Path, engine_port: int, log: Path) -> Iterator[Arm]:
    """vllm-router without features: no key, no limits, no tokenizer, round robin over one engine."""
    port = free_port()
    argv: list[str | Path] = [peers / "vllm-router", "--worker-urls", f"http://127.0.0.1:{engine_port}"]
    argv += ["--policy", "round_robin", "--host", "127.0.0.1", "--port", str(port), "--log-level", "warning"]
    argv += ["--prometheus-port", str(free_port())]
    with process(argv, core=0, log=log) as child:
        wait_for(f"http://127.0.0.1:{port}/health", child, log)
        with _continued(Arm("vllm-router", port, (child.pid,))) as arm:
            yield arm


@contextlib.contextmanager
def litellm(peers: Path, engine_port: int, folder: Path, log: Path) -> Iterator[Arm]:
    """LiteLLM's proxy: a master key, one model, no database, no request logging."""
    port, settings = free_port(), folder / "litellm.yaml"
    target = {"model": "openai/mock", "api_base": f"http://127.0.0.1:{engine_port}/v1", "api_key": "none"}
    settings.write_text(
        json.dumps(
            {
                "model_list": [{"model_name": "mock", "litellm_params": target}],
                "general_settings": {"master_key": "sk-bench"},
                "litellm_settings": {"set_verbose": False, "telemetry": False},
            }
        )
    )
    environ = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "NO_DOCS": "True"}
    argv: list[str | Path] = [
        peers / "litellm",
        "--config",
        settings,
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--num_workers",
        "1",
    ]
    with process(argv, core=0, log=log, environ=environ) as child:
        wait_for(f"http://127.0.0.1:{port}/health/liveliness", child, log, seconds=180)
        with _continued(Arm("LiteLLM", port, (child.pid,), stretch=3)) as arm:
            yield arm


@contextlib.contextmanager
def _continued(arm: Arm) -> Iterator[Arm]:
    """Resume a paused process, which otherwise would not handle SIGTERM."""
    try:
        yield arm
    finally:
        arm.tell(signal.SIGCONT)
