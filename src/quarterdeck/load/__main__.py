"""`python -m quarterdeck.load run | report | check`: the entry point of load tests, in the environment `load`."""

import argparse
import functools
import sys

from quarterdeck.load.report import commands
from quarterdeck.load.run import command as run_command


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="python -m quarterdeck.load",
        description="Load-test any OpenAI-compatible server. Start with: run",
    )
    subparsers = made.add_subparsers(dest="command", required=True, metavar="run | report | check")
    run_command.add_arguments(subparsers.add_parser("run", help="run a profile, write its results and check budgets"))
    commands.add_report_arguments(
        subparsers.add_parser("report", help="write report.html for a result folder, or compare two")
    )
    commands.add_check_arguments(
        subparsers.add_parser("check", help="check a result folder against budgets; exit 1 if one is exceeded")
    )
    return made


def main() -> int:
    options = parser().parse_args()
    if options.command == "report":
        return commands.write_report(options.folder, options.other)
    if options.command == "check":
        return commands.check(options.folder, options.budgets)
    finished = functools.partial(commands.finish_run, budgets_file=options.budgets, with_report=not options.no_report)
    return run_command.run(options, finished)


if __name__ == "__main__":
    sys.exit(main())
