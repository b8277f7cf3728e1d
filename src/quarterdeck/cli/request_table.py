"""Requests as lines of a table and as columns of a Parquet file."""

import importlib
import json
from collections.abc import Iterable, Sequence
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import Any

import click

from quarterdeck.cli.output import printable
from quarterdeck.cli.table_layout import lay_out, padded

HEAD = ("TIME", "REQUEST", "STATUS", "MODEL", "KEY", "TOKENS", "COST", "FIRST", "TOTAL", "NOTES")
OPTIONAL = ("FIRST", "TOTAL", "COST", "KEY", "NOTES", "TOKENS", "TIME")
"""Columns that a narrow terminal does not show, the least needed first."""
_WIDTHS = (19, 36, 22, 24, 16, 13, 11, 8, 9, 20)
ROWS_AT_ONCE = 1000
_STRUCTURED = ("tags", "input", "output", "content_details")
"""Members that are JSON text in a Parquet file: their shape differs from request to request."""
_KINDS = {
    **dict.fromkeys(("created", "http_status", "input_tokens", "cached_tokens", "output_tokens"), "int64"),
    **dict.fromkeys(("reasoning_tokens", "resumed", "retries", "characters", "images"), "int64"),
    **dict.fromkeys(("started", "ended", "latency", "time_to_first_token", "audio_seconds"), "float64"),
    "stream": "bool_",
}
"""Types of columns; the others are text. Money is text, so that it stays exact."""


def rows_of(requests: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """A row for each, with the columns of `HEAD`."""
    return [_row(each) for each in requests]


def live_lines(request: dict[str, Any], room: int | None) -> list[str]:
    """The table's head and the lines of one request, with the same columns for every request. `room`: columns of the
    terminal; None: no limit."""
    head = [name.ljust(width) for name, width in zip(HEAD, _WIDTHS, strict=True)]
    row = [printable(cell).ljust(width) for cell, width in zip(_row(request), _WIDTHS, strict=True)]
    optional = [head[HEAD.index(name)] for name in OPTIONAL]
    hidden = lay_out(head, [["x" * width for width in _WIDTHS]], room, optional).hidden  # the same for every request
    shown = [at for at, name in enumerate(head) if name not in hidden]
    layout = lay_out([head[at] for at in shown], [[row[at] for at in shown]], room)
    return ["  ".join(padded(line, layout.widths)).rstrip() for line in (layout.head, *layout.rows[0])]


def _row(each: dict[str, Any]) -> tuple[str, ...]:
    status = each["status"]
    if status != "ok":
        status += f" {each['error_code'] or each['http_status']}"
    notes = [f"route {each['route']}"] if each["route"] else []
    notes += [f"prompt {each['prompt']}@{each['prompt_version']}"] if each["prompt"] else []
    notes += ["cache hit"] if each["cache"] == "hit" else []
    notes += [f"{each['retries']} retries"] if each["retries"] else []
    notes += [f"{each['resumed']} resumes"] if each["resumed"] else []
    notes += [f"user {each['user']}"] if each["user"] else []
    first = each["time_to_first_token"]
    return (
        datetime.fromtimestamp(each["ended"]).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
        each["id"],
        status,
        each["model"],
        each["key_name"] or each["key"],
        f"{each['input_tokens']}+{each['output_tokens']}",
        f"${each['cost']}",
        "-" if first is None else f"{first:.2f} s",
        f"{each['latency']:.2f} s",
        ", ".join(notes),
    )


def export_parquet(path: Path, requests: Iterable[dict[str, Any]]) -> int:
    """Write a Parquet file. Returns how many rows. Raises ClickException without pyarrow."""
    try:
        arrow = importlib.import_module("pyarrow")
        parquet = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise click.ClickException(
            "Parquet needs pyarrow, which is not installed: pip install 'quarterdeck[parquet]', or use --format jsonl"
        ) from None
    source = iter(requests)
    writer, names, count = None, [], 0
    try:
        while rows := list(islice(source, ROWS_AT_ONCE)):
            if writer is None:
                names = [name for name in rows[0] if name != "object"]
                schema = arrow.schema([(name, getattr(arrow, _KINDS.get(name, "string"))()) for name in names])
                writer = parquet.ParquetWriter(path, schema)
            columns = {name: [_cell(name, row.get(name)) for row in rows] for name in names}
            writer.write_table(arrow.table(columns, schema=schema))
            count += len(rows)
        if writer is None:
            parquet.write_table(arrow.table({"id": arrow.array([], arrow.string())}), path)
    finally:
        if writer is not None:
            writer.close()
    return count


def _cell(name: str, value: Any) -> Any:
    return json.dumps(value, ensure_ascii=False) if name in _STRUCTURED and value is not None else value
