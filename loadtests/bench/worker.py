"""CPU time of the worker for a record: `python -m loadtests.bench.worker` (`make bench-worker`).

A stream is filled with records of an ordinary streamed chat; then real worker processes drain it, into SQLite or
PostgreSQL, with a trace sink or without. What is measured is the CPU time of the workers (user and system), and that
of Redis, until every record is in the ledger and every trace with the sink. Wall time is shown and decides nothing:
the servers share the cores. Arms alternate, and the median of the rounds counts.

With `--rate N` the records arrive while the worker runs, N a second: what it costs at that load, where its batches are
small, waits and start included.

`--against FOLDER` runs the worker of another checkout in the same rounds, for a comparison.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import asyncpg
from tests.records import a_record
from tests.servers import PostgresServer, RedisServer, short_folder

from quarterdeck import ids
from quarterdeck.net.redis import Redis
from quarterdeck.processes import die_with_parent
from quarterdeck.record import Attempt, RequestRecord, encode

CHECKOUT = Path(__file__).resolve().parents[2]
STREAM = "ledger:{default}"
TICKS = os.sysconf("SC_CLK_TCK")
PER_WRITE = 500
DATABASES = ("sqlite", "postgres")
WORKER = """
import sys
from quarterdeck.worker import __main__ as worker
worker._yield_the_processor = lambda: None  # at idle priority a busy machine would stretch the bench
sys.argv = ["quarterdeck.worker"]
sys.exit(worker.main())
"""


@dataclass(frozen=True)
class Arm:
    name: str
    database: str
    has_sink: bool
    workers: int
    source: Path


@dataclass
class Found:
    """Microseconds of CPU for a record."""

    worker: float
    redis: float
    database: float
    seconds: float


def records(count: int) -> Iterator[RequestRecord]:
    """As the gateway makes them for a streamed chat: one attempt, no retry."""
    new_id = ids.RequestIds().next
    for number in range(count):
        started = 1_800_000_000 + number / 1000
        attempt = Attempt("smollm2#1", started + 0.0021, started + 1.75, 200)
        yield a_record(
            id=new_id(),
            started=started,
            admitted=started + 0.002,
            first_token=started + 0.5,
            ended=started + 1.75,
            response_id=f"chatcmpl-{new_id()}",
            user=f"user-{number % 500}",
            session=f"session-{number % 900}",
            attempts=(attempt,),
            resumed=0,
            route="",
            seed=None,
            priority=0,
            tags=("team-a",),
        )


async def fill(url: str, entries: Sequence[bytes]) -> None:
    redis = Redis(url)
    await redis.call("FLUSHALL")
    for at in range(0, len(entries), PER_WRITE):
        await asyncio.gather(*[redis.call("XADD", STREAM, "*", "record", e) for e in entries[at : at + PER_WRITE]])
    await redis.close()


async def feed(url: str, entries: Sequence[bytes], rate: int) -> None:
    """Append `rate` entries a second, in turns of 10 ms."""
    redis = Redis(url)
    begun, sent = time.monotonic(), 0
    while sent < len(entries):
        due = min(len(entries), int((time.monotonic() - begun) * rate))
        for entry in entries[sent:due]:
            await redis.call("XADD", STREAM, "*", "record", entry)
        sent = max(sent, due)
        await asyncio.sleep(0.01)
    await redis.close()


async def waiting(url: str) -> int:
    redis = Redis(url)
    entries = await redis.call("XLEN", STREAM)
    await redis.close()
    return int(entries)


def cpu(pid: int) -> float:
    """Seconds of CPU of a process and of its threads so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def cpu_of_tree(pid: int) -> float:
    """Including its living children, such as PostgreSQL's backends, and those that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    ended = (int(fields[13]) + int(fields[14])) / TICKS
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return cpu(pid) + ended + sum(cpu_of_tree(int(child)) for child in children)


class Sink:
    """The counting trace backend, a process of its own."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._process = subprocess.Popen(
            [sys.executable, str(CHECKOUT / "loadtests/bench/sink.py"), str(port)], preexec_fn=die_with_parent
        )

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}/v1/traces"

    def traces(self) -> int:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{self._port}/") as answer:
            return int(json.load(answer)["traces"])
        return 0

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


class Servers:
    def __init__(self, needs_postgres: bool) -> None:
        self._folders = [short_folder()]
        self.redis = RedisServer(self._folders[0])
        self.redis.start()
        self.postgres: PostgresServer | None = None
        if needs_postgres:
            folder, data = short_folder(), short_folder(in_memory=True)
            self._folders += [folder, data]
            self.postgres = PostgresServer(folder, data)
            self.postgres.start()

    def stop(self) -> None:
        self.redis.stop()
        if self.postgres is not None:
            self.postgres.stop()
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)


def run(
    arm: Arm, servers: Servers, entries: Sequence[bytes], port: int, wrap: Sequence[str] = (), rate: int = 0
) -> Found:
    url = servers.redis.url()
    state = short_folder(in_memory=True)
    database = f"sqlite+aiosqlite:///{state}/quarterdeck.db"
    if arm.database == "postgres":
        assert servers.postgres is not None
        database = asyncio.run(_new_database(servers.postgres))
    sink = Sink(port) if arm.has_sink else None
    asyncio.run(fill(url, entries if not rate else entries[:1]))
    assert servers.redis.process is not None
    redis_pid = servers.redis.process.pid
    redis_before = cpu(redis_pid)
    postgres = servers.postgres.process.pid if servers.postgres and servers.postgres.process else None
    database_before = cpu_of_tree(postgres) if postgres else 0.0
    environ = os.environ | {
        "PYTHONPATH": str(arm.source / "src"),
        "QUARTERDECK_STATE": str(state),
        "QUARTERDECK_REDIS_URL": url,
        "QUARTERDECK_DATABASE_URL": database,
        "QUARTERDECK_WORKER_PORT": "0",
        "QUARTERDECK_LOG_LEVEL": "WARNING",
    }
    if sink is not None:
        environ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"] = sink.endpoint
    began = time.monotonic()
    command = [*wrap, sys.executable, "-c", WORKER]
    workers = [
        subprocess.Popen(command, env=environ, cwd=arm.source, preexec_fn=die_with_parent) for _ in range(arm.workers)
    ]
    try:
        # CPU of starting (imports, migration) is no record's: subtract what the process had used at the first row.
        started: list[float] | None = None
        first, is_fed = 0, not rate
        while True:
            if rate and started is not None and not is_fed:
                asyncio.run(feed(url, entries[1:], rate))
                is_fed = True
            left = asyncio.run(waiting(url))
            if rate and started is None and left == 0:
                time.sleep(3)  # until the worker has started whole
                started, first, redis_before = [cpu(worker.pid) for worker in workers], 1, cpu(redis_pid)
                continue
            if not rate and started is None and left < len(entries):
                started = [cpu(worker.pid) for worker in workers]
                first = len(entries) - left
            if is_fed and left == 0 and (sink is None or sink.traces() >= len(entries)):
                break
            if any(worker.poll() is not None for worker in workers):
                raise RuntimeError(f"{arm.name}: a worker ended")
            time.sleep(0.02 if started is None else 0.2)
        ended = [cpu(worker.pid) for worker in workers]
        seconds = time.monotonic() - began
        redis_after = cpu(redis_pid)
        database_after = cpu_of_tree(postgres) if postgres else 0.0
    finally:
        for worker in workers:
            worker.terminate()
        for worker in workers:
            worker.wait()
        if sink is not None:
            sink.stop()
        shutil.rmtree(state, ignore_errors=True)
    assert started is not None
    count = len(entries) - first
    return Found(
        sum(ended) * 1e6 / count - sum(started) * 1e6 / count,
        (redis_after - redis_before) * 1e6 / len(entries),
        (database_after - database_before) * 1e6 / len(entries),
        seconds,
    )


async def _new_database(server: PostgresServer) -> str:
    name = f"bench_{time.monotonic_ns()}"
    connection = await asyncpg.connect(server.dsn())
    await connection.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    await connection.close()
    return server.url(name)


def make_arms(
    databases: Sequence[str], workers: Sequence[int], sources: dict[str, Path], sinks: Sequence[bool]
) -> list[Arm]:
    return [
        Arm(
            f"{source}{database}, {count} worker{'s' * (count > 1)}{', traces' if has_sink else ''}",
            database,
            has_sink,
            count,
            folder,
        )
        for database in databases
        for count in workers
        for has_sink in sinks
        for source, folder in sources.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1])
    parser.add_argument("--databases", nargs="+", choices=DATABASES, default=DATABASES)
    parser.add_argument("--traces", choices=("on", "off", "both"), default="both")
    parser.add_argument("--against", type=Path, help="another checkout, whose worker runs in the same rounds")
    parser.add_argument("--port", type=int, default=14318, help="of the trace sink")
    parser.add_argument("--rate", type=int, default=0, help="records a second; 0: all are there at the start")
    parser.add_argument("--wrap", default="", help="a command before the worker's, such as a profiler's")
    options = parser.parse_args()
    sources = {"": CHECKOUT} | ({"before: ": options.against.resolve()} if options.against else {})
    sinks = {"on": [True], "off": [False], "both": [False, True]}[options.traces]
    chosen = make_arms(options.databases, options.workers, sources, sinks)
    entries = [encode(record) for record in records(options.records)]
    servers = Servers(any(arm.database == "postgres" for arm in chosen))
    found: dict[str, list[Found]] = {arm.name: [] for arm in chosen}
    try:
        for number in range(options.rounds):
            for arm in (*chosen[number % len(chosen) :], *chosen[: number % len(chosen)]):
                found[arm.name].append(run(arm, servers, entries, options.port, options.wrap.split(), options.rate))
                last = found[arm.name][-1]
                print(f"round {number + 1} {arm.name}: {last.worker:.1f} µs a record", file=sys.stderr, flush=True)
    finally:
        servers.stop()
    print(f"CPU time in ms for 1,000 records, median of {options.rounds} rounds of {options.records:,} records\n")
    print("| arm | worker | Redis | PostgreSQL | records/s |\n|---|--:|--:|--:|--:|")
    for name, each in found.items():
        worker, redis, database = (
            statistics.median(getattr(f, p) for f in each) for p in ("worker", "redis", "database")
        )
        rate = options.records / statistics.median(f.seconds for f in each)
        print(f"| {name} | {worker:.1f} | {redis:.1f} | {database:.1f} | {rate:,.0f} |")


if __name__ == "__main__":
    main()
