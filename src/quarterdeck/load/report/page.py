"""HTML of the report: elements as text and one stylesheet, without external resources.

External text (model names, error codes, request ids) is escaped here.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape as text
from itertools import count
from pathlib import Path

from quarterdeck.load.report import plots
from quarterdeck.load.report.plots import Plot

SIGNS = {"good": "✓ ", "bad": "✗ ", "warn": "⚠ ", "none": ""}
"""Before a verdict's word: colour alone does not reach every reader."""
STYLE = Path(__file__).with_name("report.css")


@dataclass(frozen=True, slots=True)
class Table:
    """A table. The first column names the row; other columns are numbers unless listed in `words`."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset()
    kinds: Mapping[str, str] = field(default_factory=dict)
    """Colours of cells by their text: good, bad or soft."""


def by_side(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: Iterable[int] = ()) -> Table:
    """A table whose second column names the side; the column is dropped if there is only one side."""
    if len({row[1] for row in rows}) > 1:
        return Table(caption, head, rows, frozenset({1, *words}))
    fewer = [[*row[:1], *row[2:]] for row in rows]
    return Table(caption, [*head[:1], *head[2:]], fewer, frozenset(column - 1 for column in words))


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot with a caption on how to read it, and its numbers as a table."""

    plot: Plot
    caption: str
    numbers: Table


@dataclass(slots=True)
class Page:
    """Collects the parts of a document and assigns unique ids."""

    title: str
    parts: list[str] = field(default_factory=list)
    sections: list[tuple[str, str]] = field(default_factory=list)
    _ids: "count[int]" = field(default_factory=lambda: count(1))

    def section(self, title: str, *parts: str) -> None:
        """Add a section; skipped if all parts are empty."""
        present = [part for part in parts if part]
        if present:
            ident = f"s{next(self._ids)}"
            self.sections.append((ident, title))
            body = "\n".join(present)
            self.parts.append(f'<section id="{ident}"><h2>{text(title)}</h2>\n{body}\n</section>')

    def chart(self, chart: Chart | None) -> str:
        if chart is None:
            return ""
        svg = plots.draw(chart.plot, f"p{next(self._ids)}")
        return (
            f"<figure><h3>{text(chart.plot.title)}</h3><figcaption>{text(chart.caption)}</figcaption>\n"
            f'<div class="scroll" tabindex="0" role="group" aria-label="{text(chart.plot.title)}">{svg}</div>\n'
            f"<details><summary>The numbers</summary>{table(chart.numbers)}</details></figure>"
        )

    def render(self, head: Iterable[str]) -> str:
        """Return the document. `head` precedes the list of sections."""
        links = "".join(f'<li><a href="#{ident}">{text(title)}</a></li>' for ident, title in self.sections)
        return "\n".join(
            [
                '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
                '<meta name="viewport" content="width=device-width, initial-scale=1">',
                '<meta name="color-scheme" content="light dark">',
                f"<title>{text(self.title)}</title>\n<style>\n{STYLE.read_text(encoding='utf-8')}</style>\n</head>",
                f"<body>\n<main>\n<h1>{text(self.title)}</h1>",
                *(part for part in head if part),
                f'<nav aria-label="Sections"><ul>{links}</ul></nav>',
                *self.parts,
                "</main>\n</body>\n</html>\n",
            ]
        )


def table(data: Table) -> str:
    """A table with its caption. On narrow pages a table of more than three columns shows each row as a list, whose
    names are the `data-head` of the cells; others wrap."""
    if not data.rows:
        return ""
    wide = ' class="wide"' if len(data.head) > 3 else ""
    heads = "".join(f'<th scope="col"{_kind(i, data.words)}>{text(cell)}</th>' for i, cell in enumerate(data.head))
    rows = "\n".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{text(cell)}</th>' if i == 0 else _cell(data, i, cell) for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in data.rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{text(data.caption)}"><table{wide}>'
        f"<caption>{text(data.caption)}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _cell(data: Table, column: int, cell: str) -> str:
    number = [] if column in data.words else ["n"]
    kinds = " ".join([*number, *filter(None, [data.kinds.get(cell)])])
    kind = f' class="{kinds}"' if kinds else ""
    return f'<td{kind} data-head="{text(data.head[column])}">{text(cell)}</td>'


def _kind(column: int, words: frozenset[int]) -> str:
    return "" if column == 0 or column in words else ' class="n"'


def paragraph(words: str, kind: str = "") -> str:
    """A paragraph; "" for empty text."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return f"{opening}{text(words)}</p>" if words else ""


def verdict(word: str, sentence: str, kind: str) -> str:
    """A verdict: a sign, a word and a sentence. `kind`: good, bad, warn or none."""
    sign = SIGNS[kind]
    return f'<p class="verdict {kind}"><strong>{sign}{text(word)}</strong> {text(sentence)}</p>'


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """A row of large numbers."""
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="tiles">{items}</dl>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """A list of (name, value) facts."""
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs if value)
    return f'<dl class="facts">{items}</dl>'


def links(pairs: Iterable[tuple[str, str, str]]) -> str:
    """A list of links from (address, name, description)."""
    items = "".join(
        f'<li><a href="{text(href)}"><code>{text(name)}</code></a> {text(what)}</li>' for href, name, what in pairs
    )
    return f"<ul>{items}</ul>" if items else ""
