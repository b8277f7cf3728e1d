"""The report's plots: which lines of which numbers, what a reader should look for, and the same as a table. Pure.

Each takes the sides of a comparison (a run alone, a run and its baseline, two runs) and draws them over one another:
colour tells the side, the dash tells the percentile.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from quarterdeck.load.analysis import summary
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.knee import KEPT_SHARE
from quarterdeck.load.analysis.measures import NONE, digits, ms, share
from quarterdeck.load.analysis.summary import Measured, Step
from quarterdeck.load.report.page import Chart, Table, by_side
from quarterdeck.load.report.plots import COLORS, Line, Mark, Plot, Point

PERCENTILES = (("p50", 0.5), ("p99", 0.99))
SHARES = (*(i / 100 for i in range(100)), 0.993, 0.996, 0.998, 0.999, 1.0)
"""Where a distribution is drawn: even, and finer towards its end."""
LEAST_SAMPLES = 20
"""A stretch with fewer answers has no p99 to speak of: its line has a gap there."""


def latency_over_time(sides: Sequence[Measured]) -> Chart | None:
    """Time to first token, or the whole request where nothing streams."""
    is_stream = any(side.ttft for side in sides)
    of = _ttft if is_stream else _total
    name = "Time to first token" if is_stream else "Whole request"
    lines, rows = _percentile_lines(sides, summary.over_time, of, "{:.0f} s")
    if not lines:
        return None
    plot = Plot(
        f"{name} over the run",
        f"{name} in milliseconds over the seconds of the run, on a logarithmic axis: {_named(lines)}.",
        "seconds since the start",
        "ms (log)",
        lines,
        y_log=True,
        marks=_objective(sides, "ttft_ms" if is_stream else "total_ms"),
    )
    caption = (
        "Look for lines that stay level. One that climbs while the rate stands still means a queue grows; a single peak"
        " is an event: compare its second with the processes below."
    )
    return Chart(plot, caption, by_side(plot.title, ("at", "side", "p50", "p99", "answered"), rows))


def latency_by_rate(sides: Sequence[Measured]) -> Chart | None:
    is_stream = any(side.ttft for side in sides)
    name = "Time to first token" if is_stream else "Whole request"
    lines, rows = _percentile_lines(sides, summary.by_rate, _ttft if is_stream else _total, "{:.4g}/s")
    if not lines:
        return None
    plot = Plot(
        f"{name} by rate",
        f"{name} in milliseconds at each rate of arrivals, on a logarithmic axis: {_named(lines)}.",
        "arrivals a second, as the schedule wanted",
        "ms (log)",
        lines,
        y_log=True,
        marks=_objective(sides, "ttft_ms" if is_stream else "total_ms"),
    )
    caption = "Look for where p99 leaves p50 behind: from that rate on requests wait for one another."
    return Chart(plot, caption, by_side(plot.title, ("rate", "side", "p50", "p99", "answered"), rows))


def first_token_distribution(sides: Sequence[Measured]) -> Chart | None:
    drawn = [(side.label, side.ttft) for side in _parts(sides) if side.ttft]
    lines = [
        Line(label, [(max(quantile(values, q) or 0, 0.01), q * 100) for q in SHARES], color=i, dash=i)
        for i, (label, values) in enumerate(drawn)
    ]
    if not lines:
        return None
    told = [(label, lambda q, values=values: quantile(values, q), len(values)) for label, values in drawn]
    caption = (
        "Read across from 50 % for the usual case and from 99 % for the worst in a hundred. Steep is predictable; a"
        " long flat shoulder is a second group of requests that took another way (a queue, a cold cache)."
    )
    return _distribution("Time to first token: distribution", lines, told, caption, sides, "ttft_ms")


def gap_distribution(sides: Sequence[Measured]) -> Chart | None:
    drawn = [(side.label, gaps) for side in _parts(sides) if (gaps := side.all_gaps) and gaps.total]
    lines = [
        Line(label, [(max(x, 0.01), y * 100) for x, y in gaps.cumulative()], color=i, dash=i)
        for i, (label, gaps) in enumerate(drawn)
    ]
    if not lines:
        return None
    told = [(label, gaps.quantile, gaps.total) for label, gaps in drawn]
    caption = (
        "All gaps between the pieces of all streams. Steps are batches: an engine that decodes in turns sends pieces in"
        " bunches. What reads as smooth is below some 50 ms."
    )
    return _distribution("Gaps between tokens: distribution", lines, told, caption, sides, "itl_ms")


def throughput(sides: Sequence[Measured]) -> Chart | None:
    """Asked for, answered and in error, each second; without those of clients that misbehave on purpose."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    for i, side in enumerate(sides):
        steps = summary.over_time(side)
        kinds: tuple[tuple[str, int, Callable[[Measured], int]], ...] = (
            ("asked", 1, lambda part: len(part.judged)),
            ("answered", 0, lambda part: len(part.answered)),
            ("errors", 2, lambda part: part.errors),
        )
        for kind, dash, of in kinds:
            if kind == "errors" and not side.errors:
                continue
            points: list[Point] = [(step.at, of(step.part) / step.part.seconds) for step in steps]
            lines.append(Line(_label(sides, side, kind), points, color=i, dash=dash + 2 * i))
        rows += [
            [f"{step.at:.0f} s", side.label, *(digits(of(step.part) / step.part.seconds) for _, _, of in kinds)]
            for step in steps
        ]
    if not rows:
        return None
    plot = Plot(
        "Requests a second",
        f"Requests a second over the run: {_named(lines)}.",
        "seconds since the start, when the request was due",
        "requests/s",
        lines,
    )
    caption = "Answered should lie on asked. Where it falls below, requests failed: the table of outcomes says how."
    return Chart(plot, caption, by_side(plot.title, ("at", "side", "asked", "answered", "errors"), rows))


def token_throughput(sides: Sequence[Measured]) -> Chart | None:
    lines: list[Line] = []
    rows: list[list[str]] = []
    for i, side in enumerate(sides):
        steps = summary.over_time(side)
        speeds = [(step.at, step.part.tokens_per_second or 0.0) for step in steps]
        if any(speed for _, speed in speeds):
            lines.append(Line(side.label, speeds, color=i, dash=i))
            rows += [[f"{at:.0f} s", side.label, digits(speed)] for at, speed in speeds]
    if not lines:
        return None
    plot = Plot(
        "Output tokens a second",
        f"Output tokens a second over the run: {_named(lines)}.",
        "seconds since the start, when the request was due",
        "tokens/s",
        lines,
    )
    caption = "What the engines gave, all streams together. Level while the rate rises: the engines are full."
    return Chart(plot, caption, by_side(plot.title, ("at", "side", "tokens/s"), rows))


def knee(sides: Sequence[Measured]) -> Chart | None:
    """What came of each rate: answered, and answered well."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    marks: list[Mark] = []
    for i, side in enumerate(sides):
        steps = summary.by_rate(side)
        if not steps:
            continue
        answered: list[Point] = [(step.at, step.part.answered_per_second) for step in steps]
        good: list[Point] = [(step.at, step.part.goodput_per_second) for step in steps]
        lines.append(Line(_label(sides, side, "answered"), answered, color=i, dash=2 * i + 1 if side.slo else 2 * i))
        if side.slo:
            lines.append(Line(_label(sides, side, "goodput"), good, color=i, dash=2 * i))
        at = summary.knee(steps)
        if at is not None and at < steps[-1].at:
            marks.append(Mark(at, _label(sides, side, f"knee {at:.4g}/s"), is_vertical=True))
        rows += [[f"{step.at:.4g}/s", side.label, *_step_cells(step)] for step in steps]
    if not rows:
        return None
    wanted: dict[float, Point] = {
        step.at: (step.at, len(step.part.judged) / step.part.seconds)
        for side in sides
        for step in summary.by_rate(side)
    }
    lines.append(Line("asked", [wanted[rate] for rate in sorted(wanted)], color=6, dash=2))
    plot = Plot(
        "What came of each rate",
        f"Requests a second that were answered, by the rate that was asked for: {_named(lines)}.",
        "arrivals a second, as the schedule wanted",
        "requests/s",
        lines,
        marks=marks,
    )
    caption = (
        f"Goodput is what was answered within the objectives. The knee is the last rate at which"
        f" {KEPT_SHARE:.0%} of it was; beyond it more traffic brings less. No knee marked: it was not reached."
    )
    head = ("rate", "side", "answered", "goodput", "within the objectives")
    return Chart(plot, caption, by_side(plot.title, head, rows))


# ---- what several of them share --------------------------------------------------------------------------------------


def _percentile_lines(
    sides: Sequence[Measured],
    steps_of: Callable[[Measured], list[Step]],
    values_of: Callable[[Measured], list[float]],
    at: str,
) -> tuple[list[Line], list[list[str]]]:
    lines: list[Line] = []
    rows: list[list[str]] = []
    for i, side in enumerate(sides):
        steps = [(step, values_of(step.part)) for step in steps_of(side)]
        if not any(values for _, values in steps):
            continue
        for dash, (name, q) in enumerate(PERCENTILES):
            points: list[Point] = [
                (step.at, quantile(values, q) if q <= 0.5 or len(values) >= LEAST_SAMPLES else None)
                for step, values in steps
            ]
            lines.append(Line(_label(sides, side, name), points, color=i, dash=dash + 2 * i))
        rows += [
            [at.format(step.at), side.label, *(ms(quantile(values, q)) for _, q in PERCENTILES), f"{len(values):,}"]
            for step, values in steps
        ]
    return [line for line in lines if any(y is not None for _, y in line.points)], rows


def _distribution(
    title: str,
    lines: Sequence[Line],
    told: Sequence[tuple[str, Callable[[float], float | None], int]],
    caption: str,
    sides: Sequence[Measured],
    objective: str,
) -> Chart:
    marks = [Mark(limit, f"objective {limit:g} ms", is_vertical=True) for limit in _limits(sides, objective)]
    plot = Plot(
        title,
        f"Share of all at or below a time in milliseconds, on a logarithmic axis: {_named(lines)}.",
        "ms (log)",
        "% at or below",
        lines,
        x_log=True,
        marks=[*marks, Mark(99, "99 %")],
        y_top=100,
    )
    shares = (0.1, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)
    head = ("", "count", *("most" if q == 1 else f"p{q * 100:g}" for q in shares))
    rows = [[label, f"{count:,}", *(ms(of(q)) for q in shares)] for label, of, count in told]
    return Chart(plot, caption, Table(title, head, rows))


def _parts(sides: Sequence[Measured]) -> list[Measured]:
    """The sides themselves; of a run alone also its scenarios, where there are several and not too many to tell."""
    if len(sides) > 1 or len(sides[0].scenarios) < 2:
        return list(sides)
    named = [part for name in sides[0].scenarios if len((part := sides[0].of(name)).answered) >= LEAST_SAMPLES]
    return [replace(sides[0], label="all"), *named] if len(named) < 2 * COLORS else list(sides)


def _step_cells(step: Step) -> list[str]:
    answered, good = step.part.answered_per_second or 0.0, step.part.goodput_per_second or 0.0
    if not step.part.slo:
        return [f"{digits(answered)}/s", NONE, NONE]
    return [f"{digits(answered)}/s", f"{digits(good)}/s", share(step.kept_share)]


def _ttft(side: Measured) -> list[float]:
    return side.ttft


def _total(side: Measured) -> list[float]:
    return side.total


def _label(sides: Sequence[Measured], side: Measured, kind: str) -> str:
    return kind if len(sides) == 1 else f"{side.label} {kind}"


def _named(lines: Sequence[Line]) -> str:
    return ", ".join(line.label for line in lines)


def _limits(sides: Sequence[Measured], objective: str) -> list[float]:
    return sorted({side.slo[objective] for side in sides if objective in side.slo})


def _objective(sides: Sequence[Measured], name: str) -> list[Mark]:
    return [Mark(limit, f"objective {limit:g} ms") for limit in _limits(sides, name)]
