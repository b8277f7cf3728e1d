"""Writes a result folder: run.json, requests.csv, itl.json, processes.csv, metrics.csv. `analysis/results.py` reads it.

Only the master records. Workers send it their samples as messages, so a distributed run leaves the same files as a
local one. Rows reach the disk within a second; run.json is written last and marks the folder as complete.
"""

import csv
import json
import platform
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

from quarterdeck.load.analysis.samples import COLUMNS, Gaps
from quarterdeck.load.run.monitoring import ProcessSample
from quarterdeck.load.run.profile import Profile
from quarterdeck.load.run.target import Target

PROCESS_COLUMNS = ("time", "name", "pid", "rss_bytes", "cpu_seconds", "threads")


@dataclass
class Recording:
    """Writes the folder of one run."""

    folder: Path
    rows: int = 0
    notes: list[str] = field(default_factory=list)
    """Remarks for readers of the results."""

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._gaps = Gaps()
        self._requests = (self.folder / "requests.csv").open("w", encoding="utf-8", newline="")
        self._processes = (self.folder / "processes.csv").open("w", encoding="utf-8", newline="")
        self._metrics = (self.folder / "metrics.csv").open("w", encoding="utf-8", newline="")
        self._write(self._requests, [COLUMNS])
        self._write(self._processes, [PROCESS_COLUMNS])
        self._write(self._metrics, [("time", "series", "value")])

    def add(self, batch: Mapping[str, Any]) -> None:
        """Append the content of a SampleBuffer."""
        self._write(self._requests, batch["rows"])
        self._gaps.merge(batch["gaps"])
        self.rows += len(batch["rows"])

    def processes(self, samples: Iterable[ProcessSample]) -> None:
        rows = [(f"{s.time:.3f}", s.name, s.pid, s.rss_bytes, f"{s.cpu_seconds:.2f}", s.threads) for s in samples]
        self._write(self._processes, rows)

    def metrics(self, time: float, series: Mapping[str, float]) -> None:
        self._write(self._metrics, [(f"{time:.3f}", name, value) for name, value in series.items()])

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def close(self, about: Mapping[str, Any]) -> None:
        """Write itl.json and run.json, which completes the folder."""
        for file in (self._requests, self._processes, self._metrics):
            file.close()
        _write_json(self.folder / "itl.json", {"main": self._gaps.as_json()})
        _write_json(self.folder / "run.json", {**about, "notes": self.notes})

    @staticmethod
    def _write(file: Any, rows: Iterable[Iterable[object]]) -> None:
        csv.writer(file, lineterminator="\n").writerows(rows)
        file.flush()


def about(profile: Profile, target: Target, started: float, ended: float, locust: str, workers: int) -> dict[str, Any]:
    """The content of run.json, without notes."""
    return {
        "quarterdeck": metadata.version("quarterdeck"),
        "commit": commit(Path(__file__).parent),
        "profile": profile.name,
        "schedule": {**profile.model_dump(mode="json", exclude={"slo", "name", "seed"}), "processes": workers or 1},
        "seed": profile.seed,
        "target": {"url": target.url, "model": target.model, "kind": target.kind},
        "baseline": None,
        "started": started,
        "ended": ended,
        "warmup_seconds": profile.warmup,
        "machine": machine(locust),
        "slo": {name: float(value) for name, value in profile.slo.model_dump().items() if value is not None},
    }


def machine(locust: str) -> dict[str, str | float | int]:
    """The client's machine, without which the figures have no meaning."""
    cpu, memory_kib = platform.machine(), 0
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), cpu)
        first = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()[0]
        memory_kib = int(first.split()[1])
        cores = sum(line.startswith("processor") for line in lines)
    except (OSError, ValueError, IndexError):
        cores = 0
    return {
        "cpu": cpu,
        "cores": cores,
        "memory_gib": round(memory_kib / 2**20, 1),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "locust": locust,
    }


def commit(folder: Path) -> str | None:
    """The checkout's commit; None outside a checkout."""
    command = ["git", "-C", str(folder), "rev-parse", "HEAD"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _write_json(file: Path, value: object) -> None:
    fresh = file.with_suffix(".tmp")
    fresh.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")
    fresh.replace(file)
