"""The documentation's static site: its source, prepared from README.md and docs/ (docs/adr/0034-docs-site.md).

    python scripts/docs_site.py --check     the navigation is complete, and links lead to files that exist
    python scripts/docs_site.py             the same, then write build/site-source and build/site.yml for the generator

The pages are written for readers of the repository. The site differs in three ways: README.md is its first page, a link
to a folder leads to the folder's page, and a link to a file outside docs/ becomes that file's name.
"""

import argparse
import posixpath
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
NAVIGATION = ROOT / "mkdocs.yml"
SOURCE = ROOT / "build/site-source"
CONFIG = ROOT / "build/site.yml"
HOME = "index.md"
FIRST = ("README.md", "settings.md", "0001-layers-and-doors.md")
"""The page of a folder to which links to the folder lead."""

_LINK = re.compile(r"(?<!!)\[(?P<label>[^\]]*)\]\((?P<target>[^)\s]+)\)")
_FENCE = re.compile(r"^ *```.*?^ *```", re.MULTILINE | re.DOTALL)


class SiteError(Exception):
    """Problems of the pages, one a line."""


def sources(root: Path) -> dict[str, Path]:
    """Pages by their path on the site."""
    docs = root / "docs"
    pages = {file.relative_to(docs).as_posix(): file for file in sorted(docs.rglob("*.md"))}
    return {HOME: root / "README.md", **pages}


def entries(nav: list[Any], pages: dict[str, Path]) -> Iterator[str]:
    """The pages that a navigation names, with its patterns (`adr/*.md`) expanded."""
    for entry in nav:
        value = next(iter(entry.values())) if isinstance(entry, dict) else entry
        if isinstance(value, list):
            yield from entries(value, pages)
        elif "*" in value:
            yield from expanded(value, pages)
        else:
            yield value


def expanded(pattern: str, pages: dict[str, Path]) -> list[str]:
    """Pages of one folder; its README first."""
    folder = posixpath.dirname(pattern)
    found = [page for page in pages if posixpath.dirname(page) == folder]
    return sorted(found, key=lambda page: (not page.endswith("README.md"), page))


def navigation(nav: list[Any], pages: dict[str, Path]) -> list[Any]:
    """The navigation without patterns; a page that a pattern found has its own title."""
    made: list[Any] = []
    for entry in nav:
        title, value = next(iter(entry.items())) if isinstance(entry, dict) else (None, entry)
        if isinstance(value, list):
            made.append({title: navigation(value, pages)})
        elif "*" in value:
            made += [{title_of(pages[page]): page} for page in expanded(value, pages)]
        else:
            made.append(entry)
    return made


def title_of(file: Path) -> str:
    """The page's first heading."""
    found = re.search(r"^# (.+)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1].replace("`", "") if found else file.stem


def problems(nav: list[Any], pages: dict[str, Path]) -> list[str]:
    """What is wrong with the navigation and the links."""
    named = list(entries(nav, pages))
    found = [f"mkdocs.yml: docs/{page} is not in the navigation" for page in pages if page not in named]
    found += [f"mkdocs.yml: {page} is in the navigation and does not exist" for page in named if page not in pages]
    found += [f"mkdocs.yml: {page} is in the navigation twice" for page in set(named) if named.count(page) > 1]
    for page, file in pages.items():
        for _, target in links(file.read_text(encoding="utf-8")):
            if _is_local(target) and not (file.parent / target.partition("#")[0]).exists():
                found.append(f"{file.relative_to(ROOT) if file.is_relative_to(ROOT) else page}: no file {target}")
    return found


def links(text: str) -> Iterator[tuple[str, str]]:
    """Label and target of each link outside code blocks."""
    for found in _LINK.finditer(_FENCE.sub("", text)):
        yield found["label"], found["target"]


def on_site(page: str, file: Path, pages: dict[str, Path]) -> str:
    """The page's text for the site."""
    places = {source.resolve(): path for path, source in pages.items()}

    def link(found: re.Match[str]) -> str:
        label, target = found["label"], found["target"]
        if not _is_local(target):
            return found[0]
        name, sign, anchor = target.partition("#")
        aim = (file.parent / name).resolve()
        if aim.is_dir():
            aim = next((aim / each for each in FIRST if (aim / each).resolve() in places), aim)
        start = posixpath.dirname(page) or "."
        if aim in places:
            return f"[{label}]({posixpath.relpath(places[aim], start)}{sign}{anchor})"
        if aim.is_relative_to(ROOT / "docs"):  # a picture
            return f"[{label}]({posixpath.relpath(aim.relative_to(ROOT / 'docs').as_posix(), start)})"
        return label if "`" in label or "/" in label else f"{label} (`{aim.relative_to(ROOT).as_posix()}`)"

    text = file.read_text(encoding="utf-8")
    parts, at = [], 0
    for fence in _FENCE.finditer(text):
        parts += [_LINK.sub(link, text[at : fence.start()]), fence[0]]
        at = fence.end()
    return "".join([*parts, _LINK.sub(link, text[at:])])


def _is_local(target: str) -> bool:
    return not target.startswith(("#", "http://", "https://", "mailto:"))


def write(config: dict[str, Any], pages: dict[str, Path]) -> None:
    """Write the generator's source and configuration."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    for page, file in pages.items():
        target = SOURCE / page
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(on_site(page, file, pages), encoding="utf-8")
    for file in (ROOT / "docs").rglob("*"):
        if file.suffix in (".svg", ".png"):
            target = SOURCE / file.relative_to(ROOT / "docs")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    made = config | {"nav": navigation(config["nav"], pages), "docs_dir": "site-source", "site_dir": "site"}
    CONFIG.write_text(yaml.safe_dump(made, sort_keys=False, allow_unicode=True), encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Prepare the documentation's static site.")
    parser.add_argument("--check", action="store_true", help="only look for missing pages and files")
    only_check = parser.parse_args(arguments).check
    config = yaml.safe_load(NAVIGATION.read_text(encoding="utf-8"))
    pages = sources(ROOT)
    if found := problems(config["nav"], pages):
        print("\n".join(found), file=sys.stderr)
        return 1
    if not only_check:
        write(config, pages)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
