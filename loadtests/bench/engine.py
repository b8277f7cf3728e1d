"""Compares tokens per second and time to first token of the platform with those of a bare vLLM server.

    python loadtests/bench/engine.py [--rounds 3] [--unpinned]

Both serve the packaged SmolLM2-135M-Instruct with the same arguments and run throughout. Each round drives 1, 8 and 32
streams of 64 tokens (`ignore_eos`) against both, in alternating order. vLLM's threads run on core 0 in both cases,
everything else (scheduler, servers, gateway, worker, Redis, this driver) on core 1; `--unpinned` leaves it to the
kernel. Requires `make setup`.
"""

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from parts import free_port, machine, process, rss_mb, wait_for

from quarterdeck.cli import credentials
from quarterdeck.engine.machine import read_machine
from quarterdeck.engine.profile import make_profile
from quarterdeck.net.http_client import HttpClient
from quarterdeck.net.http_connection import Timeouts
from quarterdeck.net.http_origin import Origin, request_head
from quarterdeck.processes import descendants
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.loading import load as load_config

CHECKOUT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = CHECKOUT / ".envs" / "engine" / "bin" / "python"
MODEL = "smollm2-135m-instruct"
CONFIG = f"models:\n- name: {MODEL}\n  engine: {{source: 'packaged:{MODEL}', context: 2048}}\n"
TOKENS = 64
STREAMS = (1, 8, 32)


@dataclass(frozen=True)
class Arm:
    name: str
    url: str
    key: str


async def stream(client: HttpClient, arm: Arm, model: str, number: int) -> tuple[float, int]:
    """Run one stream. Returns the seconds to its first event and the number of token events."""
    origin = Origin.parse(arm.url)
    body = json.dumps(
        {
            "model": model,
            "messages": [{"role": "user", "content": f"Tell me a story about ship number {number}."}],
            "max_tokens": TOKENS,
            "stream": True,
            "ignore_eos": True,
            "temperature": 0,
        }
    ).encode()
    headers = [(b"content-type", b"application/json"), (b"authorization", f"Bearer {arm.key}".encode())]
    head = request_head("POST", origin, "/v1/chat/completions", headers) + b"content-length: %d\r\n\r\n" % len(body)
    started = time.perf_counter()
    connection = await client.request(origin, head, body, Timeouts(5, 300, 300))
    try:
        if connection.status != 200:
            raise RuntimeError(f"{arm.name} answered {connection.status}: {(await connection.read_all(10**6))[:500]!r}")
        first, tokens = 0.0, 0
        while piece := await connection.read():
            first = first or time.perf_counter() - started
            tokens += piece.count(b'"content":"') + piece.count(b'"content": "')
    finally:
        client.release(origin, connection)
    return first, min(tokens, TOKENS)


async def load(client: HttpClient, arm: Arm, model: str, streams: int) -> tuple[float, float]:
    """Run `streams` concurrently. Returns tokens per second and the median time to first token in ms."""
    started = time.perf_counter()
    done = await asyncio.gather(*(stream(client, arm, model, number) for number in range(streams)))
    seconds = time.perf_counter() - started
    return sum(tokens for _, tokens in done) / seconds, statistics.median(first for first, _ in done) * 1000


async def run(arms: list[Arm], model: str, rounds: int) -> dict[str, dict[int, list[tuple[float, float]]]]:
    client = HttpClient()
    results: dict[str, dict[int, list[tuple[float, float]]]] = {arm.name: {n: [] for n in STREAMS} for arm in arms}
    for arm in arms:  # first requests trigger compilation
        await load(client, arm, model, 2)
    for number in range(rounds):
        for streams in STREAMS:
            for arm in arms if number % 2 == 0 else arms[::-1]:
                result = await load(client, arm, model, streams)
                results[arm.name][streams].append(result)
                print(
                    f"round {number + 1} {arm.name} {streams} streams: {result[0]:.1f} tok/s, first {result[1]:.0f} ms",
                    flush=True,
                )
    await client.close()
    return results


@contextlib.contextmanager
def platform(folder: Path, *, pinned: bool) -> Iterator[tuple[Arm, int]]:
    """Start `quarterdeck up` and wait until it is ready; yields it with its process."""
    port, engine_port = free_port(), free_port()
    (folder / "quarterdeck.yaml").write_text(CONFIG)
    environ = {
        "QUARTERDECK_STATE": str(folder / "state"),
        "QUARTERDECK_CONFIG": str(folder / "quarterdeck.yaml"),
        "QUARTERDECK_ENGINE_PORT": str(engine_port),
        "QUARTERDECK_WORKER_PORT": str(free_port()),
        "VLLM_CPU_OMP_THREADS_BIND": "0" if pinned else "0-1",
    }
    log = folder / "up.log"
    argv = [sys.executable, "-m", "quarterdeck.cli", "up", "--engine", "vllm", "--port", str(port)]
    with process(argv, core=1 if pinned else None, log=log, environ=environ) as child:
        wait_for(f"http://127.0.0.1:{port}/readyz", child, log, seconds=600)
        key = credentials.read(folder / "state").api_key
        yield Arm("Quarterdeck", f"http://127.0.0.1:{port}", key), child.pid


@contextlib.contextmanager
def bare(folder: Path, *, pinned: bool) -> Iterator[Arm]:
    """vLLM's own server, with the arguments that our engine derives for the model."""
    port, log = free_port(), folder / "bare.log"
    (engine,) = (m.engine for m in load_config(folder / "quarterdeck.yaml").models)
    assert engine is not None
    profile = make_profile(engine, read_machine(), thread_binding="0" if pinned else "0-1")
    argv: list[str | Path] = [
        ENGINE_PYTHON,
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
    ]
    argv += ["--model", Environment.read().cache / "models" / MODEL, "--served-model-name", MODEL]
    for name, value in profile.engine_kwargs.items():
        flag = "--" + name.replace("_", "-")
        argv += [flag] if value is True else [flag, str(value)]
    with process(argv, core=1 if pinned else None, log=log, environ=profile.env) as child:
        wait_for(f"http://127.0.0.1:{port}/health", child, log, seconds=600)
        yield Arm("bare vLLM", f"http://127.0.0.1:{port}", "")


def memory(root: int) -> dict[str, float]:
    """Resident MiB by process name."""
    found: dict[str, float] = {}
    for pid in [root, *(child.pid for child in descendants(root))]:
        with contextlib.suppress(OSError):
            words = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode().split()
            module = next((w for w in words if w.startswith(("quarterdeck.", "ray::", "VLLM::"))), "")
            name = module.split(":engine:")[0] or Path(words[0]).name
            found[name] = found.get(name, 0.0) + rss_mb(pid)
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--unpinned", action="store_true")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent / "results" / "engine.json")
    options = parser.parse_args()
    pinned = not options.unpinned
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qd-bench-", ignore_cleanup_errors=True)))
        started = time.monotonic()
        ours, pid = stack.enter_context(platform(folder, pinned=pinned))
        print(f"the platform was ready after {time.monotonic() - started:.0f} s", flush=True)
        started = time.monotonic()
        theirs = stack.enter_context(bare(folder, pinned=pinned))
        print(f"the bare server was ready after {time.monotonic() - started:.0f} s", flush=True)
        if pinned:
            os.sched_setaffinity(0, {1})
        results = asyncio.run(run([theirs, ours], MODEL, options.rounds))
        held = memory(pid)
    report(results, held, options.out, pinned=pinned)


def report(
    results: dict[str, dict[int, list[tuple[float, float]]]], held: dict[str, float], out: Path, *, pinned: bool
) -> None:
    """Print medians and ratios; write raw rounds to `out`."""
    print(f"\n{machine()}, {'pinned' if pinned else 'unpinned'}\n")
    print("| arm | " + " | ".join(f"{n} streams tok/s | TTFT p50 ms" for n in STREAMS) + " |")
    print("|---|" + "--:|" * 2 * len(STREAMS))
    middle = {
        name: {n: tuple(statistics.median(v) for v in zip(*runs, strict=True)) for n, runs in by.items()}
        for name, by in results.items()
    }
    for name, by in middle.items():
        print(f"| {name} | " + " | ".join(f"{by[n][0]:.1f} | {by[n][1]:.0f}" for n in STREAMS) + " |")
    for n in STREAMS:
        print(f"ratio at {n} streams: {middle['Quarterdeck'][n][0] / middle['bare vLLM'][n][0]:.2f}")
    print("\n| process | MiB |\n|---|--:|")
    for name, size in held.items():
        print(f"| {name} | {size:.0f} |")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(
        json.dumps({"machine": machine(), "pinned": pinned, "rounds": results, "mib": held}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
