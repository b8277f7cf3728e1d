"""Reads a chart's values.yaml with its comments.

A value is described by the comment directly above its key, from `# --` on; lines of `# @schema` in it are JSON that is
merged into the value's JSON schema.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

DESCRIPTION, SCHEMA = "# -- ", "# @schema "


@dataclass(frozen=True, slots=True)
class Value:
    """A documented value, or a section of values."""

    path: tuple[str, ...]
    default: Any
    description: str
    """Empty: the value has no `# --` comment."""
    schema: dict[str, Any]
    """What the comment states in addition to the type that the default shows."""
    children: tuple["Value", ...] = ()
    """The values of a section. A mapping with a schema of its own is one value: it has none."""

    @property
    def name(self) -> str:
        return ".".join(self.path)

    def leaves(self) -> Iterator["Value"]:
        """Values that are no sections, in the file's order."""
        if self.children:
            for child in self.children:
                yield from child.leaves()
        else:
            yield self


def read(path: Path) -> Value:
    """The whole file as one section. Raises ValueError for a malformed comment."""
    text = path.read_text(encoding="utf-8")
    node = yaml.compose(text, yaml.SafeLoader)
    assert isinstance(node, yaml.MappingNode)  # noqa: S101  # a chart's values are a mapping
    return Value((), None, "", {}, tuple(_children(node, yaml.safe_load(text), (), text.splitlines())))


def _children(node: yaml.MappingNode, data: Any, path: tuple[str, ...], lines: list[str]) -> Iterator[Value]:
    for key, value in node.value:
        name, default = key.value, data[key.value]
        description, schema = _comment(lines, key.start_mark.line, key.start_mark.column)
        children: tuple[Value, ...] = ()
        if isinstance(value, yaml.MappingNode) and value.value and not schema:
            children = tuple(_children(value, default, (*path, name), lines))
        yield Value((*path, name), default, description, schema, children)


def _comment(lines: list[str], line: int, column: int) -> tuple[str, dict[str, Any]]:
    """The comment that ends above a line and stands in its column."""
    block: list[str] = []
    while (
        line > 0
        and lines[line - 1].strip().startswith("#")
        and len(lines[line - 1]) - len(lines[line - 1].lstrip()) == column
    ):
        line -= 1
        block.insert(0, lines[line].strip())
    words: list[str] = []
    schema: dict[str, Any] = {}
    for text in block:
        if text.startswith(DESCRIPTION):
            words = [text.removeprefix(DESCRIPTION)]
        elif text.startswith(SCHEMA):
            schema.update(json.loads(text.removeprefix(SCHEMA)))
        elif words:
            words.append(text.removeprefix("#").strip())
    return " ".join(words), schema
