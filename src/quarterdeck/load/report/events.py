"""What was done to the target while it ran (a soak's faults): as marks in plots over time, and as a table. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.measures import NONE, ms
from quarterdeck.load.analysis.results import Event
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report.page import Chart, Table
from quarterdeck.load.report.plots import Mark

NAMED = 8
"""More names would lie upon one another: the table tells them then."""


def marked(chart: Chart | None, events: Sequence[Event]) -> Chart | None:
    """The plot with an upright line for each."""
    if chart is None or not events:
        return chart
    is_short = len(events) > NAMED
    marks = [Mark(one.at, "" if is_short else one.name, is_vertical=True, is_short=is_short) for one in events]
    plot = replace(chart.plot, marks=(*chart.plot.marks, *marks))
    return replace(chart, plot=plot, caption=f"{chart.caption} Upright lines: something was done on purpose then.")


def table(side: Measured, events: Sequence[Event]) -> Table:
    """Each with what became of the requests that were under way."""
    rows = []
    for one in events:
        met = [request for request in side.requests if request.ended >= one.at and request.started <= one.ended]
        answered = sorted(request.answer_ms for request in met if request.is_ok)
        rows.append(
            [
                f"{one.at:.0f} s",
                one.name,
                f"{one.ended - one.at:.1f} s",
                f"{len(met):,}",
                f"{sum(request.is_error for request in met):,}",
                ms(quantile(answered, 0.99)) if answered else NONE,
            ]
        )
    head = ("at", "what was done", "took", "requests under way", "errors", "first answer, p99")
    return Table("What was done on purpose, and whom it met", head, rows, frozenset({1}))
