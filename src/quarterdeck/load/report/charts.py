"""The report's charts: plots with captions on how to read them, and their numbers as tables. Pure.

Each function takes the sides of a comparison (one run, a run and its baseline, or two runs) and draws them in one plot:
colours distinguish sides, dashes percentiles.
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
"""Quantiles at which a distribution is drawn: even steps, finer towards the end."""
MIN_SAMPLES = 20
"""Minimum number of answers for a meaningful p99; the line has a gap otherwise."""


def latency_over_time(sides: Sequence[Measured]) -> Chart | None:
    """Time to first token over time, or the whole request if nothing is streamed."""
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
        "Level lines are good. A climb at a constant rate means that a queue grows; a single peak is an event: compare"
        " its time with the processes below."
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
        "scheduled arrivals per second",
        "ms (log)",
        lines,
        y_log=True,
        marks=_objective(sides, "ttft_ms" if is_stream else "total_ms"),
    )
    caption = "From the rate at which p99 departs from p50, requests queue."
    return Chart(plot, caption, by_side(plot.title, ("rate", "side", "p50", "p99", "answered"), rows))


def first_token_distribution(sides: Sequence[Measured]) -> Chart | None:
    drawn = [(side.label, side.ttft) for side in _parts(sides) if side.ttft]
    lines = [
        Line(label, [(max(quantile(values, q) or 0, 0.01), q * 100) for q in SHARES], color=i, dash=i)
        for i, (label, values) in enumerate(drawn)
    ]
    if not lines:
        return None
    quantiles = [(label, lambda q, values=values: quantile(values, q), len(values)) for label, values in drawn]
    caption = (
        "50 % is the typical request, 99 % the worst in a hundred. A steep curve is predictable; a long flat shoulder"
        " is a second group of requests (a queue, a cold cache)."
    )
    return _distribution("Time to first token: distribution", lines, quantiles, caption, sides, "ttft_ms")


def gap_distribution(sides: Sequence[Measured]) -> Chart | None:
    drawn = [(side.label, gaps) for side in _parts(sides) if (gaps := side.all_gaps) and gaps.total]
    lines = [
        Line(label, [(max(x, 0.01), y * 100) for x, y in gaps.cumulative()], color=i, dash=i)
        for i, (label, gaps) in enumerate(drawn)
    ]
    if not lines:
        return None
    quantiles = [(label, gaps.quantile, gaps.total) for label, gaps in drawn]
    caption = (
        "Gaps between the chunks of all streams. Steps are batches: an engine that decodes in turns sends chunks in"
        " bursts. Gaps below about 50 ms read as smooth."
    )
    return _distribution("Gaps between tokens: distribution", lines, quantiles, caption, sides, "itl_ms")


def throughput(sides: Sequence[Measured]) -> Chart | None:
    """Requests, answers and errors per second, without misbehaving clients."""
    lines: list[Line] = []
    rows: list[list[str]] = []
    for i, side in enumerate(sides):
        steps = summary.over_time(side)
        kinds: tuple[tuple[str, int, Callable[[Measured], int]], ...] = (
            ("requests", 1, lambda part: len(part.judged)),
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
        "Requests per second",
        f"Requests per second over the run: {_named(lines)}.",
        "due time, in seconds since the start",
        "requests/s",
        lines,
    )
    caption = "Answers should match requests. Where they are lower, requests failed: see the table of outcomes."
    return Chart(plot, caption, by_side(plot.title, ("at", "side", "requests", "answered", "errors"), rows))


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
        "Output tokens per second",
        f"Output tokens per second over the run: {_named(lines)}.",
        "due time, in seconds since the start",
        "tokens/s",
        lines,
    )
    caption = (
        "Output of the engines over all streams. A level line at a rising rate means that the engines are saturated."
    )
    return Chart(plot, caption, by_side(plot.title, ("at", "side", "tokens/s"), rows))


def knee(sides: Sequence[Measured]) -> Chart | None:
    """Answers and goodput at each rate."""
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
    scheduled: dict[float, Point] = {
        step.at: (step.at, len(step.part.judged) / step.part.seconds)
        for side in sides
        for step in summary.by_rate(side)
    }
    lines.append(Line("requests", [scheduled[rate] for rate in sorted(scheduled)], color=6, dash=2))
    plot = Plot(
        "Answers by rate",
        f"Answered requests per second by scheduled rate: {_named(lines)}.",
        "scheduled arrivals per second",
        "requests/s",
        lines,
        marks=marks,
    )
    caption = (
        f"Goodput counts answers within the objectives. The knee is the last rate at which {KEPT_SHARE:.0%} of the"
        " requests are within them; beyond it more traffic brings less. No mark: the knee was not reached."
    )
    head = ("rate", "side", "answered", "goodput", "within the objectives")
    return Chart(plot, caption, by_side(plot.title, head, rows))


# ---- shared parts ----------------------------------------------------------------------------------------------------


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
                (step.at, quantile(values, q) if q <= 0.5 or len(values) >= MIN_SAMPLES else None)
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
    quantiles: Sequence[tuple[str, Callable[[float], float | None], int]],
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
    head = ("", "count", *("max" if q == 1 else f"p{q * 100:g}" for q in shares))
    rows = [[label, f"{count:,}", *(ms(of(q)) for q in shares)] for label, of, count in quantiles]
    return Chart(plot, caption, Table(title, head, rows))


def _parts(sides: Sequence[Measured]) -> list[Measured]:
    """The sides; for a single run also its scenarios, if there are several and they remain distinguishable."""
    if len(sides) > 1 or len(sides[0].scenarios) < 2:
        return list(sides)
    named = [part for name in sides[0].scenarios if len((part := sides[0].of(name)).answered) >= MIN_SAMPLES]
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
