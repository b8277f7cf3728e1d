"""Results of `quarterdeck doctor`'s checks."""

from dataclasses import dataclass
from typing import Literal

import click

Mark = Literal["ok", "note", "missing"]


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check."""

    mark: Mark
    what: str
    how: str = ""
    """How to fix it."""


def show(findings: list[Finding]) -> bool:
    """Print them. Returns whether something is missing."""
    for finding in findings:
        how = f"  → {finding.how}" if finding.how and finding.mark != "ok" else ""
        click.echo(f"{finding.mark:<8}{finding.what}{how}")
    return any(finding.mark == "missing" for finding in findings)
