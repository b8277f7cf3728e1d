"""Arguments of an engine by Python name, as its command line writes them."""

import json
import re
from collections.abc import Mapping
from typing import Any

from quarterdeck.operator.render.request import RenderError

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}")


def command_line(arguments: Mapping[str, Any]) -> list[str]:
    """`max_num_seqs: 8` → `--max-num-seqs=8`; true and false → `--name`, `--no-name`; lists → repeated values; objects
    → JSON; None → left out. Sorted by name, so that the order in a manifest does not restart an engine.

    Raises RenderError for a name that is none.
    """
    words: list[str] = []
    for name, value in sorted(arguments.items()):
        if not _NAME.fullmatch(name):
            raise RenderError("InvalidEngineArgument", f"spec.engine.args: {name!r} is not a name of an argument")
        option = f"--{name.replace('_', '-')}"
        if value is None:
            continue
        if value is True:
            words.append(option)
        elif value is False:
            words.append(f"--no-{option[2:]}")
        elif isinstance(value, list | tuple):
            words += [option, *(_text(each) for each in value)]
        else:
            words.append(f"{option}={_text(value)}")
    return words


def merged_arguments(
    derived: Mapping[str, Any], given: Mapping[str, Any], reserved: Mapping[str, str]
) -> dict[str, Any]:
    """Derived arguments with a Model's own, which take precedence. `reserved` names the field that sets an argument.

    Raises RenderError for an argument that has a field of its own.
    """
    own: dict[str, Any] = {}
    for name, value in given.items():
        plain = name.replace("-", "_")
        if plain in reserved:
            raise RenderError("InvalidEngineArgument", f"spec.engine.args: `{name}` is set by {reserved[plain]}")
        own[plain] = value
    return {**derived, **own}


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping | list):
        return json.dumps(value, sort_keys=True, separators=(",", ":"))
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value)
