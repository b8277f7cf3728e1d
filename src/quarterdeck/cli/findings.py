"""Results of `quarterdeck doctor`'s checks."""

import sys
from dataclasses import asdict, dataclass
from typing import Literal

import click

from quarterdeck.cli.output import print_json, terminal_width
from quarterdeck.cli.table_layout import wrapped

Mark = Literal["ok", "note", "missing"]
COLORS = {"ok": "green", "note": "yellow", "missing": "red"}


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    mark: Mark
    what: str
    how: str = ""
    """How to fix it."""


def show(findings: list[Finding], *, is_json: bool = False) -> bool:
    """Print them. Returns whether something is missing."""
    if is_json:
        print_json([asdict(finding) for finding in findings])
    for finding in findings if not is_json else ():
        text = finding.what + (f"  → {finding.how}" if finding.how and finding.mark != "ok" else "")
        lines = wrapped(text, max(20, terminal_width() - 8)) if sys.stdout.isatty() else [text]
        click.echo(f"{click.style(finding.mark.ljust(8), fg=COLORS[finding.mark])}{f'{chr(10)}        '.join(lines)}")
    return any(finding.mark == "missing" for finding in findings)
