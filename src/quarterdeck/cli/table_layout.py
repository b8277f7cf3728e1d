"""How a table fits a terminal: which columns are shown, how wide they are, and where text is cut or wrapped. Pure."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

GAP = 2
MIN_TEXT = 12
"""Columns that a long text keeps. Numbers and states are shorter, so that they are never cut."""
MIN_WRAPPED = 20
"""Columns below which the last column is cut instead of wrapped: a word a line is hard to read."""


@dataclass(frozen=True, slots=True)
class Layout:
    """`rows`: the lines of each row, each with a cell for each of `head`; only the last cell has more than one line."""

    head: tuple[str, ...]
    rows: list[list[tuple[str, ...]]]
    widths: list[int]
    hidden: tuple[str, ...] = ()
    """Heads of columns that are left out."""


def lay_out(
    head: Sequence[str], rows: Sequence[Sequence[str]], room: int | None = None, optional: Sequence[str] = ()
) -> Layout:
    """`rows` have printable text. `room`: columns of the terminal; None: no limit. `optional`: heads of columns that
    are left out where the terminal is too narrow: empty ones first, then in this order."""
    shown, hidden = list(range(len(head))), []
    widths = [max(text_width(row[at]) for row in [head, *rows]) for at in range(len(head))]
    if room is not None:
        for name in sorted(optional, key=lambda name: _has_text(rows, head.index(name))):
            if _least(head, widths, shown) <= room:
                break
            shown.remove(head.index(name))
            hidden.append(name)
    fitted = [widths[at] for at in shown]
    if room is not None:
        _shrink(fitted, [text_width(head[at]) for at in shown], room)
    lines = [_lines([row[at] for at in shown], fitted) for row in rows]
    return Layout(
        tuple(_cut(head[at], width) for at, width in zip(shown, fitted, strict=True)), lines, fitted, tuple(hidden)
    )


def padded(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Cells filled with spaces to their columns' widths."""
    return [cell + " " * (width - text_width(cell)) for cell, width in zip(cells, widths, strict=True)]


def text_width(text: str) -> int:
    """Columns of a terminal that printable text takes: East Asian wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(map(_char_width, text))


def wrapped(text: str, width: int) -> list[str]:
    """Lines of at most `width` columns, broken at spaces; a longer word is broken anywhere."""
    lines = [""]
    for word in text.split(" "):
        if lines[-1] and text_width(lines[-1]) + 1 + text_width(word) <= width:
            lines[-1] += f" {word}"
            continue
        if lines[-1]:
            lines.append("")
        while text_width(word) > width:
            piece = _piece(word, width) or word[0]
            lines[-1:] = [piece, ""]
            word = word[len(piece) :]
        lines[-1] = word
    return lines if lines[-1] or len(lines) == 1 else lines[:-1]


def _has_text(rows: Sequence[Sequence[str]], at: int) -> bool:
    """Whether a column says anything."""
    return any(row[at].strip() not in ("", "-") for row in rows)


def _least(head: Sequence[str], widths: Sequence[int], shown: Sequence[int]) -> int:
    """Columns that the table needs if its last column is wrapped."""
    last = shown[-1]
    return (
        sum(widths[at] for at in shown[:-1])
        + min(widths[last], max(MIN_WRAPPED, text_width(head[last])))
        + GAP * (len(shown) - 1)
    )


def _shrink(widths: list[int], heads: Sequence[int], room: int) -> None:
    """Shorten the last column, then the widest others, then the first one, which names the row."""
    last = len(widths) - 1
    middle = range(1, last)
    for group, least in (
        ([last], MIN_WRAPPED),
        (middle, MIN_TEXT),
        ([last], MIN_TEXT),
        ([0], MIN_TEXT),
        (range(last + 1), 1),
    ):
        floor = {at: least if least == 1 else max(least, heads[at]) for at in group}
        while (excess := sum(widths) + GAP * last - room) > 0:
            at = max((at for at in group if widths[at] > floor[at]), key=lambda at: widths[at], default=None)
            if at is None:
                break
            others = [widths[other] for other in group if other != at and widths[other] > floor[other]]
            widths[at] -= min(excess, widths[at] - floor[at], max(1, widths[at] - max(others, default=0)))


def _lines(cells: Sequence[str], widths: Sequence[int]) -> list[tuple[str, ...]]:
    *others, last = cells
    cut = [_cut(cell, width) for cell, width in zip(others, widths[:-1], strict=True)]
    first, *rest = wrapped(last, widths[-1]) if widths[-1] >= MIN_WRAPPED else [_cut(last, widths[-1])]
    return [(*cut, first), *((*("" for _ in others), line) for line in rest)]


def _cut(cell: str, width: int) -> str:
    return cell if text_width(cell) <= width else f"{_piece(cell, width - 1)}…"


def _piece(text: str, width: int) -> str:
    """The longest beginning of at most `width` columns."""
    taken = 0
    for at, char in enumerate(text):
        taken += _char_width(char)
        if taken > width:
            return text[:at]
    return text


def _char_width(char: str) -> int:
    return 0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1
