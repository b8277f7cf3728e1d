"""The commands `report` and `check`, and the end of `run`: a result folder in, files and terminal output out.

Each returns an exit status: 0; 1, a budget is exceeded; 2, something can't be read (one line on stderr).
"""

import argparse
import sys
from pathlib import Path

from quarterdeck.load.analysis import budgets, ledger, results
from quarterdeck.load.analysis.budgets import BudgetError
from quarterdeck.load.analysis.results import ResultsError
from quarterdeck.load.report import run_report, terminal

BUDGETS = Path("loadtests/budgets.yaml")


def add_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path)
    parser.add_argument("other", type=Path, nargs="?")


def add_check_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path)
    parser.add_argument("--budgets", type=Path, default=BUDGETS, metavar="FILE", help="default: %(default)s")


def write_report(folder: Path, other: Path | None = None) -> int:
    """Write report.html; print the main figures and the file's path."""
    try:
        run = results.read(folder)
        text = terminal.figures(run, results.read(other) if other else None)
        file = run_report.write(folder, other)
    except (ResultsError, BudgetError, OSError) as error:
        return _failed(error)
    print(f"{text}\n\n{file}")
    return 0


def check(folder: Path, file: Path) -> int:
    """Check the run against its budgets; write budgets.json and print the verdicts."""
    try:
        verdicts = budgets.check(budgets.load(file), results.read(folder))
        budgets.write(folder, verdicts)
    except (ResultsError, BudgetError, OSError) as error:
        return _failed(error)
    print(terminal.verdict_lines(verdicts))
    return 0 if budgets.is_kept(verdicts) else 1


def finish_run(folder: Path, *, state: Path | None, budgets_file: Path | None, with_report: bool) -> int:
    """Present a run that just ended. `state`: the local platform's folder, whose ledger is compared."""
    try:
        run = results.read(folder)
        if state is not None and (comparison := ledger.read(state, run.requests)) is not None:
            ledger.write(folder, comparison)
            run = results.read(folder)
        print(f"\n{terminal.scenario_table(run)}\n")
        for line in terminal.remarks(run):
            print(line)
        verdicts = []
        if budgets_file is not None:
            verdicts = budgets.check(budgets.load(budgets_file), run)
            budgets.write(folder, verdicts)
        if with_report:
            print(f"Report: {run_report.write(folder)}")
    except (ResultsError, BudgetError, OSError) as error:
        return _failed(error)
    if verdicts:
        print(terminal.verdict_lines(verdicts))
    sys.stdout.flush()
    return 0 if budgets.is_kept(verdicts) else 1


def _failed(error: Exception) -> int:
    print(error, file=sys.stderr)
    return 2
