"""Writes `report.html` of a result folder, from its files alone, so that it can be regenerated at any time.

The page starts with the verdict, a plot and a description of the run; more plots follow, with hints on how
to read them. Plots are inline SVG (see `plots.py`); the page needs no network and no scripts.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

from quarterdeck.load.analysis import budgets, results, summary
from quarterdeck.load.analysis.budgets import Verdict
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.measures import digits, ms, share
from quarterdeck.load.analysis.results import Results
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report import charts, comparison, events, page, process_charts, summary_text, tables
from quarterdeck.load.report.page import Page

FILENAME = "report.html"
FILES = {
    "run.json": "profile, seed, target and machine",
    "requests.csv": "one row per request: times, tokens, outcome, request id",
    "itl.json": "histograms of the gaps between tokens",
    "processes.csv": "memory and CPU time of each process, every second",
    "metrics.csv": "the gateway's metrics, every second",
    "events.csv": "injected faults",
    "budgets.json": "budget verdicts",
}
GLOSSARY = (
    "TTFT is the time to first token: from when a request was due until its answer began. A gap (ITL, inter-token"
    " latency) is the time between two chunks of a stream. 99 of 100 values are below p99. Goodput counts only answers"
    " within the objectives. Arrivals form an open loop unless stated otherwise: a slow server does not get fewer"
    " requests, as it would if each user waited for an answer, and a request sent late counts from when it was due"
    " (coordinated omission)."
)


def write(folder: Path, other: Path | None = None) -> Path:
    """Write the page of a run, or the comparison of two, into the first run's folder.

    Raises ResultsError or BudgetError if a folder can't be read.
    """
    run = results.read(folder)
    if other is None:
        file, html = folder / FILENAME, render(run, budgets.read(folder))
    else:
        beside = results.read(other)
        file, html = folder / f"against-{beside.name}.html", comparison.render(run, beside)
    file.write_text(html, encoding="utf-8")
    return file


def render(run: Results, verdicts: Sequence[Verdict] = ()) -> str:
    """The page of one run."""
    sides = summary.sides(run)
    document = Page(_title(run))
    lead = document.chart(events.marked(charts.latency_over_time(sides), run.events))
    document.section("Budgets", page.table(tables.verdicts(verdicts)))
    document.section(
        "Latency",
        page.table(tables.overall(sides, _overall_caption(sides, run))),
        document.chart(charts.latency_by_rate(sides)),
        document.chart(charts.first_token_distribution(sides)),
        document.chart(charts.gap_distribution(sides)),
        page.table(tables.scenarios(sides)),
    )
    document.section(
        "Throughput",
        document.chart(events.marked(charts.throughput(sides), run.events)),
        document.chart(charts.token_throughput(sides)),
        document.chart(charts.knee(sides)),
    )
    document.section("Objectives", page.table(tables.objectives(sides)))
    document.section("Outcomes", page.table(tables.outcomes(sides)), page.table(events.table(sides[0], run.events)))
    document.section("Caches", page.table(tables.caches(sides)))
    document.section(
        "Cost", page.table(tables.costs([("this run", run)])), page.paragraph(tables.counted_tokens(run), "soft")
    )
    document.section(
        "Processes",
        document.chart(events.marked(process_charts.memory([(run.name, run)]), run.events)),
        document.chart(process_charts.processors([(run.name, run)])),
    )
    document.section("Client", page.paragraph(summary_text.client_lag(sides[0])), page.table(tables.lag(sides)))
    document.section("Raw data", page.links(_raw(run)), page.paragraph(GLOSSARY, "soft"))
    return document.render(_head(run, sides, verdicts, lead))


def _title(run: Results) -> str:
    """The page's title: the profile's name, or the model's without a profile."""
    if run.run.profile != "command-line":
        return f"Load test: {run.run.profile}"
    return f"Load test of {summary_text.part_of(run.run.about, 'target').get('model', 'a model')}"


def _head(run: Results, sides: Sequence[Measured], verdicts: Sequence[Verdict], lead: str) -> Iterator[str]:
    """What stands before the sections: the verdict, the plot `lead`, caveats, the run's description."""
    word, sentence, kind = summary_text.headline(sides[0], verdicts)
    yield page.verdict(word, sentence, kind)
    yield lead
    if len(sides) == 2:
        yield page.verdict("Compared with the baseline:", summary_text.comparison_sentence(sides), "none")
        if note := summary_text.cache_note(sides):
            yield page.verdict("Caution:", note, "warn")
    late = summary.lag(sides[0])
    if late and late.is_late:
        yield page.verdict("Caution:", summary_text.client_lag(sides[0]), "warn")
    yield page.paragraph(summary_text.run_sentence(run, sides[0]))
    yield page.paragraph(summary_text.counts(run, sides[0]))
    yield page.tiles(_tiles(sides[0]))
    yield page.facts(summary_text.facts(run))
    for note in run.run.about.get("notes") or ():
        yield page.paragraph(str(note), "soft")


def _tiles(side: Measured) -> list[tuple[str, str]]:
    gaps = side.all_gaps
    pairs: list[tuple[str, str | None]] = [
        ("first token, p50", ms(quantile(side.ttft, 0.5)) if side.ttft else None),
        ("first token, p99", ms(quantile(side.ttft, 0.99)) if side.ttft else None),
        ("token gap, p50", ms(gaps.quantile(0.5)) if gaps and gaps.total else None),
        ("token gap, p99", ms(gaps.quantile(0.99)) if gaps and gaps.total else None),
        ("whole request, p50", ms(quantile(side.total, 0.5))),
        ("answered", f"{digits(side.answered_per_second)}/s" if side.answered_per_second is not None else None),
        ("output tokens", f"{digits(side.tokens_per_second)}/s" if side.tokens_per_second else None),
        ("within the objectives", share(side.goodput_share) if side.slo else None),
        ("errors", share(side.error_rate)),
    ]
    return [(name, value) for name, value in pairs if value is not None]


def _overall_caption(sides: Sequence[Measured], run: Results) -> str:
    if len(sides) < 2:
        return "Figures"
    rounds = "one after the other" if run.rounds == 1 else f"{run.rounds} rounds each, in alternating order"
    return f"Figures: target and baseline on the same schedule ({rounds})"


def _raw(run: Results) -> list[tuple[str, str, str]]:
    """The raw files, beside the page or in the rounds' folders."""
    rounds = sorted(file.parent for file in (run.folder / "rounds").glob("*/run.json"))
    folders = [run.folder] if (run.folder / "run.json").exists() else rounds
    found = []
    for folder in folders:
        for name, what in FILES.items():
            if (folder / name).exists():
                href = (folder / name).relative_to(run.folder).as_posix()
                found.append((href, href, what))
    return found
