"""Usage as a table: a row for each group, with a spark line over time, as wide as the screen. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

from quarterdeck.cli.output import printable
from quarterdeck.money import EXACT, plain_text

GROUPS = ("key", "team", "model", "route", "operation", "status", "user")
TOKENS = ("input_tokens", "cached_tokens", "output_tokens", "reasoning_tokens")
UNITS = ("audio_seconds", "characters", "images")
COUNTS = ("requests", *TOKENS, *UNITS, "cost", "saved")
HEADS = {
    "input_tokens": "INPUT",
    "cached_tokens": "CACHED",
    "output_tokens": "OUTPUT",
    "reasoning_tokens": "REASONING",
    "audio_seconds": "AUDIO S",
}
RARE = ("reasoning_tokens", "cached_tokens", *UNITS, "saved")
"""Columns left out where they have nothing but zeros, and in this order where the screen is narrow."""
BARS = "▁▂▃▄▅▆▇█"
MAX_SPARK = 60
MIN_NAME = 8
"""Characters that a name keeps where the screen is narrow."""


@dataclass(slots=True)
class Row:
    """The sums of a group."""

    group: tuple[str | None, ...]
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COUNTS[:-2], 0))
    """Of audio, milliseconds."""
    cost: Decimal = Decimal(0)
    saved: Decimal = Decimal(0)
    over_time: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    """The rows of the API by the beginning of their buckets."""


def rows_of(data: Sequence[Mapping[str, Any]], groups: Sequence[str]) -> list[Row]:
    """Sums over time of each group, the dearest first, in exact decimals."""
    found: dict[tuple[str | None, ...], Row] = {}
    for each in data:
        group = tuple(each.get(name) for name in groups)
        row = found.setdefault(group, Row(group))
        for name in row.counts:
            count = each.get(name, 0)  # a gateway that is older than this program has no units
            row.counts[name] += round(count * 1000) if name == "audio_seconds" else int(count)
        row.cost = EXACT.add(row.cost, Decimal(str(each["cost"])))
        row.saved = EXACT.add(row.saved, Decimal(str(each["saved"])))
        if (start := each.get("start")) is not None:
            row.over_time[start] = each
    return sorted(found.values(), key=lambda row: (-row.cost, -row.counts["requests"], [g or "" for g in row.group]))


def spark_line(values: Sequence[Decimal | int], width: int = MAX_SPARK) -> str:
    """Bars of `values`, at most `width` of them: neighbours are added together. Nothing is a space, the most is a full
    bar."""
    if len(values) > width:
        edges = [at * len(values) // width for at in range(width + 1)]
        values = [sum(values[left:right]) for left, right in pairwise(edges)]
    most = max(values, default=0)
    if not most:
        return " " * len(values)
    # Every bar but the full one stands for less than the most, and what is there at all has a bar.
    return "".join(BARS[min(len(BARS) - 1, int(value * len(BARS) // most))] if value > 0 else " " for value in values)


def table(
    rows: Sequence[Row],
    groups: Sequence[str],
    *,
    names: Mapping[str, str],
    buckets: Sequence[int] = (),
    width: int | None = None,
) -> str:
    """`names`: of keys by id. `buckets`: the beginnings of all buckets of the report; empty: it has none. `width`: of
    the screen, in characters; None: as wide as needed."""
    shown = [name for name in COUNTS if name not in RARE or any(_value(row, name) for row in rows)]
    for name in RARE if width is not None else ():
        if name in shown and _least(rows, shown, len(groups)) > (width or 0):
            shown.remove(name)
    head = [*(name.upper() for name in groups), *(HEADS.get(name, name.upper()) for name in shown)]
    cells = [
        [*(_name(name, value, names) for name, value in zip(groups, row.group, strict=True)), *_texts(row, shown)]
        for row in rows
    ]
    widths = [max(len(line[at]) for line in [head, *cells]) for at in range(len(head))]
    spark = min(len(buckets), MAX_SPARK)
    if width is not None:
        spark = _fit(widths, len(groups), spark, width)
    lines = [_line(line, widths, len(groups)) for line in [head, *cells]]
    if spark:
        by_cost = any(row.cost for row in rows)
        lines[0] += f"  {'COST' if by_cost else 'REQUESTS'} OVER TIME"[: spark + 2]
        for at, row in enumerate(rows, 1):
            lines[at] += "  " + spark_line(_series(row, buckets, by_cost), spark)
    return "\n".join(line.rstrip() for line in lines)


def _least(rows: Sequence[Row], shown: Sequence[str], names: int) -> int:
    """Columns of the screen that the table needs with the shortest names."""
    texts = [[HEADS.get(name, name.upper()) for name in shown], *(_texts(row, shown) for row in rows)]
    return names * (MIN_NAME + 2) + sum(max(map(len, column)) + 2 for column in zip(*texts, strict=True)) - 2


def _series(row: Row, buckets: Sequence[int], by_cost: bool) -> list[Decimal | int]:
    nothing = {"cost": "0", "requests": 0}
    found = [row.over_time.get(start, nothing) for start in buckets]
    return [Decimal(str(each["cost"])) if by_cost else int(each["requests"]) for each in found]


def _fit(widths: list[int], names: int, spark: int, width: int) -> int:
    """Shorten the names, then the spark line, to the screen. Returns the spark line's width; 0: there is no room."""
    other = sum(widths[names:]) + 2 * (len(widths) - 1)
    least = 8 if spark else 0
    room = width - other - (min(spark, least) + 2 if spark else 0)
    while sum(widths[:names]) > room and max(widths[:names], default=0) > MIN_NAME:
        widest = max(range(names), key=lambda at: widths[at])
        widths[widest] -= 1
    left = width - other - sum(widths[:names]) - 2
    return max(0, min(spark, left)) if left >= least else 0


def _line(cells: Sequence[str], widths: Sequence[int], names: int) -> str:
    """Names to the left, numbers to the right."""
    parts = [
        _cut(cell, width).ljust(width) if at < names else cell.rjust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(parts)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _name(group: str, value: str | None, names: Mapping[str, str]) -> str:
    if value is None or value == "":
        return "-"
    return printable(names.get(value, value) if group == "key" else str(value))


def _texts(row: Row, shown: Sequence[str]) -> list[str]:
    return [_text(name, _value(row, name)) for name in shown]


def _text(name: str, value: Decimal | int) -> str:
    if isinstance(value, Decimal):
        return f"${plain_text(value)}"
    return f"{value / 1000:g}" if name == "audio_seconds" else str(value)


def _value(row: Row, name: str) -> Decimal | int:
    return row.cost if name == "cost" else row.saved if name == "saved" else row.counts[name]
