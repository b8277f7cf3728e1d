"""Two runs side by side: what was not the same in them, their ratios, and their plots over one another."""

from collections.abc import Iterator, Sequence

from quarterdeck.load import charts, page, process_charts, summary, tables
from quarterdeck.load.distribution import quantile
from quarterdeck.load.measures import ms, ratio
from quarterdeck.load.page import Page
from quarterdeck.load.results import Results
from quarterdeck.load.summary import Measured

MUST_BE_EQUAL = ("machine", "schedule", "seed")
"""Where one of these differs, a ratio may be the machine's or the traffic's, not the server's."""


def render(a: Results, b: Results) -> str:
    """The page. A ratio is A ÷ B: below one means that A took less time, or did fewer."""
    sides = [summary.measured(a, label="A"), summary.measured(b, label="B")]
    runs = [("A", a), ("B", b)]
    document = Page(f"A {a.name} beside B {b.name}")
    document.section("What was not the same", page.table(tables.differences(a, b)) or page.paragraph("Nothing."))
    document.section(
        "In numbers",
        page.table(tables.overall(sides, "A ÷ B: below 1 A took less time, or did fewer")),
        page.table(tables.scenarios(sides)),
    )
    document.section(
        "Latency",
        document.chart(charts.latency_over_time(sides)),
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
    document.section("The client", page.table(tables.lag(sides)))
    return document.render(_head(a, b, sides))


def _head(a: Results, b: Results, sides: Sequence[Measured]) -> Iterator[str]:
    unequal = [name for name in MUST_BE_EQUAL if a.run.about.get(name) != b.run.about.get(name)]
    if unequal:
        word = "Compare with care:"
        yield page.verdict(
            word, f"the runs differ in {' and '.join(unequal)}, which alone can make a difference.", "bad"
        )
    yield page.verdict("In short:", in_short(sides), "none")
    yield page.facts([("A", f"{a.run.profile}: {a.folder}"), ("B", f"{b.run.profile}: {b.folder}")])


def in_short(sides: Sequence[Measured]) -> str:
    """The two runs in a sentence."""
    a, b = sides
    name, values = (
        ("time to first token", (a.ttft, b.ttft)) if a.ttft and b.ttft else ("whole request", (a.total, b.total))
    )
    parts = []
    for label, q in (("p50", 0.5), ("p99", 0.99)):
        x, y = (quantile(told, q) for told in values)
        if x is not None and y is not None:
            parts.append(f"{label} {ms(x)} against {ms(y)} ({ratio(x, y)})")
    said = f"{name}: {', '.join(parts)}" if parts else "One of the runs has no answers"
    return f"{said}; errors {a.errors:,} of {len(a.judged):,} against {b.errors:,} of {len(b.judged):,}."
