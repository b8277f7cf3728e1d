"""The order of load runs in `quarterdeck bench`, for a target and its baseline. Pure.

Each round runs one schedule with one seed against both servers. Rounds alternate which server goes first: the second
one finds warm caches (the baseline is often the same engine) and perhaps a warmer machine. Each round has its own seed,
so that no round repeats prompts that an engine has just answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class BenchServer:
    """A server to measure."""

    name: str
    """`main` or `baseline`, the target names in load/analysis/results.py."""
    url: str
    model: str | None
    key: str | None
    """None: the load test finds the key for this URL itself."""

    def __repr__(self) -> str:  # never the key
        return f"BenchServer({self.name!r}, {self.url!r}, {self.model!r})"


@dataclass(frozen=True, slots=True)
class Round:
    """One load run."""

    number: int
    server: BenchServer
    seed: int

    @property
    def folder(self) -> str:
        """Relative to the bench folder; load/analysis/results.py combines rounds by these names."""
        return f"rounds/{self.number}-{self.server.name}"


def order(main: BenchServer, baseline: BenchServer | None, count: int, seed: int) -> list[Round]:
    """The runs in order."""
    rounds = []
    for i in range(count):
        servers = [server for server in (main, baseline) if server]
        rounds += [Round(i + 1, server, seed + i) for server in (reversed(servers) if i % 2 else servers)]
    return rounds


def command_line(python: Path, one: Round, out: Path, schedule: Sequence[str]) -> list[str]:
    """The command line of a run. It has no key, because every user of the machine can read it."""
    model = ["--model", one.server.model] if one.server.model else []
    return [
        *(str(python), "-m", "quarterdeck.load", "run", "--url", one.server.url, *model),
        *("--seed", str(one.seed), *schedule, "--out", str(out / one.folder), "--no-report"),
    ]
