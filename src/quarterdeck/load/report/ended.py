"""What is said when a run is over: its table, its report, its budgets. From the folder alone, by the exit status."""

import sys
from pathlib import Path

from quarterdeck.load import commands
from quarterdeck.load.analysis import budgets, ledger, results, summary
from quarterdeck.load.analysis.budgets import BudgetError
from quarterdeck.load.analysis.distribution import quantile
from quarterdeck.load.analysis.measures import digits, ms
from quarterdeck.load.analysis.results import Results, ResultsError
from quarterdeck.load.analysis.summary import Measured
from quarterdeck.load.report import report
from quarterdeck.load.run import recording

HEAD = (
    "scenario", "requests", "errors", "TTFT p50", "p99", "ITL p50", "p99", "whole p50", "p99", "tokens/s", "goodput/s",
)  # fmt: skip


def tell(folder: Path, budgets_file: Path | None, state: Path | None, *, with_report: bool) -> int:
    """Exit status: 0; 1, a budget is broken; 2, something can't be read. `state`: the local platform's."""
    try:
        run = results.read(folder)
        if state is not None and (books := ledger.read(state, run.requests)) is not None:
            recording.amend(folder, {"ledger": books.about()}, books.line())
            run = results.read(folder)
        print(f"\n{table(run)}\n")
        for line in remarks(run):
            print(line)
        verdicts = []
        if budgets_file is not None:
            verdicts = budgets.check(budgets.load(budgets_file), run)
            budgets.write(folder, verdicts)
        if with_report:
            print(f"Report: {report.write(folder)}")
    except (ResultsError, BudgetError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    if verdicts:
        print(commands.verdict_lines(verdicts))
    sys.stdout.flush()
    return 0 if budgets.is_kept(verdicts) else 1


def table(run: Results) -> str:
    """A line a scenario, and one for all of them. Latencies in ms, from when a request was wanted."""
    whole = summary.measured(run)
    rows = [_cells(whole.of(name)) for name in whole.scenarios]
    if len(rows) > 1:
        rows.append(_cells(whole, "all"))
    return commands.table(HEAD, rows)


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
    """What a reader of the table must know."""
    whole = summary.measured(run)
    errors: dict[str, int] = {}
    for request in whole.requests:
        if request.is_error:
            errors[request.outcome] = errors.get(request.outcome, 0) + 1
    found = [f"Errors: {', '.join(f'{count} {name}' for name, count in sorted(errors.items()))}"] if errors else []
    lag = summary.lag(whole)
    if lag is not None and lag.is_bottleneck:
        found.append(f"The client was the bottleneck: it sent {lag.p50:.1f} ms late (p50), {lag.p99:.1f} ms (p99).")
    return [*found, *(str(note) for note in run.run.about.get("notes") or ())]
