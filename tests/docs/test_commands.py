"""The commands of all pages: each block is run by a test or says what it needs, and each of our commands exists.

A block is marked by the line before it: `<!-- run by: tests/… -->` or `<!-- not run: needs … -->`. Pages that a test
runs as a whole are listed here.
"""

import re
import shlex
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import click
import pytest

from quarterdeck.cli.__main__ import cli

ROOT = Path(__file__).resolve().parents[2]
BLOCK = re.compile(
    r"(?:^<!-- (?P<kind>run by|not run): (?P<reason>[^>]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```",
    re.DOTALL | re.MULTILINE,
)
CODE = ("sh", "bash", "console", "python", "javascript", "java")
WHOLE_PAGES = {
    "README.md": "tests/docs/test_readme.py",
    "docs/kubernetes.md": "tests/cluster/test_docs.py",
}
PAGES = sorted(
    [ROOT / "README.md", *(p for p in (ROOT / "docs").rglob("*.md") if p.parent.name not in ("adr", "reference"))]
)
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def found(page: Path) -> Iterator[re.Match[str]]:
    return (each for each in BLOCK.finditer(page.read_text(encoding="utf-8")) if each["language"] in CODE)


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_block_is_run_by_a_test_or_says_what_it_needs(page: Path) -> None:
    is_guide = "<!-- client: " in page.read_text(encoding="utf-8")
    whole = WHOLE_PAGES.get(name_of(page), "tests/clients/test_guides.py" if is_guide else None)
    for block in found(page):
        if block["kind"] == "run by":
            assert (ROOT / block["reason"].split("::")[0]).is_file(), block["reason"]
        elif block["kind"] is None:
            assert whole is not None, f"{name_of(page)} has a block without a mark: {block['code'][:80]}"
            assert (ROOT / whole).is_file()


def commands(code: str) -> Iterator[list[str]]:
    """The words of each command, with continued lines joined and without prompts and comments."""
    for line in code.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line.removeprefix("$ "), comments=True)
        except ValueError:  # a here-document, or a quote over several lines
            continue
        if words:
            yield words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_each_of_our_commands_exists_with_its_options(page: Path) -> None:
    for block in found(page):
        if block["language"] not in ("sh", "bash", "console"):
            continue
        for words in commands(block["code"]):
            for start, word in enumerate(words):
                if word in ("quarterdeck", "qd") and (start == 0 or words[start - 1] in ("|", "&&", "exec")):
                    _check_command(words[start + 1 :], name_of(page))
                elif word == "make" and start == 0:
                    wanted = {each for each in words[1:] if re.fullmatch("[a-z-]+", each)}
                    assert wanted <= TARGETS, f"{name_of(page)}: make {wanted - TARGETS}"
                elif word == "-m" and start and words[start - 1].endswith("python") and words[start + 1 : start + 2]:
                    module = words[start + 1]
                    assert not module.startswith("quarterdeck") or find_spec(module), f"{name_of(page)}: {module}"


def _check_command(words: list[str], page: str) -> None:
    command: click.Command = cli
    options = _options(cli)
    for word in words:
        if word in ("|", ">", "&&", "||", ";", "&"):
            return
        if word.startswith("-") and word != "-":
            name = word.partition("=")[0]
            assert name in options, f"{page}: quarterdeck {' '.join(words)}: {command.name} has no {name}"
        elif isinstance(command, click.Group) and (sub := command.get_command(click.Context(command), word)):
            command = sub
            options |= _options(command)
        elif isinstance(command, click.Group) and command is not cli:
            raise AssertionError(f"{page}: quarterdeck {' '.join(words)}: {command.name} has no command {word}")


def _options(command: click.Command) -> set[str]:
    names = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    return names | {"--help"}
