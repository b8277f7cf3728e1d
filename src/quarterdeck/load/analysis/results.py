"""Reads a result folder. Only this module knows the files; reports, budgets and comparisons use it.

`run.json` and `requests.csv` are required; data of other missing files is left out. A file that can't be parsed is an
error with its line, because an incomplete report would look complete.

A folder without `run.json` but with `rounds/` (from `quarterdeck bench`) holds several runs of one schedule. They are
read as one run, in which the times of a request count from the start of its own round.
"""

import csv
import json
import math
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from quarterdeck.load.analysis.distribution import LatencyHistogram, merged

MAIN = "main"
BASELINE = "baseline"


class ResultsError(Exception):
    """A result folder can't be read; the message names the file and the problem."""


@dataclass(frozen=True, slots=True)
class Request:
    """A row of `requests.csv`. Times are seconds since the start of the schedule."""

    target: str
    scenario: str
    intended: float
    started: float
    first_token: float | None
    ended: float
    status: int
    outcome: str
    input_tokens: int
    cached_tokens: int
    output_tokens: int
    itl_ms: float | None
    """The mean gap between two tokens."""
    itl_ms_max: float | None
    cache: str
    request_id: str
    cost: float | None
    rate: float | None
    """Scheduled arrivals per second at that time. None: a closed loop."""

    @property
    def is_ok(self) -> bool:
        return self.outcome == "ok"

    @property
    def is_error(self) -> bool:
        """Neither answered nor, for a misbehaving client, rejected as intended (`expected:…`)."""
        return not self.is_ok and not self.outcome.startswith("expected:")

    @property
    def ttft_ms(self) -> float | None:
        """From when the request was due, so that a late client does not make the server look fast."""
        return None if self.first_token is None else (self.first_token - self.intended) * 1e3

    @property
    def total_ms(self) -> float:
        return (self.ended - self.intended) * 1e3

    @property
    def answer_ms(self) -> float:
        """Until the first token; until the end for an answer that is not streamed."""
        return self.total_ms if self.first_token is None else (self.first_token - self.intended) * 1e3

    @property
    def lag_ms(self) -> float:
        """How late the client sent it."""
        return (self.started - self.intended) * 1e3


@dataclass(frozen=True, slots=True)
class ProcessReading:
    """Resource usage of a process at one time."""

    at: float
    rss_bytes: int
    cpu_seconds: float
    threads: int


@dataclass(frozen=True, slots=True)
class Event:
    """A fault injected into the target, from `at` to `ended`, in a soak."""

    at: float
    ended: float
    name: str


@dataclass(frozen=True, slots=True)
class Run:
    """`run.json`. `about` is the whole content, for values that are only displayed."""

    profile: str
    seed: int | None
    started: float
    ended: float
    warmup_seconds: float
    slo: Mapping[str, float]
    """`ttft_ms`, `itl_ms`, `total_ms`, if set."""
    about: Mapping[str, Any]

    @property
    def seconds(self) -> float:
        """Measured time, without the warm-up."""
        return max(0.0, self.ended - self.started - self.warmup_seconds)


@dataclass(frozen=True)
class Results:
    """One run, or the rounds of a bench."""

    folder: Path
    run: Run
    rounds: int
    """How often the schedule ran against each target."""
    requests: tuple[Request, ...]
    gaps: Mapping[tuple[str, str], LatencyHistogram]
    """Gaps between tokens in ms, by target and scenario."""
    processes: Mapping[tuple[str, int], tuple[ProcessReading, ...]]
    """By name and pid."""
    series: Mapping[str, tuple[tuple[float, float], ...]]
    """The gateway's metrics: (time, value) by series."""
    events: tuple[Event, ...] = ()

    @cached_property
    def targets(self) -> tuple[str, ...]:
        found = {request.target for request in self.requests}
        return tuple(sorted(found, key=lambda target: (target != MAIN, target)))

    @property
    def name(self) -> str:
        return self.folder.resolve().name


def read(folder: Path) -> Results:
    """Read a folder. Raises ResultsError."""
    if (folder / "run.json").exists():
        return _read_one(folder)
    rounds = [file.parent for file in (folder / "rounds").glob("*/run.json")]
    if not rounds:
        raise ResultsError(f"{folder}: no run.json: not a result folder, or the run did not finish")
    return _together(folder, sorted((_read_one(one) for one in rounds), key=lambda part: part.run.started))


def _read_one(folder: Path) -> Results:
    run = _read_run(folder / "run.json")
    requests = tuple(_read_requests(folder / "requests.csv", run))
    return Results(
        folder=folder,
        run=run,
        rounds=1,
        requests=requests,
        gaps=_read_gaps(folder / "itl.json"),
        processes=_read_processes(folder / "processes.csv", run),
        series=_read_series(folder / "metrics.csv", run),
        events=tuple(_read_events(folder / "events.csv", run)),
    )


def _together(folder: Path, parts: list[Results]) -> Results:
    """Combine rounds into one run. Folder names identify the targets: `1-main`, `1-baseline`."""
    requests: list[Request] = []
    gaps: dict[tuple[str, str], list[LatencyHistogram]] = {}
    processes: dict[tuple[str, int], tuple[ProcessReading, ...]] = {}
    series: dict[str, tuple[tuple[float, float], ...]] = {}
    start = parts[0].run.started
    for part in parts:
        target = part.folder.name.partition("-")[2] or MAIN
        requests += [_of_target(request, target) for request in part.requests]
        for (_, scenario), histogram in part.gaps.items():
            gaps.setdefault((target, scenario), []).append(histogram)
        shift = part.run.started - start
        for who, samples in part.processes.items():
            moved = tuple(ProcessReading(s.at + shift, s.rss_bytes, s.cpu_seconds, s.threads) for s in samples)
            processes[who] = (*processes.get(who, ()), *moved)
        for name, points in part.series.items():
            series[name] = (*series.get(name, ()), *((at + shift, value) for at, value in points))
    mains = [part for part in parts if part.folder.name.partition("-")[2] == MAIN] or parts
    others = [part for part in parts if part.folder.name.partition("-")[2] == BASELINE]
    first = mains[0].run
    about = {**first.about, "baseline": others[0].run.about.get("target") if others else None}
    run = Run(first.profile, first.seed, first.started, first.ended, first.warmup_seconds, first.slo, about)
    together = {of: whole for of, parts_of in gaps.items() if (whole := merged(parts_of))}
    return Results(folder, run, len(mains), tuple(requests), together, processes, series)


def _of_target(request: Request, target: str) -> Request:
    values = {name: getattr(request, name) for name in Request.__slots__}
    return Request(**(values | {"target": target}))


# ---- the files -------------------------------------------------------------------------------------------------------


def _read_run(file: Path) -> Run:
    about = _json_object(file)
    try:
        seed = about.get("seed")
        return Run(
            profile=str(about.get("profile") or "unnamed"),
            seed=None if seed is None else int(seed),
            started=float(about["started"]),
            ended=float(about["ended"]),
            warmup_seconds=float(about.get("warmup_seconds") or 0),
            slo={name: float(ms) for name, ms in (about.get("slo") or {}).items() if ms is not None},
            about=about,
        )
    except KeyError as error:
        raise ResultsError(f"{file}: {error.args[0]} is missing") from None
    except (TypeError, ValueError, AttributeError) as error:
        raise ResultsError(f"{file}: {error}") from None


def _read_requests(file: Path, run: Run) -> Iterator[Request]:
    if not file.exists():
        raise ResultsError(f"{file} is missing: there is nothing to report")
    for line, row in _rows(file):
        try:
            yield _request(row, run.started)
        except (KeyError, TypeError, ValueError) as error:
            raise _bad_row(file, line, error) from None


def _request(row: Mapping[str, str], start: float) -> Request:
    started = float(row["started"])
    intended = _number(row.get("intended"))
    first = _number(row.get("first_token"))
    return Request(
        target=sys.intern(row.get("target") or MAIN),
        scenario=sys.intern(row["scenario"]),
        intended=(started if intended is None else intended) - start,
        started=started - start,
        first_token=None if first is None else first - start,
        ended=float(row["ended"]) - start,
        status=int(row.get("status") or 0),
        outcome=sys.intern(row["outcome"]),
        input_tokens=int(row.get("input_tokens") or 0),
        cached_tokens=int(row.get("cached_tokens") or 0),
        output_tokens=int(row.get("output_tokens") or 0),
        itl_ms=_number(row.get("itl_ms_mean")),
        itl_ms_max=_number(row.get("itl_ms_max")),
        cache=sys.intern((row.get("cache") or "").lower()),
        request_id=row.get("request_id") or "",
        cost=_number(row.get("cost")),
        rate=_number(row.get("rate")),
    )


def _read_gaps(file: Path) -> dict[tuple[str, str], LatencyHistogram]:
    if not file.exists():
        return {}
    found: dict[tuple[str, str], LatencyHistogram] = {}
    for target, scenarios in _json_object(file).items():
        try:
            for scenario, entry in scenarios.items():
                edges = tuple(float(edge) for edge in entry["edges_ms"])
                found[target, scenario] = LatencyHistogram(edges, tuple(int(count) for count in entry["counts"]))
        except KeyError as error:
            raise ResultsError(f"{file}: {target}: {error.args[0]} is missing") from None
        except (AttributeError, TypeError, ValueError) as error:
            raise ResultsError(f"{file}: {target}: {error}") from None
    return found


def _read_processes(file: Path, run: Run) -> dict[tuple[str, int], tuple[ProcessReading, ...]]:
    found: dict[tuple[str, int], list[ProcessReading]] = {}
    for line, row in _rows(file) if file.exists() else ():
        try:
            sample = ProcessReading(
                at=float(row["time"]) - run.started,
                rss_bytes=int(float(row["rss_bytes"])),
                cpu_seconds=float(row["cpu_seconds"]),
                threads=int(row.get("threads") or 0),
            )
            found.setdefault((row["name"], int(row["pid"])), []).append(sample)
        except (KeyError, TypeError, ValueError) as error:
            raise _bad_row(file, line, error) from None
    return {who: tuple(samples) for who, samples in found.items()}


def _read_series(file: Path, run: Run) -> dict[str, tuple[tuple[float, float], ...]]:
    found: dict[str, list[tuple[float, float]]] = {}
    for line, row in _rows(file) if file.exists() else ():
        try:
            value = float(row["value"])
            if math.isfinite(value):
                found.setdefault(row["series"], []).append((float(row["time"]) - run.started, value))
        except (KeyError, TypeError, ValueError) as error:
            raise _bad_row(file, line, error) from None
    return {series: tuple(points) for series, points in found.items()}


def _read_events(file: Path, run: Run) -> Iterator[Event]:
    for line, row in _rows(file) if file.exists() else ():
        try:
            yield Event(float(row["time"]) - run.started, float(row["ended"]) - run.started, row["name"])
        except (KeyError, TypeError, ValueError) as error:
            raise _bad_row(file, line, error) from None


def _bad_row(file: Path, line: int, error: Exception) -> ResultsError:
    reason = f"no column {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
    return ResultsError(f"{file}:{line}: {reason}")


def _rows(file: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield each row with its line number, without an incomplete last line of a killed run."""
    try:
        with file.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            width = len(reader.fieldnames or ())
            waiting: tuple[int, dict[str, str]] | None = None
            for row in reader:
                if waiting:
                    yield waiting
                waiting = reader.line_num, row
            if waiting and sum(value is not None for value in waiting[1].values()) == width:
                yield waiting
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ResultsError(f"{file}: {error}") from None


def _json_object(file: Path) -> dict[str, Any]:
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultsError(f"{file}: {error}") from None
    if not isinstance(value, dict):
        raise ResultsError(f"{file}: expected an object")
    return value


def _number(text: str | None) -> float | None:
    return float(text) if text else None
