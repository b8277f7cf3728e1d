"""A soak test: an hour of traffic while parts of the platform fail one after another. From the checkout's root:

    make soak                                     # an hour, 50 requests a second, a fault every 30 s
    make soak MINUTES=5 RATE=20 EVERY=20 ARGS='--seed 7'

It starts its own platform with two gateways and two simulated engines, runs the load profile `soak` with four keys
(unlimited, rate-limited, with a large budget, with a small one) and injects one fault at a time in a seeded order. At
the end it verifies that every request was answered correctly or with an error that the current fault allows
(docs/operations/failures.md), that ledger, traces and the client agree, that memory is flat and that nothing is left
behind. Exits with status 1 and a line per violation otherwise.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from loadtests.chaos.faults import FAULTS
from loadtests.chaos.run import Soak, SoakOptions

from quarterdeck import processes
from quarterdeck.load.report import commands

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    options = parser().parse_args()
    chosen = tuple(fault for fault in FAULTS if not options.fault or any(word in fault.name for word in options.fault))
    if not chosen:
        print(f"error: no such fault; known faults: {', '.join(fault.name for fault in FAULTS)}", file=sys.stderr)
        return 2
    processes.become_subreaper()  # orphans of a part become children of this process and are detected
    out = options.out or RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-soak"
    soak_options = SoakOptions(options.minutes, options.rate, options.every, options.seed, chosen)
    print(
        f"{options.minutes:g} min at {options.rate:g}/s, a fault every {options.every:g} s, seed {options.seed}",
        flush=True,
    )
    try:
        verdicts = asyncio.run(Soak(soak_options, out).run())
    except KeyboardInterrupt:
        print("stopped early: results are not checked", file=sys.stderr)
        return 130
    print()
    width = max(len(verdict.name) for verdict in verdicts)
    for verdict in verdicts:
        print(f"{'holds ' if verdict.holds else 'BROKEN'}  {verdict.name.ljust(width)}  {verdict.summary}")
    broken = [verdict for verdict in verdicts if not verdict.holds]
    print()
    for verdict in broken:
        for complaint in verdict.complaints:
            print(f"BROKEN {verdict.name}: {complaint}")
    commands.write_report(out)
    return 1 if broken else 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--minutes", type=float, default=60)
    made.add_argument("--rate", type=float, default=50, help="requests per second")
    made.add_argument("--every", type=float, default=30, help="seconds between faults")
    made.add_argument("--seed", type=int, default=1, help="seed of prompts, times, callers and faults")
    made.add_argument(
        "--fault", action="append", metavar="TEXT", help="only faults whose name contains this text; repeatable"
    )
    made.add_argument("--out", type=Path, help="result folder (default: loadtests/results/<time>-soak)")
    return made


if __name__ == "__main__":
    sys.exit(main())
