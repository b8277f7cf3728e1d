"""The report's page: HTML elements as text, one stylesheet, nothing from anywhere else.

Every word that came from outside (a model's name, an error code, a request id) passes through `text` here.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape as text
from itertools import count
from pathlib import Path

from quarterdeck.load.report import plots
from quarterdeck.load.report.plots import Plot

STYLE = Path(__file__).with_name("report.css")


@dataclass(frozen=True, slots=True)
class Table:
    """Rows under a head. The first column names the row; all others are numbers unless `words` has their place."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: frozenset[int] = frozenset()


def by_side(caption: str, head: Sequence[str], rows: Sequence[Sequence[str]], words: Iterable[int] = ()) -> Table:
    """A table whose second column names the side; without that column where there is but one."""
    if len({row[1] for row in rows}) > 1:
        return Table(caption, head, rows, frozenset({1, *words}))
    fewer = [[*row[:1], *row[2:]] for row in rows]
    return Table(caption, [*head[:1], *head[2:]], fewer, frozenset(column - 1 for column in words))


@dataclass(frozen=True, slots=True)
class Chart:
    """A plot, what to look for in it, and the same as a table for those who can't see it or want the numbers."""

    plot: Plot
    caption: str
    numbers: Table


@dataclass(slots=True)
class Page:
    """Collects the parts of one document. Knows the plots' numbers, so that each has an id of its own."""

    title: str
    parts: list[str] = field(default_factory=list)
    sections: list[tuple[str, str]] = field(default_factory=list)
    _ids: "count[int]" = field(default_factory=lambda: count(1))

    def section(self, title: str, *parts: str) -> None:
        """Left out where there is nothing to say."""
        told = [part for part in parts if part]
        if told:
            ident = f"s{next(self._ids)}"
            self.sections.append((ident, title))
            body = "\n".join(told)
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
        """The document. `head` stands before the list of sections."""
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


def table(told: Table) -> str:
    """With its caption; scrolls sideways where the page is narrow."""
    if not told.rows:
        return ""
    heads = "".join(f'<th scope="col"{_kind(i, told.words)}>{text(cell)}</th>' for i, cell in enumerate(told.head))
    rows = "\n".join(
        "<tr>"
        + "".join(
            f'<th scope="row">{text(cell)}</th>' if i == 0 else f"<td{_kind(i, told.words)}>{text(cell)}</td>"
            for i, cell in enumerate(row)
        )
        + "</tr>"
        for row in told.rows
    )
    return (
        f'<div class="scroll" tabindex="0" role="group" aria-label="{text(told.caption)}"><table>'
        f"<caption>{text(told.caption)}</caption>\n"
        f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody></table></div>"
    )


def _kind(column: int, words: frozenset[int]) -> str:
    return "" if column == 0 or column in words else ' class="n"'


def paragraph(words: str, kind: str = "") -> str:
    """Nothing for no words."""
    opening = f'<p class="{kind}">' if kind else "<p>"
    return f"{opening}{text(words)}</p>" if words else ""


def verdict(word: str, sentence: str, kind: str) -> str:
    """The first thing to read: a word and why. `kind`: good, bad or none."""
    return f'<p class="verdict {kind}"><strong>{text(word)}</strong> {text(sentence)}</p>'


def tiles(pairs: Iterable[tuple[str, str]]) -> str:
    """A few large numbers."""
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs)
    return f'<dl class="tiles">{items}</dl>'


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """What was run, on what."""
    items = "".join(f"<div><dt>{text(name)}</dt><dd>{text(value)}</dd></div>" for name, value in pairs if value)
    return f'<dl class="facts">{items}</dl>'


def links(pairs: Iterable[tuple[str, str, str]]) -> str:
    """Address, name, what it holds."""
    items = "".join(
        f'<li><a href="{text(href)}"><code>{text(name)}</code></a> {text(what)}</li>' for href, name, what in pairs
    )
    return f"<ul>{items}</ul>" if items else ""
