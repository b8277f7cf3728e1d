"""Named platforms of this user: `~/.config/quarterdeck/contexts.toml`, mode 0600, as kubectl keeps its contexts.

QUARTERDECK_CONTEXTS names another file. A context holds a key: the file is written atomically and never readable by
others.
"""

import json
import os
import re
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from quarterdeck.cli.output import reason_of

LOCAL = "local"
"""The platform on this machine; no context can have this name."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEADER = "# Platforms of this user, with their keys. Secret: do not share (mode 0600).\n"


class ContextsError(click.ClickException):
    """The file can't be used, or a context is not there; the message says why."""


@dataclass(frozen=True, slots=True)
class Context:
    """A platform elsewhere. `url` is without `/v1`."""

    url: str
    key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Contexts:
    """All contexts by name, and the one in use. None: the platform on this machine."""

    named: Mapping[str, Context] = field(default_factory=dict)
    current: str | None = None

    def with_context(self, name: str, context: Context) -> "Contexts":
        """Raises ContextsError for an invalid name."""
        if name == LOCAL or not _NAME.fullmatch(name):
            reason = "is the platform on this machine" if name == LOCAL else "is not a name such as prod or team-a"
            raise ContextsError(f"'{name}' {reason}")
        return replace(self, named={**self.named, name: context})

    def without(self, name: str) -> "Contexts":
        """Raises ContextsError."""
        self.find(name)
        left = {other: context for other, context in self.named.items() if other != name}
        return Contexts(left, None if self.current == name else self.current)

    def using(self, name: str) -> "Contexts":
        """Raises ContextsError."""
        if name == LOCAL:
            return replace(self, current=None)
        self.find(name)
        return replace(self, current=name)

    def find(self, name: str) -> Context:
        """Raises ContextsError."""
        if name not in self.named:
            known = ", ".join(sorted(self.named)) or "none"
            raise ContextsError(f"no context is named '{name}' (saved: {known}); `quarterdeck context set` saves one")
        return self.named[name]


def path_of(variables: Mapping[str, str]) -> Path:
    """The file. Raises ContextsError without a home folder."""
    if named := variables.get("QUARTERDECK_CONTEXTS"):
        return Path(named).expanduser()
    try:
        parent = variables.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    except RuntimeError:
        raise ContextsError("this process has no home folder: set QUARTERDECK_CONTEXTS to a file") from None
    return Path(parent) / "quarterdeck" / "contexts.toml"


def read(file: Path) -> Contexts:
    """No contexts where there is no file. Raises ContextsError."""
    try:
        data = tomllib.loads(file.read_text(encoding="utf-8"))
        named = {str(name): Context(str(each["url"]), str(each["key"])) for name, each in data["contexts"].items()}
    except FileNotFoundError:
        return Contexts()
    except (KeyError, TypeError, AttributeError):
        raise ContextsError(f"cannot read {file}: it does not hold contexts") from None
    except (OSError, ValueError) as error:
        raise ContextsError(f"cannot read {file}: {reason_of(error)}") from None
    current = data.get("current")
    return Contexts(named, current if current in named else None)


def write(file: Path, contexts: Contexts) -> None:
    """Raises ContextsError."""
    lines = [_HEADER]
    if contexts.current is not None:
        lines.append(f"current = {json.dumps(contexts.current)}\n")
    lines.append("\n[contexts]\n")
    for name, context in sorted(contexts.named.items()):
        # JSON's strings are TOML's.
        lines.append(f"{json.dumps(name)} = {{ url = {json.dumps(context.url)}, key = {json.dumps(context.key)} }}\n")
    fresh = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        fresh.unlink(missing_ok=True)
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.writelines(lines)
            out.flush()
            os.fsync(out.fileno())
        fresh.replace(file)
    except OSError as error:
        raise ContextsError(f"cannot write {file}: {error.strerror}") from None


def access_problem(file: Path) -> str | None:
    """Who else can read the file. None: only this user, or there is no file."""
    try:
        mode = stat.S_IMODE(file.stat().st_mode)
    except OSError:
        return None
    return f"{file} can be read by other users (mode {mode:04o}): run `chmod 600 {file}`" if mode & 0o077 else None
