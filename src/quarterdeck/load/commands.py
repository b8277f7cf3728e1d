"""`report` and `check`: what a run's folder is turned into after the run, from a terminal. Files in, words out.

Each returns its exit status; what can't be done is one line on stderr and status 2.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from quarterdeck.load.analysis import budgets, results, summary
from quarterdeck.load.analysis.budgets import BudgetError, Verdict
from quarterdeck.load.analysis.measures import beside
from quarterdeck.load.analysis.results import Results, ResultsError
from quarterdeck.load.report import report, wording


def write_report(folder: Path, other: Path | None = None) -> int:
    """Write the page, print the figures and where it lies."""
    try:
        run = results.read(folder)
        told = text(run, results.read(other) if other else None)
        file = report.write(folder, other)
    except (ResultsError, BudgetError, OSError) as error:
        return _failed(error)
    print(f"{told}\n\n{file}")
    return 0


def check(folder: Path, file: Path) -> int:
    """Judge the run, leave the verdicts beside it, print them. Status 1: a budget is broken."""
    try:
        verdicts = budgets.check(budgets.load(file), results.read(folder))
        budgets.write(folder, verdicts)
    except (ResultsError, BudgetError, OSError) as error:
        return _failed(error)
    print(verdict_lines(verdicts))
    return 0 if budgets.is_kept(verdicts) else 1


def text(run: Results, other: Results | None = None) -> str:
    """The figures for a terminal: a run, a run beside its baseline, or two runs."""
    if other is not None:
        sides = [summary.measured(run, label="A"), summary.measured(other, label="B")]
        remarks = [wording.in_short(sides), wording.cache_note(sides)]
    else:
        sides = summary.sides(run)
        remarks = [wording.in_short(sides), wording.cache_note(sides)] if len(sides) == 2 else []
        remarks.append(wording.honesty(sides[0]))
    return "\n".join([table(*beside(sides)), "", *filter(None, remarks)])


def verdict_lines(verdicts: Sequence[Verdict]) -> str:
    """A line for each budget, the broken ones last: there the eye is."""
    order = {"kept": 0, "not judged": 1, "broken": 2}
    ordered = sorted(verdicts, key=lambda verdict: order[verdict.outcome])
    return "\n".join(f"{v.outcome:<11} {v.name}: {v.text}" for v in ordered) or "no budget is set"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The first column to the left, numbers to the right."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = []
    for row in [head, *rows]:
        numbers = (cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))
        lines.append("  ".join([row[0].ljust(widths[0]), *numbers]).rstrip())
    return "\n".join(lines)


def _failed(error: Exception) -> int:
    print(error, file=sys.stderr)
    return 2
