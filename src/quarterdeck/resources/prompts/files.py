"""Versions as YAML: the files in Git, and the text of a diff. Pure.

A text of several lines is a block (`|`), so that a change of one line is a change of one line.
"""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

MAX_LINES = 4000
"""Of a version in a diff by lines; finding the differences of longer ones takes seconds."""

ORDER = (
    *("name", "description", "teams", "labels"),
    *("text", "messages", "examples", "variables", "model", "parameters", "response_format", "tools", "tool_choice"),
)


_LINE_ENDS = re.compile("[\\r\\x85\\u2028\\u2029]")


class _Dumper(yaml.SafeDumper):
    """Without anchors, and with blocks for texts of several lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    # Quoted with escapes where YAML would take a character for the end of a line, and read it as another.
    style = '"' if _LINE_ENDS.search(text) else "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_multi_representer(dict, yaml.SafeDumper.represent_dict)  # also subclasses, such as a command's answers


def to_yaml(content: Mapping[str, Any]) -> str:
    """Members in a fixed order; nothing below them is sorted, as the order of a schema's properties says something."""
    known = {name: content[name] for name in ORDER if name in content}
    rest = {name: content[name] for name in sorted(content.keys() - known.keys())}
    dumped: str = yaml.dump(
        {**known, **rest}, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=100, default_flow_style=False
    )
    return dumped


def diff_text(before: Mapping[str, Any], after: Mapping[str, Any], *, names: tuple[str, str]) -> str:
    """A unified diff of both as YAML; empty where they are equal."""
    old, new = to_yaml(before).splitlines(keepends=True), to_yaml(after).splitlines(keepends=True)
    if old == new:
        return ""
    if max(len(old), len(new)) > MAX_LINES:
        return f"--- {names[0]}\n+++ {names[1]}\n@@ more than {MAX_LINES} lines @@\n"
    return "".join(difflib.unified_diff(old, new, *names))


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The members that differ, each with its path and both values; null where one has none."""
    return [{"path": path, "from": old, "to": new} for path, old, new in _changes(before, after, "")]


def _changes(before: Any, after: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    if before == after and type(before) is type(after):
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for name in dict.fromkeys((*before, *after)):
            yield from _changes(before.get(name), after.get(name), f"{path}.{name}".lstrip("."))
    elif isinstance(before, list) and isinstance(after, list):
        for at in range(max(len(before), len(after))):
            old = before[at] if at < len(before) else None
            new = after[at] if at < len(after) else None
            yield from _changes(old, new, f"{path}[{at}]")
    else:
        yield path, before, after
