"""Lua scripts kept as `.lua` files beside the Python that runs them.

A line `--include other.lua` in a script stands for the text of that file, from the same folder. So a layout or a rule
that several scripts share is written once.
"""

from functools import cached_property
from importlib.resources import files

from quarterdeck.net.redis import Script

INCLUDE = "--include "


class PackagedScript(Script):
    """`lua/<name>.lua` of a package. Read at its first use, so that importing a module reads no file."""

    def __init__(self, package: str, name: str) -> None:
        # The base class is frozen.
        object.__setattr__(self, "package", package)
        object.__setattr__(self, "name", name)

    package: str
    name: str

    @cached_property
    def source(self) -> str:
        return read_lua(self.package, f"{self.name}.lua")

    @cached_property
    def sha(self) -> str:
        return Script(self.source).sha


def read_lua(package: str, file: str) -> str:
    """The text of a package's Lua file, its includes inserted. Raises FileNotFoundError."""
    text = files(package).joinpath("lua", file).read_text(encoding="utf-8")
    lines = []
    for line in text.splitlines():
        if line.startswith(INCLUDE):
            lines.append(read_lua(package, line.removeprefix(INCLUDE).strip()))
        else:
            lines.append(line)
    return "\n".join(lines) + "\n"
