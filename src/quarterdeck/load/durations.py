"""`90s`, `2m`, `500ms` in a file or on a command line, as seconds. Pure."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field

_UNITS = {"": 1.0, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(text: str) -> float:
    """A bare number is seconds. Raises ValueError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|)\s*", text)
    if not found:
        raise ValueError(f"{text!r} is no duration: write 90s, 2m or 500ms")
    return float(found[1]) * _UNITS[found[2]]


def _read(value: object) -> object:
    return seconds(value) if isinstance(value, str) else value


Seconds = Annotated[float, BeforeValidator(_read), Field(ge=0)]
