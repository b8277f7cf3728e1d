"""Line plots as inline SVG. Pure: values in, text out.

Not a plotting library: reports must open from an archive in ten years without a network or JavaScript, follow the
reader's light or dark mode, and print. A library would add a megabyte to each report and would still need alternative
texts.

Colours and dashes are CSS classes (`c0`…, `d0`…) of `report.css`; no line is identified by colour alone.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 720, 300
LEFT, RIGHT, BOTTOM = 64, 18, 44
SHORT = 16
"""Height of a short mark."""
ROW = 18
"""Height of a row of the legend."""
LETTER = 8.0
"""Mean width of a letter in the legend, at the larger size that narrow pages use."""
COLORS, DASHES = 8, 4
Point = tuple[float, float | None]
"""(x, y); a y of None is a gap in the line."""


@dataclass(frozen=True, slots=True)
class Line:
    """One series. Lines of one subject share a colour, lines of one kind (a percentile) a dash pattern."""

    label: str
    points: Sequence[Point]
    color: int = 0
    dash: int = 0


@dataclass(frozen=True, slots=True)
class Mark:
    """A reference line across the plot: a limit, a knee, a percentile."""

    value: float
    label: str
    is_vertical: bool = False
    is_short: bool = False
    """A short vertical mark on the axis, for marks so many that they would hide the lines."""


@dataclass(frozen=True, slots=True)
class Plot:
    """A plot. `alt` is its text alternative."""

    title: str
    alt: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_log: bool = False
    y_log: bool = False
    marks: Sequence[Mark] = ()
    y_top: float | None = None
    """Upper end of the y axis. None: from the values."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Maps values to positions. `start` and `end` are the positions of `low` and `high`."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool

    def place(self, value: float) -> float:
        if self.is_log:
            value = max(value, self.low)
            part = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        return self.start + part * (self.end - self.start)

    def ticks(self) -> list[float]:
        return log_ticks(self.low, self.high) if self.is_log else even_ticks(self.low, self.high)

    def holds(self, value: float) -> bool:
        return self.low <= value <= self.high


def axis(values: Sequence[float], start: float, end: float, *, is_log: bool, from_zero: bool) -> Axis:
    """An axis that covers all values and ends at round numbers."""
    if is_log:
        positive = [value for value in values if value > 0] or [1.0]
        low, high = 10 ** math.floor(math.log10(min(positive))), 10 ** math.ceil(math.log10(max(positive)))
        # End at 1, 2 or 5 of a decade, to save space in a small plot.
        low = max(step * low for step in (1, 2, 5) if step * low <= min(positive) * (1 + 1e-9))
        high = min((high * part for part in (0.2, 0.5, 1) if high * part >= max(positive) * (1 - 1e-9)), default=high)
        return Axis(low, high if high > low else low * 10, start, end, is_log=True)
    low, high = min(values, default=0.0), max(values, default=1.0)
    low = min(low, 0.0) if from_zero else low
    if high <= low:
        high = low + 1
    step = tick_step(high - low)
    return Axis(math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step, start, end, is_log=False)


def tick_step(span: float, about: int = 6) -> float:
    """1, 2 or 5 times a power of ten, so that about `about` steps fill the span."""
    raw = span / about
    power = 10 ** math.floor(math.log10(raw))
    return float(next(step for step in (1, 2, 5, 10) if step * power >= raw * (1 - 1e-9)) * power)


def even_ticks(low: float, high: float) -> list[float]:
    step = tick_step(high - low)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) for i in range(first, math.floor(high / step + 1e-9) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Decades, with their 2 and 5 if the labels fit."""
    decades = range(math.floor(math.log10(low) + 1e-9), math.ceil(math.log10(high) - 1e-9) + 1)
    steps = (1, 2, 5) if len(decades) <= 5 else (1,)
    ticks = [step * 10.0**decade for decade in decades for step in steps]
    return [tick for tick in ticks if low * (1 - 1e-9) <= tick <= high * (1 + 1e-9)]


def labels(ticks: Sequence[float]) -> list[str]:
    """Labels of an axis: as few digits as tell its ticks apart, at least four."""
    texts: list[str] = []
    for digits in range(4, 16):
        texts = [number(tick, digits) for tick in ticks]
        if len(set(texts)) == len(set(ticks)):
            break
    return texts


def number(value: float, digits: int = 4) -> str:
    """Format a tick label with at most `digits` significant digits."""
    for limit, letter in ((1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= limit:
            unit = 1e3 if letter == "k" else limit
            return f"{value / unit:.{digits}g}{letter}"
    return f"{value:.{digits}g}"


def draw(plot: Plot, ident: str) -> str:
    """Return the `<svg>` element. `ident` must be unique on the page; title and description use it as id."""
    legend = list(_legend(plot.lines))
    top = 12 + ROW * (1 + max((row for row, _, _ in legend), default=-1))
    height = HEIGHT + top - 12
    points = [(x, y) for line in plot.lines for x, y in line.points if y is not None]
    marks_y = [mark.value for mark in plot.marks if not mark.is_vertical]
    xs = axis([x for x, _ in points], LEFT, WIDTH - RIGHT, is_log=plot.x_log, from_zero=False)
    highest = [plot.y_top] if plot.y_top is not None else []
    heights = [*(y for _, y in points), *highest, *(marks_y if plot.y_top is None else [])]
    ys = axis(heights, height - BOTTOM, top, is_log=plot.y_log, from_zero=True)
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-labelledby="{ident}-t {ident}-d" class="plot">',
        f'<title id="{ident}-t">{escape(plot.title)}</title><desc id="{ident}-d">{escape(plot.alt)}</desc>',
        *_grid(plot, xs, ys),
        *(_path(line, xs, ys) for line in plot.lines),
        *_marks(plot, xs, ys),
        *_keys(plot.lines, legend),
        "</svg>",
    ]
    return "\n".join(parts)


def _grid(plot: Plot, xs: Axis, ys: Axis) -> Iterator[str]:
    rows, columns = ys.ticks(), xs.ticks()
    for tick, label in zip(rows, labels(rows), strict=True):
        y = ys.place(tick)
        yield f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
        yield f'<text class="tick end" x="{LEFT - 7}" y="{y + 4:.1f}">{label}</text>'
    for tick, label in zip(columns, labels(columns), strict=True):
        x = xs.place(tick)
        yield f'<path class="grid" d="M{x:.1f} {ys.start:.1f}V{ys.end:.1f}"/>'
        yield f'<text class="tick middle" x="{x:.1f}" y="{ys.start + 16:.1f}">{label}</text>'
    yield f'<path class="axis" d="M{LEFT} {ys.end:.1f}V{ys.start:.1f}H{WIDTH - RIGHT}"/>'
    yield (
        f'<text class="label middle" x="{(LEFT + WIDTH - RIGHT) / 2:.0f}" y="{ys.start + 36:.0f}">'
        f"{escape(plot.x_label)}</text>"
    )
    middle = (ys.start + ys.end) / 2
    yield (
        f'<text class="label middle" transform="translate(14 {middle:.0f}) rotate(-90)">{escape(plot.y_label)}</text>'
    )


def _marks(plot: Plot, xs: Axis, ys: Axis) -> Iterator[str]:
    """Reference lines with labels; the labels of vertical lines are stacked above the axis."""
    row = 0
    for mark in plot.marks:
        label = escape(mark.label)
        if mark.is_vertical and xs.holds(mark.value):
            x, y = xs.place(mark.value), ys.start - 8 - 15 * row
            row += 1
            side, beside = ("end", x - 5) if x > (LEFT + WIDTH) / 2 else ("begin", x + 5)
            top = ys.start - SHORT if mark.is_short else ys.end
            yield f'<path class="mark" d="M{x:.1f} {ys.start:.1f}V{top:.1f}"/>'
            if label:
                yield f'<text class="tick halo {side}" x="{beside:.1f}" y="{y:.1f}">{label}</text>'
        elif not mark.is_vertical and ys.holds(mark.value):
            y = ys.place(mark.value)
            yield f'<path class="mark" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            beside = y - 4 if y > ys.end + 14 else y + 13  # above its line, unless it is at the top of the plot
            yield f'<text class="tick halo" x="{LEFT + 5}" y="{beside:.1f}">{label}</text>'


def _path(line: Line, xs: Axis, ys: Axis) -> str:
    pieces: list[list[str]] = [[]]
    for x, y in line.points:
        if y is None:
            pieces.append([])
        else:
            pieces[-1].append(f"{xs.place(x):.1f} {ys.place(y):.1f}")
    kind = f"c{line.color % COLORS} d{line.dash % DASHES}"
    drawn = "".join(f"M{'L'.join(piece)}" for piece in pieces if len(piece) > 1)
    # A single point between two gaps becomes a dot.
    lone = (piece[0].split() for piece in pieces if len(piece) == 1)
    dots = "".join(f'<circle class="dot {kind}" cx="{x}" cy="{y}" r="3"/>' for x, y in lone)
    return f'<path class="line {kind}" d="{drawn}"/>{dots}' if drawn else dots


def _legend(lines: Sequence[Line]) -> Iterator[tuple[int, float, Line]]:
    """Row and position of each line's legend entry. A single line has none; the title names it."""
    row, x = 0, float(LEFT)
    for line in lines if len(lines) > 1 else ():
        width = 34 + LETTER * len(line.label) + 14
        if x + width > WIDTH - RIGHT and x > LEFT:
            row, x = row + 1, float(LEFT)
        yield row, x, line
        x += width


def _keys(lines: Sequence[Line], legend: Sequence[tuple[int, float, Line]]) -> Iterator[str]:
    for row, x, line in legend:
        y = 12 + ROW * row
        kind = f"c{line.color % COLORS} d{line.dash % DASHES}"
        yield f'<path class="line {kind}" d="M{x:.0f} {y - 4}h26"/>'
        yield f'<text class="key" x="{x + 32:.0f}" y="{y}">{escape(line.label)}</text>'
