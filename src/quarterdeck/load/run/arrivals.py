"""The schedule: when each request is due. Pure: a seed and a shape in, arrival times out.

Every process of a run computes the whole schedule and sends its share of it, so a run with four processes sends the
same requests at the same times as a run with one.
"""

import bisect
import csv
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from quarterdeck.load.run.profile import Profile, ProfileError
from quarterdeck.load.run.shapes import Shape

_SLICE = 0.01
"""Integration step in seconds, within which a shape counts as constant."""
_WINDOW = 5.0
"""Window in seconds over which a trace's rate is averaged."""
_COLUMNS = {
    "at": ("seconds", "timestamp", "arrival_time"),
    "input": ("input_tokens", "contexttokens", "request tokens"),
    "output": ("output_tokens", "generatedtokens", "response tokens"),
    "scenario": ("scenario",),
}
"""Ours; Azure's TIMESTAMP, ContextTokens, GeneratedTokens; BurstGPT's Timestamp, Request tokens, Response tokens."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """A scheduled request."""

    index: int
    at: float
    """Seconds after the start."""
    rate: float
    """The scheduled arrivals per second at that time."""
    scenario: str
    input_tokens: int | None = None
    """None: the scenario's value."""
    max_tokens: int | None = None


def check(profile: Profile) -> None:
    """Check before the run that the schedule can be kept. Raises ProfileError."""
    if profile.trace is not None:
        named = {row.scenario for row in read_trace(profile.trace.file) if row.scenario}
        if unknown := sorted(named - set(profile.scenarios.chosen)):
            raise ProfileError(f"{profile.trace.file}: scenario {unknown[0]!r} is not in the profile")


def schedule(profile: Profile) -> Iterator[Arrival]:
    """Yield all arrivals of an open loop, in order. Raises ProfileError if the trace can't be read."""
    choose = _Chooser(profile)
    if profile.trace is not None:
        rows = read_trace(profile.trace.file)
        yield from _replayed(rows, profile.trace.speed, profile.length, choose)
        return
    gap: Callable[[], float] = lambda: 1.0  # noqa: E731  # one of two interchangeable functions
    if profile.arrivals == "poisson":
        random_gap = random.Random(f"{profile.seed}/arrivals").expovariate  # noqa: S311
        gap = lambda: random_gap(1.0)  # noqa: E731
    for index, (at, rate) in enumerate(moments(profile.shape, profile.length, gap)):
        yield Arrival(index, at, rate, choose(index))


def moments(shape: Shape, length: float, gap: Callable[[], float]) -> Iterator[tuple[float, float]]:
    """Yield (time, rate) each time the shape's integral has grown by `gap()`. 1: even arrivals; Exp(1): Poisson."""
    wanted = gap()
    slices = round(length / _SLICE)
    for i in range(slices):
        start = i * _SLICE
        rate = shape.at(start + _SLICE / 2)
        mass = rate * _SLICE
        used = 0.0
        while wanted <= mass - used:
            used += wanted
            yield start + used / rate, rate
            wanted = gap()
        wanted -= mass - used


class _Chooser:
    """Chooses an arrival's scenario by weight; a pure function of seed and index."""

    def __init__(self, profile: Profile) -> None:
        chosen = profile.scenarios.chosen
        self._names = tuple(chosen)
        self._weights = tuple(scenario.weight for scenario in chosen.values())
        self._seed = profile.seed

    def __call__(self, index: int) -> str:
        draw = random.Random(f"{self._seed}/{index}")  # noqa: S311  # must be repeatable
        return draw.choices(self._names, self._weights)[0]


# ---- traces ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a trace."""

    at: float
    input_tokens: int
    output_tokens: int
    scenario: str | None


def read_trace(file: Path) -> list[Row]:
    """The trace's rows in order of time, starting at 0. Raises ProfileError."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            reader = csv.DictReader(lines)
            names = {name.strip().lower(): name for name in reader.fieldnames or ()}
            columns = {key: next((names[w] for w in words if w in names), None) for key, words in _COLUMNS.items()}
            for key in ("at", "input", "output"):
                if columns[key] is None:
                    raise ProfileError(f"{file}: no column {' or '.join(_COLUMNS[key])}")
            rows = [_row(line, columns) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error, ValueError) as error:
        raise ProfileError(f"{file}: {error}") from None
    if not rows:
        raise ProfileError(f"{file}: the trace has no rows")
    rows.sort(key=lambda row: row.at)
    first = rows[0].at
    return [Row(row.at - first, row.input_tokens, row.output_tokens, row.scenario) for row in rows]


def _row(line: dict[str, str], columns: dict[str, str | None]) -> Row:
    def value(key: str) -> str:
        name = columns[key]
        return (line.get(name) or "").strip() if name else ""

    return Row(_moment(value("at")), int(value("input")), int(value("output")), value("scenario") or None)


def _moment(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        # Azure writes 100 ns: more digits than `datetime` reads.
        head, dot, fraction = text.partition(".")
        return datetime.fromisoformat(head).timestamp() + (float(f"0.{fraction}") if dot else 0.0)


def _replayed(rows: Sequence[Row], speed: float, length: float, choose: Callable[[int], str]) -> Iterator[Arrival]:
    times = [row.at / speed for row in rows]
    for index, (at, row) in enumerate(zip(times, rows, strict=True)):
        if at >= length:
            return
        near = bisect.bisect_right(times, at + _WINDOW / 2) - bisect.bisect_left(times, at - _WINDOW / 2)
        scenario = row.scenario or choose(index)
        yield Arrival(index, at, near / _WINDOW, scenario, max(1, row.input_tokens), max(1, row.output_tokens))
