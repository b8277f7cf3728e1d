"""Plots and tables of the watched processes' memory and CPU time. Pure.

A line is a process name: after a restart it continues with another pid, after a gap. Compared runs share colours and
differ in dashes.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence

from quarterdeck.load.analysis import summary
from quarterdeck.load.analysis.measures import NONE, digits, mib, share
from quarterdeck.load.analysis.results import ProcessReading, Results
from quarterdeck.load.report.page import Chart, Table
from quarterdeck.load.report.plots import Line, Plot, Point

POINTS = 200
"""Maximum points per process lifetime; more would not be visible."""
PAUSE_SECONDS = 10.0
"""Seconds without a sample that count as a pause; samples come every second."""
Lives = Sequence[Sequence[ProcessReading]]
Runs = Sequence[tuple[str, Results]]


def memory(runs: Runs) -> Chart | None:
    """Resident memory, with its slope after settling."""

    def points(life: Sequence[ProcessReading]) -> list[Point]:
        return [(sample.at, sample.rss_bytes / summary.MIB) for sample in life]

    lines = _lines(runs, points)
    if not lines:
        return None
    rows = []
    for label, results in runs:
        grown = {process.name: process for process in summary.growth(results)}
        for name, lives in _lives(results):
            samples = [sample for life in lives for sample in life]
            slope = grown[name].mib_per_hour
            rows.append(
                [
                    _named(runs, name, label),
                    str(len(lives)),
                    mib(samples[0].rss_bytes),
                    mib(max(sample.rss_bytes for sample in samples)),
                    mib(samples[-1].rss_bytes),
                    NONE if slope is None else f"{digits(slope)} MiB/h over {grown[name].minutes:.0f} min",
                ]
            )
    plot = Plot(
        "Memory of each process",
        f"Resident memory in MiB over the run: {', '.join(line.label for line in lines)}.",
        "seconds since the start",
        "MiB",
        lines,
    )
    caption = "Flat lines are good. A steady climb after the first minutes is a leak; a gap is a restart."
    head = ("process", "starts", "first", "maximum", "last", "slope after settling")
    return Chart(plot, caption, Table(plot.title, head, rows))


def processors(runs: Runs) -> Chart | None:
    """CPU time as a share of one core."""

    def points(life: Sequence[ProcessReading]) -> list[Point]:
        return [
            (now.at, 100 * (now.cpu_seconds - before.cpu_seconds) / (now.at - before.at))
            for before, now in itertools.pairwise(life)
            if now.at > before.at
        ]

    lines = _lines(runs, points)
    if not lines:
        return None
    rows = []
    for label, results in runs:
        finished = sum(request.status > 0 for request in results.requests)
        for name, lives in _lives(results):
            used = cpu_seconds(lives)
            seconds = sum(life[-1].at - life[0].at for life in lives)
            rows.append(
                [
                    _named(runs, name, label),
                    f"{digits(used)} s",
                    share(used / seconds) if seconds else NONE,
                    f"{digits(1000 * used / finished)} s" if finished else NONE,
                    str(max(sample.threads for life in lives for sample in life)),
                ]
            )
    plot = Plot(
        "CPU time of each process",
        f"Per cent of one core over the run: {', '.join(line.label for line in lines)}.",
        "seconds since the start",
        "% of a core",
        lines,
    )
    caption = "100 % is one core. A process that stays at 100 % limits the rate."
    head = ("process", "CPU time", "mean share of a core", "per 1,000 requests", "threads, maximum")
    return Chart(plot, caption, Table(plot.title, head, rows))


def cpu_seconds(lives: Lives) -> float:
    return sum(life[-1].cpu_seconds - life[0].cpu_seconds for life in lives)


def _lines(runs: Runs, points: Callable[[Sequence[ProcessReading]], list[Point]]) -> list[Line]:
    names = sorted({name for _, results in runs for name, _ in results.processes})
    lines = []
    for dash, (label, results) in enumerate(runs):
        for name, lives in _lives(results):
            drawn: list[Point] = []
            for life in lives:
                for stretch in _without_pauses([sample for sample in life if sample.at >= 0]):
                    sampled = points(stretch[:: max(1, len(stretch) // POINTS)])
                    drawn += [*sampled, (sampled[-1][0], None)] if sampled else []
            if drawn:
                lines.append(Line(_named(runs, name, label), drawn, color=names.index(name), dash=dash))
    return lines


def _without_pauses(life: Sequence[ProcessReading]) -> list[Sequence[ProcessReading]]:
    """Split at pauses: between two rounds of a target another one is measured."""
    cuts = [i for i in range(1, len(life)) if life[i].at - life[i - 1].at > PAUSE_SECONDS]
    return [life[a:b] for a, b in zip([0, *cuts], [*cuts, len(life)], strict=True) if b > a]


def _lives(results: Results) -> Iterator[tuple[str, Lives]]:
    """Yield each name with its processes, in order of their first samples."""
    by_name: dict[str, list[Sequence[ProcessReading]]] = {}
    for (name, _), samples in results.processes.items():
        by_name.setdefault(name, []).append(samples)
    for name, lives in sorted(by_name.items()):
        yield name, sorted(lives, key=lambda life: life[0].at)


def _named(runs: Runs, name: str, label: str) -> str:
    return f"{name} ({label})" if len(runs) > 1 else name
