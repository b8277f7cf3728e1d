"""`make bench-curves`: the cost of a request as keys, models, endpoints and prompts grow.

    python loadtests/bench/curves.py [--only keys,models,…] [--rounds 5] [--seconds 4] [--peers FOLDER] [--write]

keys, models, endpoints: CPU and latency by their number. prompts: by prompt length. latency: added latency at half of
saturation, in an open loop. streams: CPU per token at 1,024 open streams of 50 tokens per second. processes: one
gateway and two. memory: resident memory after many requests (`--requests 1000000` for a long run). All features are on,
as in gateway.py, and the points of a curve alternate within a round.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from arms import Arm, model, vllm_router
from drive import HERE, Requests, Round
from levels import latency, memory, processes, streams
from parts import machine
from session import Bench, Curve, plain, up
from tables import median, spread, table, write

from quarterdeck.load.report.plots import Line, Plot

RESULTS = HERE / "results" / "curves.json"
KEYS = (1, 10, 100, 1_000, 10_000)
MODELS = (1, 10, 100, 300)
ENDPOINTS = (1, 10, 100, 1_000)
POLICIES = ("least_load", "power_of_two", "prefix")
PROMPT_KB = (1, 4, 16, 64, 128, 400)


def scaling(title: str, label: str, found: dict[Any, list[Round]], file: str) -> Curve:
    """Table and plot of a cost by a number. A point is named by the number, or by (series, number)."""
    named = {name if isinstance(name, tuple) else ("", name): runs for name, runs in found.items()}
    rows = [
        [
            f"{series} {number:,}".strip(),
            spread((run.cpu_us for run in runs), 1) if median(runs, "rss_mb") else "–",
            spread(run.rps for run in runs),
            f"{median(runs, 'p50'):.2f}",
            f"{median(runs, 'p99'):.2f}",
            f"{median(runs, 'rss_mb'):.0f}" if median(runs, "rss_mb") else "–",
        ]
        for (series, number), runs in named.items()
    ]
    lines = [
        Line(
            each or "CPU µs a request",
            [(number, median(runs, "cpu_us")) for (series, number), runs in named.items() if series == each],
            color=i,
            dash=i,
        )
        for i, each in enumerate(dict.fromkeys(series for (series, _), runs in named.items() if median(runs, "rss_mb")))
    ]
    plot = Plot(
        title,
        f"CPU microseconds of the gateway for each request, against: {label}.",
        label,
        "µs",
        lines,
        x_log=True,
    )
    head = [label, "CPU µs/request", "rps", "p50 ms", "p99 ms", "RSS MiB"]
    return Curve(
        title,
        table(head, rows),
        {file: plot},
        plain(found),
    )


def keys(bench: Bench) -> Curve:
    """Requests spread over N keys, each with its own limits and budget, all warmed up first."""
    secrets = bench.at.keys(max(KEYS))
    arm = bench.gateway("keys", key=secrets[0])
    points = [(count, arm, Requests(keys=bench.file(f"keys-{count}", secrets[:count]))) for count in KEYS]
    seen = errors = 0
    while seen < 2 * max(KEYS) or errors:  # reads each key from the database and its budget from the ledger once
        found = bench.driven(arm, points[-1][2], seconds=2, is_strict=False)
        seen, errors = seen + found.count, found.errors
        print(f"{seen:,} warm-up requests, {errors:,} errors in the last round", flush=True)
    return scaling("CPU a request against keys", "keys", bench.alternate(points), "keys")


def models(bench: Bench) -> Curve:
    """N models and N routes with one target each; requests use all routes in turn."""
    (key,) = bench.at.keys(1)
    file = bench.file("key", [key])
    points = []
    for count in MODELS:
        known = [model(f"model-{i}", [bench.engine.origin]) for i in range(count)]
        routes = [{"name": f"route-{i}", "targets": [{"model": f"model-{i}"}]} for i in range(count)]
        arm = bench.gateway(f"models-{count}", key=key, models=known, routes=routes)
        names = bench.file(f"models-{count}", [f"route-{i}" for i in range(count)])
        points.append((count, arm, Requests(keys=file, models=names)))
    return scaling("CPU a request against routes", "models and routes", bench.alternate(points), "models")


def endpoints(bench: Bench) -> Curve:
    """One model with N endpoints, each a separate address of the mock engine."""
    (key,) = bench.at.keys(1)
    requests = Requests(keys=bench.file("key", [key]))
    points = []
    for policy in POLICIES:
        for count in ENDPOINTS:
            urls = [f"http://127.0.{i // 200}.{1 + i % 200}:{bench.engine.port}" for i in range(count)]
            known = [model("mock", urls, routing={"policy": policy})]
            points.append(((policy, count), bench.gateway(f"{policy}-{count}", key=key, models=known), requests))
    return scaling("CPU a request against endpoints", "endpoints", bench.alternate(points), "endpoints")


def prompts(bench: Bench) -> Curve:
    """Prompts of 1 KB to 400 KB. The mock engine alone shows the cost of the bytes to driver and engine."""
    (key,) = bench.at.keys(1)
    file = bench.file("key", [key])
    arms: list[Arm] = [bench.gateway("Quarterdeck", key=key), bench.engine]
    if bench.peers:
        arms.insert(1, bench.stack.enter_context(vllm_router(bench.peers, bench.engine.port, bench.at.log)))
    points = [((arm.name, kb), arm, Requests(keys=file, prompt_bytes=kb * 1000)) for arm in arms for kb in PROMPT_KB]
    found = bench.alternate(points, connections=4)
    curve = scaling("CPU a request against the prompt's length", "KB of prompt", found, "prompts")
    lines = [
        Line(f"{arm.name} {q}", [(kb, median(found[arm.name, kb], q)) for kb in PROMPT_KB], color=i, dash=j)
        for i, arm in enumerate(arms)
        for j, q in enumerate(("p50", "p99"))
    ]
    alt = "Median and 99th percentile of the answer's time against the prompt's length, 4 connections."
    curve.plots["prompts-latency"] = Plot(
        "Latency against the prompt's length", alt, "KB of prompt", "ms", lines, x_log=True
    )
    return curve


CURVES: dict[str, Callable[[Bench], Curve]] = {
    each.__name__: each for each in (keys, models, endpoints, prompts, latency, streams, processes, memory)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CURVES), help="comma-separated subset of: %(default)s")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--requests", type=int, default=100_000, help="requests of the memory curve")
    parser.add_argument("--peers", type=Path, help="folder of the peers' commands; default: no peers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, help="put tables and plots into docs")
    options = parser.parse_args()
    kept: dict[str, Any] = json.loads(options.out.read_text()) if options.out.exists() else {}
    for name in options.only.split(","):
        with up(options) as bench:
            curve = CURVES[name](bench)
        where = f"{machine()}; {options.rounds} rounds of {options.seconds} s"
        kept[name] = {"machine": where, "raw": curve.raw}
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps(kept, indent=1) + "\n")
        pictures = "".join(f"\n\n![{plot.alt}](benchmarks/{file}.svg)" for file, plot in curve.plots.items())
        if options.write:
            write(name, f"{where}.\n\n{curve.text}{pictures}", plots=curve.plots)
        print(f"\n{curve.title}; {where}\n\n{curve.text}\n", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
