"""Reads a report page back: tables by caption, ids, links and text."""

from html.parser import HTMLParser
from pathlib import Path


class Reader(HTMLParser):
    """Tables by caption, ids, links and all text."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.ids: list[str] = []
        self.sources: list[str] = []
        self.tags: list[str] = []
        self.words = ""
        self._rows: list[list[str]] = []
        self._caption = ""
        self._open: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        values = dict(attributes)
        self.ids += [values["id"] or ""] if "id" in values else []
        self.sources += [values[name] or "" for name in ("href", "src") if name in values]
        if tag not in ("meta", "path", "circle"):
            self._open.append(tag)
        if tag == "table":
            self._rows, self._caption = [], ""
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "circle"):
            assert self._open.pop() == tag, f"{tag} is closed out of turn"
        if tag == "table":
            self.tables[self._caption] = self._rows

    def handle_data(self, data: str) -> None:
        self.words += data
        if self._open and self._open[-1] == "caption":
            self._caption += data
        elif self._open and self._open[-1] in ("td", "th"):
            self._rows[-1][-1] += data


def read(page: Path) -> Reader:
    return Reader(page.read_text(encoding="utf-8"))
