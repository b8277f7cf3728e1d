"""Compares two runs: differences in their setup, ratios, and common plots."""

from collections.abc import Iterator, Sequence

from quarterdeck.load.analysis import summary
from quarterdeck.load.analysis.results import Results
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report import charts, page, process_charts, summary_text, tables
from quarterdeck.load.report.page import Page

MUST_BE_EQUAL = ("machine", "schedule", "seed")
"""If one of these differs, a ratio may reflect the machine or the traffic instead of the server."""


def render(a: Results, b: Results) -> str:
    """Return the page. Ratios are A ÷ B: below 1, A took less time or did fewer."""
    sides = [summary.measured(a, label="A"), summary.measured(b, label="B")]
    runs = [("A", a), ("B", b)]
    document = Page(f"A {a.name} compared with B {b.name}")
    lead = document.chart(charts.latency_over_time(sides))
    document.section("Differences", page.table(tables.differences(a, b)) or page.paragraph("No differences."))
    document.section(
        "Figures",
        page.table(tables.overall(sides, "A ÷ B: below 1, A took less time or did fewer")),
        page.table(tables.scenarios(sides)),
    )
    document.section(
        "Latency",
        document.chart(charts.latency_by_rate(sides)),
        document.chart(charts.first_token_distribution(sides)),
        document.chart(charts.gap_distribution(sides)),
    )
    document.section(
        "Throughput",
        document.chart(charts.throughput(sides)),
        document.chart(charts.token_throughput(sides)),
        document.chart(charts.knee(sides)),
        page.table(tables.objectives(sides)),
    )
    document.section("Outcomes", page.table(tables.outcomes(sides)))
    document.section("Caches and cost", page.table(tables.caches(sides)), page.table(tables.costs(runs)))
    document.section(
        "Processes", document.chart(process_charts.memory(runs)), document.chart(process_charts.processors(runs))
    )
    document.section("Client", page.table(tables.lag(sides)))
    return document.render(_head(a, b, sides, lead))


def _head(a: Results, b: Results, sides: Sequence[Measured], lead: str) -> Iterator[str]:
    unequal = [name for name in MUST_BE_EQUAL if a.run.about.get(name) != b.run.about.get(name)]
    if unequal:
        word = "Caution:"
        yield page.verdict(
            word, f"the runs differ in {' and '.join(unequal)}, which may explain any difference.", "warn"
        )
    yield page.verdict("Summary:", summary_text.comparison_sentence(sides), "none")
    yield lead
    if note := summary_text.cache_note(sides):
        yield page.verdict("Caution:", note, "warn")
    for label, run in (("A", a), ("B", b)):
        yield page.paragraph(f"{label}: {run.name}, {run.run.profile}.")
        yield page.facts(summary_text.facts(run))
