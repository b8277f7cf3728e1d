"""Durations such as `90s`, `2m` or `500ms`, parsed into seconds. Pure."""

import re
from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field

_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def parse(text: str) -> float:
    """Return seconds; a number without a unit is seconds. Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*", text)
    if not found:
        raise ValueError(f"{text!r} is not a duration: use a form such as 90s, 2m or 500ms")
    return float(found[1]) * _UNITS[found[2]]


def from_variable(variables: Mapping[str, str], name: str, default: float) -> float:
    """Read an environment variable as seconds; unset or empty means the default. Raises ValueError naming it."""
    text = variables.get(name)
    if not text:
        return default
    try:
        return parse(text)
    except ValueError:
        raise ValueError(f"{name} must be a number of seconds, not {text!r}") from None


def _validate(value: object) -> object:
    return parse(value) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_validate), Field(ge=0)]
"""A pydantic field that accepts seconds as a number or as duration text."""
