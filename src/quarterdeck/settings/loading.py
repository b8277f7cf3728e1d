"""Reads quarterdeck.yaml and reports problems by line.

A problem is reported as a compiler does, with file, line and location: `quarterdeck.yaml:7: models[0].price.input: …`.
The shape of the file is `config.py`.
"""

import errno
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from quarterdeck.settings.config import Config, DuplicateNameError, MisplacedValueError
from quarterdeck.settings.files import read_file
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.problem_texts import problem_text

T = TypeVar("T", bound=BaseModel)

MAX_BYTES = 1024 * 1024
"""Of the file: as much as a ConfigMap holds."""
MAX_NODES = 200_000
"""Values in the file, with its aliases expanded: more than a megabyte of text can hold without them."""
MAX_PROBLEMS = 50
"""Problems that are reported by line."""

MAX_FAST_DEPTH = 100
"""Nesting up to which libyaml composes a document: it does so recursively in C, without a bound."""

UNREADABLE = {
    errno.ENOENT: "there is no such file",
    errno.ENOTDIR: "there is no such file",
    errno.EISDIR: "it is a folder, not a file",
    errno.EACCES: "permission denied",
}
ORIGIN = "QUARTERDECK_CONFIG or `up --config` names the file, and without them the packaged one is used"
"""Ends the message of a file that can't be read: the name is often the mistake."""


class ConfigError(ValueError):
    """The file is invalid; the message has one line per problem."""


def load(path: Path, added: Sequence[ModelConfig] = ()) -> Config:
    """Read and validate the file. Raises ConfigError with a line `file:line: location: problem` for each problem.

    `added`: models that its routes may name as well. They are part of the result only where its routes need them.
    """
    try:
        text = read_file(path, MAX_BYTES).decode("utf-8")
    except OSError as error:
        why = UNREADABLE.get(error.errno or 0) or error.strerror or str(error)
        raise ConfigError(f"{path}: {why}; {ORIGIN}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text") from error
    try:
        return parse(text, path.name)
    except ConfigError:
        if added and (config := _with_models(text, path.name, added)) is not None:
            return config
        raise


def _with_models(text: str, filename: str, added: Sequence[ModelConfig]) -> Config | None:
    """The file with `added` at the end of its models. None: it is not valid either."""
    try:
        data, node = read_document(text, filename, "`models:`")
        models = data.get("models")
        return validated(Config, {**data, "models": [*models, *added]}, node, filename) if models is not None else None
    except (ConfigError, TypeError):  # TypeError: `models` is no list
        return None


def parse(text: str, filename: str = "quarterdeck.yaml") -> Config:
    """Validate the text of a quarterdeck.yaml; `filename` appears in messages only. Raises ConfigError."""
    if text.startswith("{") and (config := _from_json(text)) is not None:
        return config
    data, node = read_document(text, filename, "`models:`")
    return validated(Config, data, node, filename)


def read_document(text: str, filename: str, expected: str) -> tuple[dict[str, Any], yaml.Node]:
    """The mapping that a YAML text holds, and its nodes with their lines. `expected`: its keys, for a message. Raises
    ConfigError."""
    try:
        loader = _loader(text)
        node = loader.get_single_node()
        if _size(node, {}) > MAX_NODES:  # before anything walks it: ten lines of aliases can stand for a billion nodes
            raise ConfigError(f"{filename}: more than {MAX_NODES} values once its aliases are expanded")
        data = loader.construct_document(node) if node is not None else None
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:  # an impossible date; a recursive document
        raise ConfigError(f"{filename}: {error}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f"{mark.line + 1}: " if mark else " "
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or error
        raise ConfigError(f"{filename}:{line}{problem}") from error
    if data is None:
        raise ConfigError(f"{filename}:1: the file is empty: expected a mapping with {expected}")
    if not isinstance(data, dict):
        raise ConfigError(f"{filename}:1: expected a mapping with {expected}")
    try:
        duplicates = _duplicate_keys(node, set())
    except RecursionError as error:
        raise ConfigError(f"{filename}: the document is recursive or nested too deeply") from error
    if duplicates:
        raise ConfigError("\n".join(f"{filename}:{line}: {key}: duplicate key" for key, line in duplicates))
    return data, node


def validated(shape: type[T], data: dict[str, Any], node: yaml.Node, filename: str) -> T:
    """The document as `shape`. Raises ConfigError with a line for each problem."""
    try:
        return shape.model_validate(data)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        lines = [_line_of(problem, shape, node, filename) for problem in problems[:MAX_PROBLEMS]]
        if len(problems) > MAX_PROBLEMS:
            lines.append(f"{filename}: and {len(problems) - MAX_PROBLEMS} more problems")
        raise ConfigError("\n".join(lines)) from error
    except RecursionError as error:
        raise ConfigError(f"{filename}: the document is recursive or nested too deeply") from error


def _from_json(text: str) -> Config | None:
    """The operator writes JSON, which is read ten times as fast as YAML: a gateway's streams wait meanwhile. None: the
    text is not JSON, or not valid, and YAML's reader finds the lines."""
    try:
        return Config.model_validate(json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse))
    except (ValueError, RecursionError):
        return None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("duplicate key")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _loader(text: str) -> Any:
    """libyaml's where PyYAML was built with it: a configuration of 300 models takes 0.1 s instead of 1 s, in which the
    other threads of the process stand still. Its events come without recursion, so they can be measured first. Raises
    yaml.YAMLError."""
    if not hasattr(yaml, "CSafeLoader"):
        return yaml.SafeLoader(text)
    depth = 0
    for event in yaml.parse(text, Loader=yaml.CSafeLoader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_FAST_DEPTH:
                return yaml.SafeLoader(text)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
    return yaml.CSafeLoader(text)


def _size(node: yaml.Node | None, known: dict[int, int]) -> int:
    """How many nodes this one stands for, aliases expanded. `known`: sizes by the node's identity; -1 while it is being
    counted. Raises ValueError for a node that contains itself."""
    if not isinstance(node, yaml.CollectionNode):
        return 1
    size = known.get(id(node))
    if size is None:
        known[id(node)] = -1
        parts = [part for pair in node.value for part in pair] if isinstance(node, yaml.MappingNode) else node.value
        size = known[id(node)] = 1 + sum(_size(part, known) for part in parts)
    elif size < 0:
        raise ValueError("the document is recursive")
    return size


def _duplicate_keys(node: yaml.Node | None, seen_nodes: set[int]) -> list[tuple[str, int]]:
    """Return duplicate keys with their lines. YAML itself silently keeps the last of two equal keys."""
    found: list[tuple[str, int]] = []
    if id(node) in seen_nodes:  # an alias
        return found
    seen_nodes.add(id(node))
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, value in node.value:
            if key.value in seen:
                found.append((key.value, key.start_mark.line + 1))
            seen.add(key.value)
            found += _duplicate_keys(value, seen_nodes)
    elif isinstance(node, yaml.SequenceNode):
        for value in node.value:
            found += _duplicate_keys(value, seen_nodes)
    return found


def _line_of(problem: Any, shape: type[BaseModel], node: yaml.Node | None, filename: str) -> str:
    """Format a problem with its line, found by walking the YAML tree along pydantic's location."""
    where, line = "", 1
    cause = problem.get("ctx", {}).get("error")
    for part in cause.where if isinstance(cause, MisplacedValueError) else problem["loc"]:
        where += f"[{part}]" if isinstance(part, int) else f".{part}"
        if (step := _child(node, part)) is not None:
            node, line = step
    if isinstance(cause, DuplicateNameError):  # concerns the whole file; report the line of the second use
        where, line = "models", _names(node, cause.name)[-1]
    return f"{filename}:{line}: {where.lstrip('.') or 'file'}: {problem_text(problem, shape)}"


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
