"""Terminal output of the commands: tables, objects, limits, budgets and times."""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import click

from quarterdeck.cli.limit_options import LIMITS
from quarterdeck.cli.table_layout import lay_out, padded, wrapped

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_UNPRINTABLE = re.compile(r"[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""What JSON leaves as it is: C1 controls, and marks that hide or reorder text."""
TIMES = ("created", "updated", "archived", "expires", "revoked")
"""Fields of objects that are Unix seconds, beside those whose names end with `_at`."""
_UNITS = ("requests/min", "tokens/min", "at once", "tokens each")

STATE_HEADS = ("STATE", "STATUS", "READY")
STATE_COLORS = {
    "green": ("ready", "valid", "enabled", "ok", "up", "delivered", "true"),
    "yellow": (
        *(
            "starting",
            "waiting",
            "downloading",
            "preparing",
            "loading",
            "compiling",
            "warming_up",
            "warming",
            "updating",
        ),
        *("degraded", "draining", "removing", "pending", "until"),
    ),
    "red": ("failed", "unavailable", "revoked", "error", "no", "not", "false", "away", "lost"),
}

as_json = click.option("--json", "is_json", is_flag=True, help="Print the admin API's JSON response.")


def printable(text: str, keep: str = "") -> str:
    """Text of a caller's or a model's, safe for a terminal: an escape sequence could rewrite the screen, rename the
    window or fill the clipboard. What can't be printed becomes an escape such as `\\x1b`, but for `keep`."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in keep else _escaped(char) for char in text)


def answer_text(text: str) -> str:
    """A part of a model's answer: without control characters but for new lines and tabs. Marks that join emojis or
    direct the text stay."""
    return _CONTROLS.sub(lambda match: _escaped(match[0]), text.replace("\r", ""))


def reason_of(error: Exception) -> str:
    """Why a file can't be used: without the number and the path that an OSError begins and ends with."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _escaped(char: str) -> str:
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A left-aligned table with minimal column widths. Cells are made printable."""
    layout = lay_out(head, [tuple(map(printable, row)) for row in rows])
    lines = [layout.head, *(line for row in layout.rows for line in row)]
    return "\n".join("  ".join(padded(line, layout.widths)).rstrip() for line in lines)


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]], optional: Sequence[str] = ()) -> None:
    """Print `columns`; on a terminal with colours, and fitted to its width: columns whose heads are `optional` are left
    out in this order, the last column is wrapped, other long texts are cut."""
    if not sys.stdout.isatty():
        click.echo(columns(head, rows))
        return
    layout = lay_out(head, [tuple(map(printable, row)) for row in rows], terminal_width(), optional)
    click.secho("  ".join(padded(layout.head, layout.widths)).rstrip(), bold=True)
    for line in (line for row in layout.rows for line in row):
        cells = padded(line, layout.widths)
        styled = [
            _colored(cell) if name in STATE_HEADS else cell for name, cell in zip(layout.head, cells, strict=True)
        ]
        click.echo("  ".join(styled).rstrip())
    if layout.hidden:
        say(f"not shown here: {', '.join(layout.hidden)} (a wider terminal or --json shows all)", is_note=True)


def terminal_width() -> int:
    return shutil.get_terminal_size().columns


def say(text: str, *, is_note: bool = False) -> None:
    """Print a sentence, on a terminal broken at spaces. `is_note`: dimmed, on stderr."""
    stream = sys.stderr if is_note else sys.stdout
    text = printable(text)
    lines = wrapped(text, terminal_width()) if stream.isatty() else [text]
    click.secho("\n".join(lines), dim=is_note or None, err=is_note)


def state_color(text: str) -> str | None:
    """The colour of a state; None: that of other text."""
    word = re.split(r"[\s,(:]", text.strip(), maxsplit=1)[0].lower()
    return next((color for color, words in STATE_COLORS.items() if word in words), None)


def _colored(cell: str) -> str:
    color = state_color(cell)
    return cell if color is None else click.style(cell, fg=color)


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
        click.echo(f"{name.ljust(width)}  {printable(value)}")


def print_json(value: Any) -> None:
    click.echo(printable_json(json.dumps(value, indent=2, ensure_ascii=False)))


def printable_json(text: str) -> str:
    """The same JSON, safe for a terminal."""
    return _UNPRINTABLE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def csv_cell(text: str) -> str:
    """Text of a caller's for a spreadsheet: one line, and never a formula."""
    return f"'{printable(text)}" if text.startswith(("=", "+", "-", "@", "\t", "\r")) else printable(text)


def _field_text(name: str, value: Any) -> str:
    if name == "limits":
        return limits_text(value)
    if name == "budget":
        return budget_text(value)
    if name == "budget_status":
        return status_text(value)
    if (name in TIMES or name.endswith("_at")) and isinstance(value, int | float):
        return local_time(value)
    if isinstance(value, dict):
        return ", ".join(f"{part} {_field_text(part, each)}" for part, each in value.items())
    if isinstance(value, list):
        return ", ".join(str(item) for item in value)
    return {True: "yes", False: "no"}[value] if isinstance(value, bool) else str(value)
