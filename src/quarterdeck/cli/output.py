"""Terminal output of the commands: tables, objects, limits, budgets and times."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from quarterdeck.cli.limit_options import LIMITS

_UNITS = ("requests/min", "tokens/min", "at once", "tokens each")

as_json = click.option("--json", "is_json", is_flag=True, help="Print the admin API's JSON response.")


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A left-aligned table with minimal column widths."""
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [head, *rows])
    return "\n".join(line.rstrip() for line in lines)


def limits_text(limits: dict[str, int] | None) -> str:
    """Limits in one line; "-" if there are none."""
    if not limits:
        return "-"
    return ", ".join(f"{limits[name]} {unit}" for name, unit in zip(LIMITS, _UNITS, strict=True) if name in limits)


def budget_text(budget: dict[str, str] | None) -> str:
    """A budget in one line; "-" if there is none."""
    if not budget:
        return "-"
    period = "in total" if budget["period"] == "total" else f"per {budget['period']}"
    return f"${budget['amount']} {period}" + (", warn only" if budget["on_exhausted"] == "warn" else "")


def status_text(status: dict[str, Any]) -> str:
    """A budget's spending in one line."""
    text = ", ".join(f"${status[name]} {name}" for name in ("spent", "held", "left"))
    if status["period_start"] is not None:  # periods are in UTC
        text += datetime.fromtimestamp(status["period_start"], UTC).strftime(", since %Y-%m-%d UTC")
    return text + (", earlier spending is still being counted" if status["is_counting"] else "")


def local_time(unix: float | None) -> str:
    """Unix seconds as local time; "-" for None."""
    return "-" if unix is None else datetime.fromtimestamp(unix).astimezone().strftime("%Y-%m-%d %H:%M")


def show(found: dict[str, Any]) -> None:
    """Print an object, one line per field."""
    shown = {
        name: _field_text(name, value)
        for name, value in found.items()
        if name not in ("object", "key") and value not in (None, [], {})
    }
    width = max(len(name) for name in shown)
    for name, value in shown.items():
        click.echo(f"{name.ljust(width)}  {value}")


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _field_text(name: str, value: Any) -> str:
    if name == "limits":
        return limits_text(value)
    if name == "budget":
        return budget_text(value)
    if name == "budget_status":
        return status_text(value)
    if name in ("created", "expires", "revoked"):
        return local_time(value)
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
