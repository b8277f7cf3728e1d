"""`make bench`: compares the gateway with all features on with a bare vllm-router and LiteLLM's proxy.

    python loadtests/bench/gateway.py [--rounds 5] [--seconds 6] [--connections 32] [--peers .envs/peers/bin] [--write]

All features: a key with limits (requests, tokens, concurrency) and a budget, a miss in the exact cache, the record, the
worker that writes ledger rows and all traces (to a counting sink), metrics, and the access log at INFO. The gateway
under test runs alone on core 0, everything else on core 1. The worker drains before the next server is measured.
`--write` puts tables into docs/benchmarks.md; raw rounds are always written to results/gateway.json.
"""

import argparse
import contextlib
import itertools
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from arms import Arm, Gateway, Platform, config, error_counters, litellm, mock_engine, model, platform, vllm_router
from drive import HERE, Requests, Round, compiled, drive
from parts import machine
from proof import Proof, prove
from tables import comparison, ratios, rotated, write

OURS = "Quarterdeck"
MODES = ("plain", "streamed")
RESULTS = HERE / "results" / "gateway.json"


@dataclass
class Bench:
    """One run: the servers and their results."""

    at: Platform
    arms: list[Arm]
    keys: Path
    connections: int
    rounds: dict[tuple[str, str], list[Round]] = field(default_factory=dict)
    ours: list[Round] = field(default_factory=list)
    """Rounds of our gateway, including warm-up, whose requests are in the ledger too."""

    def round(self, arm: Arm, mode: str, seconds: int) -> Round:
        """A round of our gateway ends once its records are in ledger and sink, and includes the worker's CPU."""
        self.keys.write_text(arm.key + "\n")
        requests = Requests(stream=mode == "streamed", keys=self.keys)
        with arm.awake():
            before = self.at.worker_cpu()
            seconds *= arm.stretch
            found = drive(arm.url, arm.pids, requests, seconds=seconds, connections=self.connections)
            if not isinstance(arm, Gateway):
                return found
            drained = self.at.drain()
            worker_us = (self.at.worker_cpu() - before) * 1e6 / max(1, found.count)
        found = replace(found, worker_us=worker_us, drain_seconds=drained)
        self.ours.append(found)
        return found

    def run(self, rounds: int, seconds: int) -> None:
        for mode, arm in itertools.product(MODES, self.arms):  # pools, caches, the key
            if (warm := self.round(arm, mode, 1)).errors:
                raise RuntimeError(
                    f"{arm.name} {mode}: {warm.errors} of {warm.count} answers were errors{error_counters(arm)}"
                )
        self.rounds = {(mode, arm.name): [] for mode in MODES for arm in self.arms}
        for number in range(rounds):
            for mode in MODES:
                for arm in rotated(self.arms, number):
                    found = self.round(arm, mode, seconds)
                    self.rounds[mode, arm.name].append(found)
                    print(f"round {number + 1} {arm.name} {mode}: {line(found)}", flush=True)

    def prove(self) -> Proof:
        answered = self.at.direct_requests + sum(found.count for found in self.ours)
        errors = sum(found.errors for found in self.ours)
        return prove(self.at, answered=answered, errors=errors, most_cancelled=len(self.ours) * self.connections)


def line(found: Round) -> str:
    return (
        f"{found.rps:,.0f} rps, p50 {found.p50:.2f} ms, p99 {found.p99:.2f} ms, {found.cpu_us:.0f} µs, other core "
        f"{found.other_core_idle:.0%} idle, worker {found.worker_us:.0f} µs, drained in {found.drain_seconds:.1f} s, "
        f"{found.errors} errors"
    )


@contextlib.contextmanager
def bench(options: argparse.Namespace) -> Iterator[Bench]:
    """Start all servers."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qd-bench-", ignore_cleanup_errors=True)))
        log = folder / "peers.log"
        log.touch()
        engine = stack.enter_context(mock_engine(compiled("mock_engine.c", folder), log))
        at = stack.enter_context(platform(folder, engine.port))
        (key,) = at.keys(1)
        arms: list[Arm] = [at.start(OURS, config([model("mock", [engine.origin])]), key=key)]
        if options.peers:
            arms.append(stack.enter_context(vllm_router(options.peers, engine.port, log)))
            arms.append(stack.enter_context(litellm(options.peers, engine.port, folder, log)))
        yield Bench(at, [*arms, engine], folder / "keys", options.connections)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=6)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--peers", type=Path, help="folder of the peers' commands; default: no peers")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--write", action=argparse.BooleanOptionalAction, help="put the tables into docs/benchmarks.md")
    options = parser.parse_args()
    with bench(options) as found:
        found.run(options.rounds, options.seconds)
        proof = found.prove()
    where = f"{machine()}; {options.rounds} rounds of {options.seconds} s, {options.connections} connections"
    keep(options.out, where, found, proof)
    text, last = comparison(found.rounds), ratios(found.rounds, OURS)
    if options.write:
        write("gateway", f"{where}.\n\n{text}\n\nChecked: {proof}.\n\n" + "\n".join(f"- {each}" for each in last))
    print(f"\n{where}\n\n{text}\n\nchecked: {proof}\n", *last, sep="\n")
    return 1 if proof.problems else 0


def keep(out: Path, where: str, found: Bench, proof: Proof) -> None:
    """The raw rounds as JSON."""
    raw = {f"{name} {mode}": [asdict(each) for each in runs] for (mode, name), runs in found.rounds.items()}
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({"machine": where, "proof": asdict(proof), "rounds": raw}, indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(main())
