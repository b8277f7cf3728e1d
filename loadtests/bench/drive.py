"""Drives one server and measures its cost: wrk in a closed loop, `open_loop.c` at a rate or with held streams.

The driver runs on core 1. Each run measures the CPU time of the observed processes and the idle time of core 1, because
a saturated driver core limits the result as much as the server does.
"""

import json
import os
import re
import statistics
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from parts import cpu_seconds, idle_share, rss_mb

HERE = Path(__file__).resolve().parent
OTHER_CORE = 1
_UNITS = {"us": 0.001, "ms": 1.0, "s": 1000.0, "m": 60_000.0}


@dataclass(frozen=True)
class Requests:
    """A kind of chat completion request; no two are equal."""

    stream: bool = False
    keys: Path | None = None
    models: Path | None = None
    prompt_bytes: int = 980

    def variables(self, seed: int) -> dict[str, str]:
        """Environment of chat.lua."""
        environ = {"STREAM": str(int(self.stream)), "PROMPT_BYTES": str(self.prompt_bytes), "SEED": str(seed)}
        environ |= {"KEYS": str(self.keys)} if self.keys else {}
        return environ | ({"MODELS": str(self.models)} if self.models else {})


@dataclass(frozen=True)
class Round:
    """One run. Milliseconds, CPU microseconds per request, shares from 0 to 1, MiB."""

    count: int
    rps: float
    p50: float
    p99: float
    cpu_us: float
    other_core_idle: float
    rss_mb: float
    errors: int
    worker_us: float = 0.0
    """CPU of the worker per request, including draining after the run."""
    drain_seconds: float = 0.0
    """Time after the run until ledger and trace sink were complete."""


@dataclass(frozen=True)
class Wrk:
    """wrk's results of a run."""

    count: int
    rps: float
    p50: float
    p99: float
    errors: int


@dataclass(frozen=True)
class Paced:
    """open_loop's results of a run at a rate. Milliseconds from when a request was due."""

    sent: int
    done: int
    errors: int
    p50: float
    p90: float
    p99: float
    most: float
    cpu_us: float = 0.0
    other_core_idle: float = 0.0


@dataclass(frozen=True)
class Held:
    """open_loop's results of held streams."""

    tokens: int
    tokens_per_second: float
    gap_p50: float
    """Milliseconds between two tokens of a stream."""
    gap_p99: float
    errors: int
    cpu_us_per_token: float = 0.0
    core_share: float = 0.0
    """CPU seconds per second of the server under test."""
    other_core_idle: float = 0.0


@dataclass
class Meter:
    """Measures CPU and idle time between `start` and `stop`."""

    pids: tuple[int, ...]
    seconds: float = 0.0
    cpu: float = 0.0
    idle: float = 0.0
    _counters: list[int] = field(default_factory=list)

    def __enter__(self) -> "Meter":
        self._counters, _ = idle_share(OTHER_CORE)
        self.cpu, self.seconds = self._cpu(), time.monotonic()
        return self

    def __exit__(self, *error: object) -> None:
        self.cpu, self.seconds = self._cpu() - self.cpu, time.monotonic() - self.seconds
        _, self.idle = idle_share(OTHER_CORE, self._counters)

    def _cpu(self) -> float:
        return sum(cpu_seconds(pid) for pid in self.pids)


def milliseconds(text: str) -> float:
    """Parse a time of wrk such as `1.23ms`."""
    found = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text)
    if found is None:
        raise ValueError(f"not a wrk time: {text!r}")
    return float(found[1]) * _UNITS[found[2]]


def parse_wrk(text: str) -> Wrk:
    """Parse the output of wrk --latency; broken connections count as errors. Raises ValueError."""
    count, rps = re.search(r"(\d+) requests in", text), re.search(r"Requests/sec:\s+([\d.]+)", text)
    percentiles = dict(re.findall(r"^\s+(50|99)%\s+(\S+)", text, re.MULTILINE))
    if count is None or rps is None or len(percentiles) < 2:
        raise ValueError(f"not the output of wrk --latency:\n{text[-500:]}")
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    errors = int(refused[1]) if refused else 0
    errors += sum(int(broken[i]) for i in (1, 2, 3)) if broken else 0  # wrk's timeout (2 s) means slow, not an error
    return Wrk(int(count[1]), float(rps[1]), milliseconds(percentiles["50"]), milliseconds(percentiles["99"]), errors)


def wrk_argv(url: str, *, seconds: int, connections: int, core: int | None = OTHER_CORE) -> list[str]:
    pin = [] if core is None else ["taskset", "-c", str(core)]
    wrk = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "--latency"]
    return [*pin, *wrk, "-s", str(HERE / "chat.lua"), url]


def wrk_environ(requests: Requests) -> dict[str, str]:
    """A new seed per run: repeated prompts would hit the cache."""
    return {**requests.variables(time.monotonic_ns() % 2**31), "PATH": os.environ["PATH"]}


def drive(url: str, pids: tuple[int, ...], requests: Requests, *, seconds: int, connections: int) -> Round:
    """Run wrk once against `url`, whose server is `pids`."""
    argv = wrk_argv(url, seconds=seconds, connections=connections)
    with Meter(pids) as meter:
        out = subprocess.run(argv, env=wrk_environ(requests), capture_output=True, text=True, check=True).stdout
    output = parse_wrk(out)
    return Round(
        count=output.count,
        rps=output.rps,
        p50=output.p50,
        p99=output.p99,
        cpu_us=meter.cpu * 1e6 / max(1, output.count),
        other_core_idle=meter.idle,
        rss_mb=sum(rss_mb(pid) for pid in pids),
        errors=output.errors,
    )


def compiled(source: str, folder: Path) -> Path:
    """Compile a C program of this folder."""
    program = folder / source.removesuffix(".c")
    subprocess.run(["gcc", "-O2", "-o", program, HERE / source, "-lm"], check=True)
    return program


def _open_loop(program: Path, words: list[str], environ: Mapping[str, str]) -> dict[str, float]:
    argv = ["taskset", "-c", str(OTHER_CORE), str(program), *words]
    out = subprocess.run(argv, env={**environ, "PATH": os.environ["PATH"]}, capture_output=True, text=True)
    if out.returncode:
        raise RuntimeError(f"{' '.join(argv)}: {out.stderr.strip()}")
    found: dict[str, float] = json.loads(out.stdout)
    return found


def pace(program: Path, port: int, pids: tuple[int, ...], *, key: str, rate: float, seconds: int) -> Paced:
    """Poisson arrivals at `rate` in an open loop; latencies count from when a request was due."""
    with Meter(pids) as meter:
        output = _open_loop(program, ["rate", str(port), f"{rate:.1f}", str(seconds), "512"], {"KEY": key})
    cpu_us = meter.cpu * 1e6 / max(1.0, output["done"])
    return Paced(
        sent=int(output["sent"]),
        done=int(output["done"]),
        errors=int(output["errors"]),
        p50=output["p50"],
        p90=output["p90"],
        p99=output["p99"],
        most=output["most"],
        cpu_us=cpu_us,
        other_core_idle=meter.idle,
    )


def hold(program: Path, port: int, pids: tuple[int, ...], *, key: str, streams: int, seconds: int) -> Held:
    """Keep `streams` open for `seconds`; each one that ends is replaced.

    CPU and tokens cover the whole run, including opening the connections.
    """
    with Meter(pids) as meter:
        output = _open_loop(program, ["hold", str(port), "0", str(seconds), str(streams)], {"KEY": key})
    tokens = int(output["done"])
    return Held(
        tokens=tokens,
        tokens_per_second=tokens / seconds,
        gap_p50=output["p50"],
        gap_p99=output["p99"],
        errors=int(output["errors"]),
        cpu_us_per_token=meter.cpu * 1e6 / max(1, tokens),
        core_share=meter.cpu / meter.seconds,
        other_core_idle=meter.idle,
    )


def middle(values: list[float]) -> float:
    return statistics.median(values)
