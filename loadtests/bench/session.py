"""The common part of all curves: a running platform, alternating rounds, and the form of a result."""

import argparse
import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from arms import Arm, Gateway, Platform, config, error_counters, mock_engine, model, platform
from drive import Requests, Round, compiled, drive
from tables import rotated

from quarterdeck.load.report.plots import Plot


@dataclass
class Curve:
    """The result of one curve."""

    title: str
    text: str
    plots: dict[str, Plot] = field(default_factory=dict)
    raw: Any = None


@dataclass
class Bench:
    """Engine, platform and durations, shared by all curves."""

    at: Platform
    engine: Arm
    folder: Path
    rounds: int
    seconds: int
    connections: int
    peers: Path | None
    requests: int
    stack: contextlib.ExitStack

    def gateway(self, name: str, *, key: str, core: int = 0, **more: Any) -> Gateway:
        configuration = config([model("mock", [self.engine.origin])]) if not more else config(**more)
        return self.at.start(name, configuration, key=key, core=core)

    def file(self, name: str, lines: Sequence[str]) -> Path:
        path = self.folder / name
        path.write_text("\n".join(lines) + "\n")
        return path

    def driven(
        self, arm: Arm, requests: Requests, *, seconds: int = 0, connections: int = 0, is_strict: bool = True
    ) -> Round:
        """Run one round; with `is_strict`, errors raise."""
        with arm.awake():
            found = drive(
                arm.url,
                arm.pids,
                requests,
                seconds=seconds or self.seconds,
                connections=connections or self.connections,
            )
            if isinstance(arm, Gateway):
                self.at.drain()  # so that the worker's backlog does not disturb the next point
        if found.errors and is_strict:
            raise RuntimeError(
                f"{arm.name}: {found.errors} of {found.count} responses were errors{error_counters(arm)}"
            )
        return found

    def alternate(self, points: Sequence[tuple[Any, Arm, Requests]], **how: Any) -> dict[Any, list[Round]]:
        """Run all points in each round, in changing order. Each point is warmed up for a second first, because its
        connections, keys and budgets may have expired."""
        found: dict[Any, list[Round]] = {name: [] for name, _, _ in points}
        for number in range(self.rounds):
            for name, arm, requests in rotated(points, number):
                self.driven(arm, requests, seconds=1, is_strict=False)
                found[name].append(self.driven(arm, requests, **how))
                print(f"round {number + 1} {name}: {found[name][-1].cpu_us:.1f} µs/request", flush=True)
        return found


@contextlib.contextmanager
def up(options: argparse.Namespace) -> Iterator[Bench]:
    """A fresh platform per curve, so that curves do not influence each other."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="qd-bench-", ignore_cleanup_errors=True)))
        (folder / "log").touch()
        engine = stack.enter_context(mock_engine(compiled("mock_engine.c", folder), folder / "log"))
        at = stack.enter_context(platform(folder, engine.port))
        with contextlib.ExitStack() as more:
            how = (options.rounds, options.seconds, options.connections, options.peers, options.requests)
            yield Bench(at, engine, folder, *how, more)


def plain(found: Mapping[Any, Sequence[Any]]) -> dict[str, Any]:
    """Rounds in JSON form."""
    return {str(name): [asdict(run) for run in runs] for name, runs in found.items()}
