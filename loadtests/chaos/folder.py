"""The result folder of a soak, as `python -m quarterdeck.load report` reads it, with the injected faults."""

import csv
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from loadtests.chaos.faults import InjectedFault
from loadtests.chaos.platform import MODEL
from loadtests.chaos.traffic import Traffic
from loadtests.chaos.verdicts import MIB, Verdict

from quarterdeck.load.analysis import budgets, results
from quarterdeck.load.analysis.samples import Gaps
from quarterdeck.load.run import monitoring, recording
from quarterdeck.load.run.monitoring import ProcessSample
from quarterdeck.load.run.profile import Profile
from quarterdeck.load.run.recording import Recording
from quarterdeck.load.run.target import Target

CLIENT = "not used"


class Folder:
    """Writes the folder during a soak and completes it at the end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._recording = Recording(path)
        self._last: list[ProcessSample] = []
        self._seen: list[ProcessSample] = []

    def sample(self, pids: Mapping[int, str]) -> None:
        """Record memory and CPU time of the parts and of this process."""
        self._last = monitoring.sample(time.time(), {**pids, os.getpid(): "soak"})
        self._seen += self._last
        self._recording.processes(self._last)

    def memory(self) -> dict[str, float]:
        """MiB by name in the last sample."""
        return {one.name: one.rss_bytes / MIB for one in self._last if one.name.startswith(("gateway", "worker"))}

    def record(self, traffic: Traffic) -> None:
        """Record the samples since the last call."""
        samples, traffic.samples = traffic.samples, []
        gaps = Gaps()
        for sample in samples:
            if sample.is_ok:
                gaps.add(sample.scenario, sample.gaps_ms)
        self._recording.add({"rows": [sample.row("main") for sample in samples], "gaps": gaps.counts})

    def lives(self, start: float) -> dict[tuple[str, int], list[results.ProcessReading]]:
        """The samples of each process, with times since the start."""
        found: dict[tuple[str, int], list[results.ProcessReading]] = {}
        for one in self._seen:
            sample = results.ProcessReading(one.time - start, one.rss_bytes, one.cpu_seconds, one.threads)
            found.setdefault((one.name, one.pid), []).append(sample)
        return found

    def close(
        self, profile: Profile, url: str, started: float, ended: float, injected: Sequence[InjectedFault]
    ) -> None:
        with (self.path / "events.csv").open("w", encoding="utf-8", newline="") as file:
            rows = [(f"{one.started:.3f}", f"{one.ended or ended:.3f}", one.fault.name) for one in injected]
            csv.writer(file, lineterminator="\n").writerows([("time", "ended", "name"), *rows])
        self._recording.note("Gaps between tokens are means per stream. Faults were injected: events.csv.")
        target = Target(url=url, key="", model=MODEL, embedding_model=None, kind="quarterdeck")
        self._recording.close(recording.about(profile, target, started, ended, CLIENT, 1))

    def write_verdicts(self, verdicts: Sequence[Verdict]) -> None:
        """Write the verdicts in the form of budgets, for the report."""
        converted = [
            budgets.Verdict(
                name=verdict.name,
                outcome="kept" if verdict.holds else "broken",
                limit=0,
                value=len(verdict.complaints),
                text="; ".join([verdict.summary, *verdict.complaints]),
            )
            for verdict in verdicts
        ]
        budgets.write(self.path, converted)
