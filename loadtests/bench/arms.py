"""What is measured, up and pinned: our gateway with all that belongs to it, and the peers.

Gateways are on core 0. The mock engine, Redis, the worker, the trace sink and every driver share core 1. `Platform` is
ours with everything on; a peer is paused (SIGSTOP) while another is measured, so that its idle work is nobody's noise.
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
from quarterdeck.settings.limits import Limits
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.ledger import Ledger, LedgerFilter, Usage
from quarterdeck.store.orgs import DEFAULT_ORG

HERE = Path(__file__).resolve().parent
CHUNKS = 64
"""Events with a token in a streamed answer of the mock engine."""
PRICE_INPUT, PRICE_OUTPUT = "0.10", "0.40"
KEY_NAME = "bench"
# Limits that are counted for every request and met by none.
LIMITS = {"requests_per_minute": 10**9, "tokens_per_minute": 10**12, "concurrent_requests": 10**6}
BUDGET = {"amount": "1000000", "period": "month"}


@dataclass(frozen=True)
class Arm:
    """A server that is driven. `pids` is empty where its cost is not looked at."""

    name: str
    port: int
    pids: tuple[int, ...] = ()
    key: str = "sk-bench"
    stretch: int = 1
    """Its rounds are so many times as long: a slow one must finish more than a handful of requests in each."""

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.origin}/v1/chat/completions"

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        """Run while it is measured, stand still otherwise."""
        self.tell(signal.SIGCONT)
        try:
            yield
            self.rest()
        finally:
            self.tell(signal.SIGSTOP)

    def rest(self, *, seconds: float = 15) -> None:
        """Until it has nothing to do: one that is paused with streams under way would hold up the mock engine."""
        deadline = time.monotonic() + seconds
        while self.pids and time.monotonic() < deadline:
            before = sum(cpu_seconds(pid) for pid in self.pids)
            time.sleep(0.5)
            if sum(cpu_seconds(pid) for pid in self.pids) - before <= 0.02:
                return

    def tell(self, number: signal.Signals) -> None:
        for pid in self.pids:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, number)  # each was started in a group of its own


@dataclass(frozen=True)
class Gateway(Arm):
    """One of ours. It is never paused: its leases would run out."""

    @contextlib.contextmanager
    def awake(self) -> Iterator[None]:
        yield


@dataclass
class Platform:
    """Everything that our gateways need, and what they left behind."""

    folder: Path
    engine_port: int
    database_url: str
    worker_port: int
    worker_pid: int
    sink_port: int
    redis: str
    stack: contextlib.ExitStack
    log: Path
    gateways: list[Gateway] = field(default_factory=list)
    asked: int = 0
    """Answers of our own, before any driver's."""

    def start(self, name: str, config: dict[str, Any], *, key: str, core: int = 0) -> Gateway:
        """Another gateway on the same Redis and database, with a configuration of its own."""
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
        self.asked += 1
        return gateway

    def environ(self, folder: Path) -> dict[str, str]:
        return {
            "QUARTERDECK_STATE": str(folder),
            "QUARTERDECK_CONFIG": str(folder / "quarterdeck.yaml"),
            "QUARTERDECK_REDIS_URL": self.redis,
            "QUARTERDECK_DATABASE_URL": self.database_url,
            "QUARTERDECK_WORKER_PORT": str(self.worker_port),
            "QUARTERDECK_LOG_LEVEL": "INFO",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"http://127.0.0.1:{self.sink_port}/v1/traces",
        }

    def worker_cpu(self) -> float:
        return cpu_seconds(self.worker_pid)

    def drain(self, *, seconds: float = 300) -> float:
        """Until ledger and trace sink have every record. Returns how long that took."""
        started = time.monotonic()
        while time.monotonic() - started < seconds:
            text = fetch(f"http://127.0.0.1:{self.worker_port}/metrics")
            waiting = ("quarterdeck_ledger_waiting_records", "quarterdeck_traces_waiting_records")
            rows, exported = (series(text, f"quarterdeck_{n}_total") for n in ("ledger_rows", "traces_exported"))
            # The gauges are read now and then: what was counted says when all of it has come.
            is_over = rows >= self.recorded() and exported >= rows
            if is_over and not any(series(text, name) for name in waiting):
                return time.monotonic() - started
            time.sleep(0.1)
        raise RuntimeError(f"records are still under way after {seconds:.0f} s: {text[-3000:]}")

    def recorded(self) -> int:
        """Requests that the gateways have finished, by their own count."""
        texts = [fetch(f"http://127.0.0.1:{gateway.port}/metrics") for gateway in self.gateways]
        return int(sum(series(text, "quarterdeck_requests_total") for text in texts))

    def spans(self) -> dict[str, int]:
        found: dict[str, int] = json.loads(fetch(f"http://127.0.0.1:{self.sink_port}/"))
        return found

    def ledger(self) -> list[Usage]:
        """By status."""

        async def read() -> list[Usage]:
            database = Database(self.database_url)
            try:
                return await Ledger(database).sum(LedgerFilter(org=DEFAULT_ORG), by=["status"], timeout=300)
            finally:
                await database.close()

        return asyncio.run(read())

    def keys(self, count: int) -> list[str]:
        """So many new keys, of the name that the configuration gives limits and a budget."""

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
    """Ask until there is an answer: a new key is 503 until what was spent of its budget was read from the ledger."""
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


def told(arm: Arm) -> str:
    """What a gateway of ours says it has answered since it began, for whoever reads of errors."""
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
    """The sum of a metric's samples, over all its labels."""
    return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith((name + " ", name + "{")))


def config(models: Sequence[dict[str, Any]], *, routes: Sequence[dict[str, Any]] = (), **more: Any) -> dict[str, Any]:
    """Everything on: limits and a budget on the key, the exact cache looked into for every request."""
    return {
        "models": list(models),
        "routes": list(routes),
        "keys": {KEY_NAME: {"limits": LIMITS, "budget": BUDGET}},
        # On a core that drivers fill, Redis may be late; a gateway that calls it dead refuses budgets: no figure.
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
def platform(folder: Path, engine_port: int) -> Iterator[Platform]:
    """Redis (with its append-only file, as `up` starts it), the worker, a trace sink; gateways are `start`ed."""
    with contextlib.ExitStack() as stack:
        log = folder / "platform.log"
        log.touch()
        server = redis_server.find(redis_server.wheel_binary()).path
        words = f"--unixsocket {folder}/redis.sock --port 0 --appendonly yes --dir {folder} --save"
        stack.enter_context(process([server, *words.split(), ""], core=1, log=log))
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
        )
        state = folder / "worker"
        state.mkdir()
        url = f"http://127.0.0.1:{engine_port}"
        (state / "quarterdeck.yaml").write_text(json.dumps(config([model("mock", [url])])))
        made.keys(0)  # the tables
        argv = [sys.executable, "-m", "quarterdeck.worker"]
        worker = stack.enter_context(process(argv, core=1, log=log, environ=made.environ(state)))
        wait_for(f"http://127.0.0.1:{worker_port}/metrics", worker, log)
        made.worker_pid = worker.pid
        yield made


@contextlib.contextmanager
def vllm_router(peers: Path, engine_port: int, log: Path) -> Iterator[Arm]:
    """With nothing on: no key, no limits, no tokenizer, round robin over one engine."""
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
    """Its proxy: a master key, one model, no database, no logging of requests."""
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
    """A paused process would not hear that it should end."""
    try:
        yield arm
    finally:
        arm.tell(signal.SIGCONT)
