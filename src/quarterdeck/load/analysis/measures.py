"""Number formats, and the measures from which all tables of figures are built. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.summary import Measured

NONE = "–"
Unit = Literal["ms", "/s", "share", "count"]


@dataclass(frozen=True, slots=True)
class Measure:
    """A number of a run: its name, unit, direction and how to get it."""

    name: str
    unit: Unit
    of: Callable[[Measured], float | None]
    is_lower_better: bool = True


def _gap(q: float) -> Callable[[Measured], float | None]:
    return lambda side: side.all_gaps.quantile(q) if side.all_gaps else None


def _ttft(q: float) -> Callable[[Measured], float | None]:
    return lambda side: quantile(side.ttft, q)


def _total(q: float) -> Callable[[Measured], float | None]:
    return lambda side: quantile(side.total, q)


LATENCIES = (
    Measure("time to first token, p50", "ms", _ttft(0.5)),
    Measure("time to first token, p90", "ms", _ttft(0.9)),
    Measure("time to first token, p99", "ms", _ttft(0.99)),
    Measure("gap between tokens, p50", "ms", _gap(0.5)),
    Measure("gap between tokens, p99", "ms", _gap(0.99)),
    Measure("whole request, p50", "ms", _total(0.5)),
    Measure("whole request, p99", "ms", _total(0.99)),
)
RATES = (
    Measure("requests", "count", lambda side: len(side.requests), is_lower_better=False),
    Measure("answered", "/s", lambda side: side.answered_per_second, is_lower_better=False),
    Measure("output tokens", "/s", lambda side: side.tokens_per_second, is_lower_better=False),
    Measure("goodput", "/s", lambda side: side.goodput_per_second, is_lower_better=False),
    Measure("within the objectives", "share", lambda side: side.goodput_share, is_lower_better=False),
    Measure("errors", "share", lambda side: side.error_rate),
)
MEASURES = (*LATENCIES, *RATES)


def measures(side: Measured) -> tuple[Measure, ...]:
    """The measures that apply: goodput requires objectives."""
    return tuple(f for f in MEASURES if side.slo or f.name not in ("goodput", "within the objectives"))


def beside(sides: Sequence[Measured]) -> tuple[list[str], list[list[str]]]:
    """Table head and rows: the measures of one side, or of two sides with difference and ratio."""
    head = ["", *(side.label for side in sides)]
    if len(sides) == 2:
        head += ["difference", f"{sides[0].label} ÷ {sides[1].label}"]
    rows = []
    for measure in measures(sides[0]):
        values = [measure.of(side) for side in sides]
        if all(value is None for value in values):
            continue
        row = [measure.name, *(shown(value, measure.unit) for value in values)]
        if len(sides) == 2:
            row += [difference(values[0], values[1], measure.unit), ratio(values[0], values[1])]
        rows.append(row)
    return head, rows


def shown(value: float | None, unit: Unit) -> str:
    """Format a value with its unit."""
    if value is None:
        return NONE
    match unit:
        case "ms":
            return ms(value)
        case "share":
            return share(value)
        case "/s":
            return f"{digits(value)}/s"
        case "count":
            return f"{value:,.0f}"


def ms(value: float | None) -> str:
    """Format milliseconds; 10 s and more as seconds."""
    if value is None:
        return NONE
    return f"{value / 1e3:.1f} s" if abs(value) >= 10_000 else f"{digits(value)} ms"


def digits(value: float) -> str:
    """Format with three significant digits and thousands separators."""
    size = abs(value)
    return f"{value:.2f}" if size < 9.995 else f"{value:.1f}" if size < 99.95 else f"{value:,.0f}"


def share(value: float | None) -> str:
    """Format a share as per cent, such that small values do not round to 0 %, nor large ones to 100 %."""
    if value is None:
        return NONE
    percent = value * 100
    if 0 < abs(percent) < 0.01:
        return "< 0.01 %" if percent > 0 else "> −0.01 %"
    # 99.996 % must not read as 100 %.
    if 99.99 < percent < 100:
        return "> 99.99 %"
    return f"{percent:.4g} %" if percent > 99 else f"{percent:.3g} %"


def ratio(a: float | None, b: float | None) -> str:
    return NONE if a is None or not b else f"{a / b:.2f}×"


def difference(a: float | None, b: float | None, unit: Unit) -> str:
    """The difference of two latencies, such as the time that a gateway adds; "" for other units."""
    if a is None or b is None or unit != "ms":
        return ""
    sign = "" if abs(a - b) < 0.005 else "+" if a > b else "−"
    return f"{sign}{ms(abs(a - b))}"


def mib(count: float) -> str:
    return f"{digits(count / 2**20)} MiB"


def duration(seconds: float) -> str:
    """Format seconds as `90 s`, `12 min` or `1 h 30 min`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if rest else f"{hours} h"


def dollars(value: float | None) -> str:
    if value is None:
        return NONE
    return f"$ {value:,.2f}" if abs(value) >= 10 else f"$ {value:.6g}"
