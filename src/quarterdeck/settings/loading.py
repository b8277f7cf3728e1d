"""Reads quarterdeck.yaml and reports problems by line.

A problem is reported as a compiler does, with file, line and location: `quarterdeck.yaml:7: models[0].price.input: …`.
The shape of the file is `config.py`.
"""

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from quarterdeck.settings.config import Config, DuplicateNameError, MisplacedValueError


class ConfigError(ValueError):
    """The file is invalid; the message has one line per problem."""


def load(path: Path) -> Config:
    """Read and validate the file. Raises ConfigError with a line `file:line: location: problem` for each problem."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error
    return parse(text, path.name)


def parse(text: str, filename: str = "quarterdeck.yaml") -> Config:
    """Validate the text of a quarterdeck.yaml; `filename` appears in messages only. Raises ConfigError."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except (ValueError, RecursionError) as error:  # an impossible date; a recursive document
        raise ConfigError(f"{filename}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{mark.line + 1}: " if mark else " "
        raise ConfigError(f"{filename}:{line}{getattr(error, 'problem', None) or error}") from error
    if not isinstance(data, dict):
        raise ConfigError(f"{filename}:1: expected a mapping with `models:`")
    try:
        duplicates = _duplicate_keys(node)
    except RecursionError as error:
        raise ConfigError(f"{filename}: the document is recursive or nested too deeply") from error
    if duplicates:
        raise ConfigError("\n".join(f"{filename}:{line}: {key}: duplicate key" for key, line in duplicates))
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError("\n".join(_line_of(problem, node, filename) for problem in error.errors())) from error


def _duplicate_keys(node: yaml.Node | None) -> list[tuple[str, int]]:
    """Return duplicate keys with their lines. YAML itself silently keeps the last of two equal keys."""
    found: list[tuple[str, int]] = []
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                found.append((key.value, key.start_mark.line + 1))
            seen.add(key.value)
            found += _duplicate_keys(value)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            found += _duplicate_keys(value)
    return found


def _line_of(problem: Any, node: yaml.Node | None, filename: str) -> str:
    """Format a problem with its line, found by walking the YAML tree along pydantic's location."""
    where, line = "", 1
    cause = problem.get("ctx", {}).get("error")
    for part in cause.where if isinstance(cause, MisplacedValueError) else problem["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
        if (step := _child(node, part)) is not None:
            node, line = step
    if isinstance(cause, DuplicateNameError):  # concerns the whole file; report the line of the second use
        where, line = "models", _names(node, cause.name)[-1]
    message = problem["msg"].removeprefix("Value error, ")
    return f"{filename}:{line}: {where.lstrip('.') or 'file'}: {message}"


def _names(node: yaml.Node | None, name: str) -> list[int]:
    """Return the lines that define this name, in order."""
    found: list[int] = []
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            named = value.value if key.value == "aliases" and isinstance(value, yaml.SequenceNode) else [value]
            if key.value in ("name", "aliases"):
                found += [item.start_mark.line + 1 for item in named if item.value == name]
            else:
                found += _names(value, name)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            found += _names(value, name)
    return found


def _child(node: yaml.Node | None, part: str | int) -> tuple[yaml.Node, int] | None:
    """Return the value under a key or index, and the line of the key or item."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return value, key.start_mark.line + 1
    elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part].start_mark.line + 1
    return None
