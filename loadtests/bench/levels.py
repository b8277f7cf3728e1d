"""Measurements at fixed levels: latency at half load, held streams, two processes, memory."""

import contextlib
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from arms import Arm, Gateway, mock_engine, model, vllm_router
from drive import Meter, Requests, compiled, hold, pace, parse_wrk, wrk_argv, wrk_environ
from parts import rss_mb
from session import Bench, Curve, plain
from tables import median, rotated, spread, table

from quarterdeck.load.report.plots import Line, Plot

STREAMS, TOKEN_US, TOKENS = 1_024, 20_000, 500
"""Streams of 50 tokens per second for ten seconds."""


def latency(bench: Bench) -> Curve:
    """Latency added by the gateway at half of its saturation, and by the peers at that rate if they reach it."""
    (key,) = bench.at.keys(1)
    ours = bench.gateway("Quarterdeck", key=key)
    requests = Requests(keys=bench.file("key", [key]))
    arms: list[Arm] = [ours, bench.engine]
    if bench.peers:
        arms.append(bench.stack.enter_context(vllm_router(bench.peers, bench.engine.port, bench.at.log)))
    bench.driven(ours, requests, seconds=1)
    full = median([bench.driven(ours, requests, seconds=max(2, bench.seconds // 2)) for _ in range(3)], "rps")
    rate, program = full / 2, compiled("open_loop.c", bench.folder)
    found: dict[str, list[Any]] = {arm.name: [] for arm in arms}
    for number in range(bench.rounds):
        for arm in rotated(arms, number):
            with arm.awake():
                found[arm.name].append(pace(program, arm.port, arm.pids, key=arm.key, rate=rate, seconds=bench.seconds))
                bench.at.drain()
            print(f"round {number + 1} {arm.name}: {found[arm.name][-1]}", flush=True)
    alone = found[bench.engine.name]
    rows = []
    for name, runs in found.items():
        added = [
            spread((getattr(a, q) - getattr(b, q) for a, b in zip(runs, alone, strict=True)), 2) for q in ("p50", "p99")
        ]
        own = name != bench.engine.name
        rows.append(
            [name]
            + [spread((getattr(run, q) for run in runs), 2) for q in ("p50", "p99")]
            + (added if own else ["–", "–"])
            + [f"{median(runs, 'cpu_us'):.0f}" if own else "–", f"{median(runs, 'other_core_idle'):.0%}"]
            + [f"{sum(run.errors for run in runs)}"]
        )
    head = [
        f"at {rate:,.0f} rps",
        "p50 ms",
        "p99 ms",
        "added p50",
        "added p99",
        "CPU µs/request",
        "other core idle",
        "errors",
    ]
    return Curve(
        "Added latency at half of saturation",
        table(head, rows),
        raw=plain(found),
    )


def streams(bench: Bench) -> Curve:
    """1,024 open streams with a token every 20 ms."""
    (key,) = bench.at.keys(1)
    slow = bench.stack.enter_context(
        mock_engine(bench.folder / "mock_engine", bench.at.log, interval_us=TOKEN_US, chunks=TOKENS)
    )
    arms: list[Arm] = [bench.gateway("Quarterdeck", key=key, models=[model("mock", [slow.origin])])]
    if bench.peers:
        arms.append(bench.stack.enter_context(vllm_router(bench.peers, slow.port, bench.at.log)))
    program = compiled("open_loop.c", bench.folder)
    found: dict[str, list[Any]] = {arm.name: [] for arm in [*arms, slow]}
    for number in range(bench.rounds):
        for arm in rotated([*arms, slow], number):
            with arm.awake():
                how = {"key": arm.key, "streams": STREAMS, "seconds": max(5, bench.seconds)}
                found[arm.name].append(hold(program, arm.port, arm.pids, **how))
                bench.at.drain()
            print(f"round {number + 1} {arm.name}: {found[arm.name][-1]}", flush=True)
    rows = [
        [
            name,
            spread(run.tokens_per_second for run in runs),
            spread((run.cpu_us_per_token for run in runs), 2) if name != slow.name else "–",
            f"{median(runs, 'core_share'):.0%}" if name != slow.name else "–",
            f"{median(runs, 'gap_p50'):.1f}",
            f"{median(runs, 'gap_p99'):.1f}",
            f"{median(runs, 'other_core_idle'):.0%}",
            f"{sum(run.errors for run in runs)}",
        ]
        for name, runs in found.items()
    ]
    head = [
        "1,024 streams",
        "tokens/s",
        "CPU µs/token",
        "of its core",
        "gap p50 ms",
        "gap p99 ms",
        "other core idle",
        "errors",
    ]
    text = table(head, rows)
    if len(arms) > 1:
        ours, peer = (median(found[arm.name], "cpu_us_per_token") for arm in arms)
        text += f"\n\nQuarterdeck / vllm-router: {ours / peer:.2f} of its CPU a token."
    return Curve("CPU a token at 1,024 open streams", text, raw=plain(found))


def processes(bench: Bench) -> Curve:
    """One gateway, then two, one per core; nothing else is pinned, because there is no third core."""
    (key,) = bench.at.keys(1)
    requests = Requests(keys=bench.file("key", [key]))
    pair = [bench.gateway(f"process {core}", key=key, core=core) for core in (0, 1)]
    everything = [bench.at.worker_pid, *(int(pid) for pid in _session_pids(bench.at.folder))]
    for pid in everything:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(pid, {0, 1})
    found: dict[int, list[tuple[float, float]]] = {1: [], 2: []}
    for number in range(bench.rounds):
        for count in rotated([1, 2], number):
            found[count].append(_together(bench, pair[:count], requests))
            bench.at.drain()
            print(f"round {number + 1} {count} processes: {found[count][-1]}", flush=True)
    rows = [
        [str(count), spread(rps for rps, _ in runs), spread(cpu for _, cpu in runs)] for count, runs in found.items()
    ]
    return Curve("Gateway processes", table(["processes", "rps", "CPU µs/request"], rows), raw=found)


def _session_pids(folder: Path) -> Iterator[str]:
    """Processes of this benchmark (Redis, mock engine), found by command line."""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if str(folder).encode() in path.read_bytes():
                yield path.parent.name


def _together(bench: Bench, gateways: Sequence[Gateway], requests: Requests) -> tuple[float, float]:
    """Drive all gateways at once with the same total of connections. Returns requests per second and CPU µs of each."""
    pids = tuple(pid for gateway in gateways for pid in gateway.pids)
    connections = bench.connections // len(gateways)
    with Meter(pids) as meter:
        running = [
            subprocess.Popen(
                wrk_argv(gateway.url, seconds=bench.seconds, connections=connections, core=None),
                env=wrk_environ(requests),
                stdout=subprocess.PIPE,
                text=True,
            )
            for gateway in gateways
        ]
        said = [parse_wrk(each.communicate()[0]) for each in running]
    count = sum(each.count for each in said)
    return sum(each.rps for each in said), meter.cpu * 1e6 / max(1, count)


def memory(bench: Bench) -> Curve:
    """Resident memory of the gateway over `--requests` plain and streamed requests in turn."""
    (key,) = bench.at.keys(1)
    arm = bench.gateway("memory", key=key)
    file, seen = bench.file("key", [key]), [(0, rss_mb(arm.pids[0]))]
    while seen[-1][0] < bench.requests:
        requests = Requests(keys=file, stream=len(seen) % 2 == 0)
        count = bench.driven(arm, requests, seconds=max(2, bench.seconds)).count
        seen.append((seen[-1][0] + count, rss_mb(arm.pids[0])))
        print(f"{seen[-1][0]:,} requests: {seen[-1][1]:.1f} MiB", flush=True)
    slope = per_million(seen[len(seen) // 2 :])
    line = Line("RSS", [(count / 1000, mib) for count, mib in seen])
    plot = Plot(
        "Resident memory",
        "MiB of the gateway against thousands of requests answered.",
        "thousand requests",
        "MiB",
        [line],
    )
    text = (
        f"{seen[-1][0]:,} requests: {seen[0][1]:.0f} MiB before, {seen[-1][1]:.0f} MiB after, at most "
        f"{max(mib for _, mib in seen):.0f} MiB; over the second half {slope:+.1f} MiB per million requests."
    )
    return Curve("Memory over many requests", text, {"memory": plot}, seen)


def per_million(seen: Sequence[tuple[int, float]]) -> float:
    """The slope of a line through the points, per million requests. None for a single point."""
    if len(seen) < 2:
        return 0.0
    xs, ys = [count / 1e6 for count, _ in seen], [mib for _, mib in seen]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    over = sum((x - mean_x) ** 2 for x in xs)
    return sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True)) / over if over else 0.0
