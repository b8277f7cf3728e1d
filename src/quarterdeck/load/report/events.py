"""Faults injected during a run (a soak): marks in plots over time, and a table. Pure."""

from collections.abc import Sequence
from dataclasses import replace

from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.measures import NONE, ms
from quarterdeck.load.analysis.results import Event
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report.page import Chart, Table
from quarterdeck.load.report.plots import Mark

NAMED = 8
"""Maximum number of named marks; more names would overlap, and the table has them."""


def marked(chart: Chart | None, events: Sequence[Event]) -> Chart | None:
    """Add a vertical line per event to the plot."""
    if chart is None or not events:
        return chart
    is_short = len(events) > NAMED
    marks = [Mark(one.at, "" if is_short else one.name, is_vertical=True, is_short=is_short) for one in events]
    plot = replace(chart.plot, marks=(*chart.plot.marks, *marks))
    return replace(chart, plot=plot, caption=f"{chart.caption} Vertical lines mark injected faults.")


def table(side: Measured, events: Sequence[Event]) -> Table:
    """A row per event, with the results of the requests in flight."""
    rows = []
    for one in events:
        in_flight = [request for request in side.requests if request.ended >= one.at and request.started <= one.ended]
        answered = sorted(request.answer_ms for request in in_flight if request.is_ok)
        rows.append(
            [
                f"{one.at:.0f} s",
                one.name,
                f"{one.ended - one.at:.1f} s",
                f"{len(in_flight):,}",
                f"{sum(request.is_error for request in in_flight):,}",
                ms(quantile(answered, 0.99)) if answered else NONE,
            ]
        )
    head = ("at", "fault", "duration", "requests in flight", "errors", "first answer, p99")
    return Table("Injected faults and affected requests", head, rows, frozenset({1}))
