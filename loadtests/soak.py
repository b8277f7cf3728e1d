"""Does the platform stay right for an hour in which one part after another fails? From the root of the checkout:

    make soak                                     # an hour, 50 requests a second, a fault every 30 s
    make soak MINUTES=5 RATE=20 EVERY=20 ARGS='--seed 7'

It starts a platform of its own with two gateways and two simulated engines, asks the load door's profile `soak` by four
keys (free, limited, with a budget, with one that is soon spent), breaks a part at a time in a seeded order, and at the
end asks whether every request was answered right or with an error that the fault under way allows
(docs/operations/failures.md), whether ledger, traces and the client's own books say the same, whether memory is flat
and whether anything was left behind. Exit status 1: one of that is not so, with a line for each.
"""

import argparse
import asyncio
import sys
import time
from pathlib import Path

from loadtests.chaos.faults import FAULTS
from loadtests.chaos.run import Soak, Wishes

from quarterdeck import processes
from quarterdeck.load.report import commands

RESULTS = Path(__file__).resolve().parent / "results"


def main() -> int:
    told = parser().parse_args()
    chosen = tuple(fault for fault in FAULTS if not told.fault or any(word in fault.name for word in told.fault))
    if not chosen:
        print(f"error: no such fault; there are: {', '.join(fault.name for fault in FAULTS)}", file=sys.stderr)
        return 2
    processes.become_subreaper()  # what a part leaves behind becomes ours, and is seen
    out = told.out or RESULTS / f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-soak"
    wishes = Wishes(told.minutes, told.rate, told.every, told.seed, chosen)
    print(f"{told.minutes:g} min at {told.rate:g}/s, a fault every {told.every:g} s, seed {told.seed}", flush=True)
    try:
        verdicts = asyncio.run(Soak(wishes, out).run())
    except KeyboardInterrupt:
        print("ended early: nothing is judged", file=sys.stderr)
        return 130
    print()
    width = max(len(verdict.name) for verdict in verdicts)
    for verdict in verdicts:
        print(f"{'holds ' if verdict.holds else 'BROKEN'}  {verdict.name.ljust(width)}  {verdict.told}")
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
    made.add_argument("--rate", type=float, default=50, help="requests a second")
    made.add_argument("--every", type=float, default=30, help="seconds from one fault to the next")
    made.add_argument("--seed", type=int, default=1, help="of questions, moments, callers and faults")
    made.add_argument("--fault", action="append", metavar="WORDS", help="only those with these words in their name")
    made.add_argument("--out", type=Path, help="the run's folder (default: loadtests/results/<time>-soak)")
    return made


if __name__ == "__main__":
    sys.exit(main())
