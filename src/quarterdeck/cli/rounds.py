"""`quarterdeck bench`'s order of things: which runs of the load door measure a target and its baseline. Pure.

Each round runs one schedule, by one seed, at both. Every second round begins with the other one: what comes second
finds warm caches (the baseline is often the same engine) and perhaps a warmer machine, and neither of them should have
that alone. Each round has another seed, so that no round asks what an engine has just answered.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Server:
    """Somebody who is measured."""

    name: str
    """`main` or `baseline`: what results.py calls it."""
    url: str
    model: str | None
    key: str | None
    """None: what the load door finds for this URL by itself."""

    def __repr__(self) -> str:  # never the key
        return f"Server({self.name!r}, {self.url!r}, {self.model!r})"


@dataclass(frozen=True, slots=True)
class Round:
    """One run of the load door."""

    number: int
    server: Server
    seed: int

    @property
    def folder(self) -> str:
        """Below the bench's own; results.py takes rounds with such names together."""
        return f"rounds/{self.number}-{self.server.name}"


def order(main: Server, baseline: Server | None, count: int, seed: int) -> list[Round]:
    """The runs, one after the other."""
    rounds = []
    for i in range(count):
        servers = [server for server in (main, baseline) if server]
        rounds += [Round(i + 1, server, seed + i) for server in (reversed(servers) if i % 2 else servers)]
    return rounds


def words(python: Path, one: Round, out: Path, schedule: Sequence[str]) -> list[str]:
    """The command line of a run. The key is not on it: everybody on the machine can read that."""
    model = ["--model", one.server.model] if one.server.model else []
    return [
        *(str(python), "-m", "quarterdeck.load", "run", "--url", one.server.url, *model),
        *("--seed", str(one.seed), *schedule, "--out", str(out / one.folder), "--no-report"),
    ]
