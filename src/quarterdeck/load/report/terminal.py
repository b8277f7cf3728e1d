"""A run's results as text for a terminal: tables, remarks, budget verdicts. Pure."""

from collections.abc import Sequence

from quarterdeck.load.analysis import budgets, summary
from quarterdeck.load.analysis.budgets import Verdict
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.measures import beside, digits, ms
from quarterdeck.load.analysis.results import Results
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report import summary_text

SCENARIO_COLUMNS = (
    "scenario", "requests", "errors", "TTFT p50", "p99", "ITL p50", "p99", "whole p50", "p99", "tokens/s", "goodput/s",
)  # fmt: skip


def figures(run: Results, other: Results | None = None) -> str:
    """The main figures of a run, of a run and its baseline, or of two runs."""
    if other is not None:
        sides = [summary.measured(run, label="A"), summary.measured(other, label="B")]
        notes = [summary_text.comparison_sentence(sides), summary_text.cache_note(sides)]
    else:
        sides = summary.sides(run)
        notes = [summary_text.comparison_sentence(sides), summary_text.cache_note(sides)] if len(sides) == 2 else []
        notes.append(summary_text.client_lag(sides[0]))
    return "\n".join([table(*beside(sides)), "", *filter(None, notes)])


def scenario_table(run: Results) -> str:
    """A row per scenario and one for all. Latencies count from when a request was due."""
    whole = summary.measured(run)
    rows = [_cells(whole.of(name)) for name in whole.scenarios]
    if len(rows) > 1:
        rows.append(_cells(whole, "all"))
    return table(SCENARIO_COLUMNS, rows)


def _cells(part: Measured, name: str | None = None) -> list[str]:
    gaps = part.all_gaps
    return [
        name or part.label,
        f"{len(part.requests):,}",
        f"{part.errors:,}",
        *(ms(quantile(part.ttft, q)) for q in (0.5, 0.99)),
        *(ms(gaps.quantile(q) if gaps else None) for q in (0.5, 0.99)),
        *(ms(quantile(part.total, q)) for q in (0.5, 0.99)),
        digits(part.tokens_per_second or 0.0),
        digits(part.goodput_per_second or 0.0),
    ]


def remarks(run: Results) -> list[str]:
    """Errors by outcome, a slow client, and the run's notes."""
    whole = summary.measured(run)
    errors: dict[str, int] = {}
    for request in whole.requests:
        if request.is_error:
            errors[request.outcome] = errors.get(request.outcome, 0) + 1
    found = [f"Errors: {', '.join(f'{count} {name}' for name, count in sorted(errors.items()))}"] if errors else []
    lag = summary.lag(whole)
    if lag is not None and lag.is_late:
        found.append(summary_text.client_lag(whole))
    found.append(summary_text.counts(run, whole))
    return [*found, *(str(note) for note in run.run.about.get("notes") or ())]


def verdict_lines(verdicts: Sequence[Verdict]) -> str:
    """One line per budget; exceeded ones last, where the reader looks first, and unchecked ones first. A budget for
    each process that was checked of none is one line."""
    order = {"not judged": 0, "kept": 1, "broken": 2}
    ordered = sorted(budgets.joined(verdicts), key=lambda verdict: order[verdict.outcome])
    return "\n".join(f"{v.outcome:<11} {v.name}: {v.text}" for v in ordered) or "no budgets set"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """First column left-aligned, the others right-aligned."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(lines)
