"""`make bench-observability`: what traces and captured contents cost, beside the same platform without them.

    python loadtests/bench/tracing.py [--rounds 9] [--seconds 2] [--connections 32] [--write]

Each arm is a platform of its own (gateway, Redis, worker, SQLite, trace sink) with all features of `make bench` and its
own setting of traces (none, all) and capture (off, hashed, full). Only one is driven at a time; rounds are short and
alternate. The cost is CPU time, of the gateway for a request and of the worker for a record, until its ledger and its
sink are complete. `--write` puts the table into docs/benchmarks.md; raw rounds are in results/tracing.json.
"""

import argparse
import contextlib
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from arms import Gateway, Platform, config, error_counters, fetch, mock_engine, model, platform, series
from drive import HERE, Requests, Round, compiled, drive
from parts import machine
from tables import median, rotated, spread, table, write

MODES = ("plain", "streamed")
RESULTS = HERE / "results" / "tracing.json"
SETTINGS = ((False, "off"), (True, "off"), (True, "hashed"), (True, "full"))
"""Whether requests are traced, and what is captured of them."""


@dataclass(frozen=True)
class Setting:
    name: str
    level: str
    at: Platform
    gateway: Gateway
    keys: Path


def name_of(is_traced: bool, level: str) -> str:
    return f"traces {'100 %' if is_traced else '0 %'}, content {level}"


@contextlib.contextmanager
def settings(folder: Path) -> Iterator[list[Setting]]:
    """Start a platform for each setting."""
    with contextlib.ExitStack() as stack:
        (folder / "log").touch()
        engine = stack.enter_context(mock_engine(compiled("mock_engine.c", folder), folder / "log"))
        found = []
        for number, (is_traced, level) in enumerate(SETTINGS):
            own = folder / f"platform-{number}"
            own.mkdir()
            # A driver that saturates the gateway is faster than the worker: no content must be dropped for that.
            content = {"capture": level, "max_waiting": 10**7}
            at = stack.enter_context(platform(own, engine.port, is_traced=is_traced, content=content))
            (key,) = at.keys(1)
            gateway = at.start("gateway", config([model("mock", [engine.origin])], content=content), key=key)
            (own / "keys").write_text(key + "\n")
            found.append(Setting(name_of(is_traced, level), level, at, gateway, own / "keys"))
        yield found


def measure(setting: Setting, mode: str, *, seconds: int, connections: int) -> Round:
    """Drive a platform once, and wait until its worker is done."""
    at, gateway = setting.at, setting.gateway
    before = at.worker_cpu()
    requests = Requests(stream=mode == "streamed", keys=setting.keys)
    found = drive(gateway.url, gateway.pids, requests, seconds=seconds, connections=connections)
    if found.errors:
        raise RuntimeError(f"{setting.name} {mode}: {found.errors} errors of {found.count}{error_counters(gateway)}")
    drained = at.drain()
    return replace(found, worker_us=(at.worker_cpu() - before) * 1e6 / max(1, found.count), drain_seconds=drained)


def problems(found: Sequence[Setting]) -> list[str]:
    """What was not stored or not traced as its setting says."""
    wrong = []
    for each in found:
        text = fetch(f"http://127.0.0.1:{each.at.worker_port}/metrics")
        rows, exported, dropped = (
            series(text, f"quarterdeck_{n}_total") for n in ("ledger_rows", "traces_exported", "traces_dropped")
        )
        contents = [line for line in text.splitlines() if line.startswith("quarterdeck_contents_total{")]
        stored = sum(float(line.split()[-1]) for line in contents if 'outcome="stored"' in line)
        expected = (rows if each.at.is_traced else 0, 0, rows if each.level != "off" else 0)
        if (exported, dropped, stored) != expected:
            wrong.append(f"{each.name}: {exported=} {dropped=} {stored=} of {rows} rows")
    return wrong


def table_of(rounds: Mapping[tuple[str, str], Sequence[Round]]) -> str:
    head = ["", "rps", "gateway CPU µs/request", "of the first", "worker CPU s per 1,000 records"]
    rows = []
    for (mode, name), runs in rounds.items():
        first = rounds[mode, name_of(*SETTINGS[0])]
        ratio = median(runs, "cpu_us") / median(first, "cpu_us")
        worker = spread((run.worker_us / 1000 for run in runs), 3)
        cells = (spread(run.rps for run in runs), spread(run.cpu_us for run in runs), f"{ratio:.2f}", worker)
        rows.append([f"{mode}: {name}", *cells])
    return table(head, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, help="put the table into docs/benchmarks.md")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        entered = tempfile.TemporaryDirectory(prefix="qd-bench-", ignore_cleanup_errors=True)
        found = stack.enter_context(settings(Path(stack.enter_context(entered))))
        for mode in MODES:
            for each in found:  # pools, caches, the key
                measure(each, mode, seconds=1, connections=options.connections)
        rounds: dict[tuple[str, str], list[Round]] = {(mode, each.name): [] for mode in MODES for each in found}
        for number in range(options.rounds):
            for mode in MODES:
                for each in rotated(found, number):
                    run = measure(each, mode, seconds=options.seconds, connections=options.connections)
                    rounds[mode, each.name].append(run)
                    cost = f"{run.cpu_us:.0f} µs, worker {run.worker_us:.0f} µs"
                    print(f"round {number + 1} {mode} {each.name}: {cost}", flush=True)
        wrong = problems(found)
    where = f"{machine()}; {options.rounds} rounds of {options.seconds} s, {options.connections} connections"
    keep(options.out, where, rounds, wrong)
    text = table_of(rounds)
    if options.write and not wrong:
        write("observability", f"{where}.\n\n{text}")
    print(f"\n{where}\n\n{text}\n", *wrong, sep="\n")
    return 1 if wrong else 0


def keep(out: Path, where: str, rounds: Mapping[tuple[str, str], Sequence[Round]], wrong: Sequence[str]) -> None:
    """The raw rounds as JSON."""
    raw: dict[str, Any] = {f"{name} {mode}": [asdict(each) for each in runs] for (mode, name), runs in rounds.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": where, "problems": list(wrong), "rounds": raw}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
