"""Models that were added beside quarterdeck.yaml: a folder of files, each with one entry of `models:`.

`quarterdeck models add` and the admin API write them (`drop_in_files.py`); the user's own file is never rewritten.
Every process that follows quarterdeck.yaml follows the folder as well, and joins both here.

A file that can't be used is named in `Config.problems` and concerns its own model only: the model keeps the definition
that it had, if the process knows one.
"""

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from quarterdeck.settings.config import Config
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.files import TRANSIENT, read_file
from quarterdeck.settings.loading import ConfigError, load, read_document, validated
from quarterdeck.settings.models import ModelConfig
from quarterdeck.settings.packaged import config_path

SUFFIX = ".yaml"
MAX_BYTES = 64 * 1024
"""Of a file. One model's entry has a few hundred."""
MAX_FILES = 500

Stamps = tuple[tuple[str, int, int, int], ...]


def folder_of(state: Path) -> Path:
    """The folder in the state folder."""
    return state / "models.d"


@dataclass(frozen=True, slots=True)
class DropIn:
    """A file of the folder, and what it defines."""

    path: Path
    model: ModelConfig | None
    problem: str = ""
    """Why the file can't be used. Empty: it can."""
    is_transient: bool = False
    """Whether the problem says nothing of the file, which may be read a moment later."""


class DropIns:
    """The files of a folder, as a process follows them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[Path, ModelConfig] = {}
        self.is_stale = False
        """Whether a file could not be read for a reason that passes."""

    def stamps(self) -> Stamps:
        """Changes with the folder's files. Empty: there are none."""
        found = []
        for path in paths_in(self._folder):
            try:
                stat = path.stat()
            except OSError:
                continue
            found.append((path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)

    def load(self, path: Path) -> Config:
        """quarterdeck.yaml together with the folder's models. Raises ConfigError for quarterdeck.yaml only."""
        read = [read_drop_in(each) for each in paths_in(self._folder)]
        self.is_stale = any(each.is_transient for each in read)
        kept = [DropIn(each.path, each.model or self._known.get(each.path)) for each in read]
        self._known = {each.path: each.model for each in kept if each.model is not None}
        problems = [
            f"{each.problem}; the previous definition stays in force" if each.path in self._known else each.problem
            for each in read
            if each.problem
        ]
        return merge(load(path, tuple(self._known.values())), kept, problems)


def load_with_drop_ins(path: Path, folder: Path) -> Config:
    """One reading of both. Raises ConfigError for quarterdeck.yaml only."""
    return DropIns(folder).load(path)


def paths_in(folder: Path) -> list[Path]:
    """The folder's files by name, at most MAX_FILES. No folder: none."""
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(SUFFIX) and not name.startswith("."))
    except OSError:
        return []
    return [folder / name for name in names[:MAX_FILES]]


def read_drop_in(path: Path) -> DropIn:
    """Read a file. A failure is part of the result."""
    label = f"{path.parent.name}/{path.name}"
    try:
        text = read_file(path, MAX_BYTES).decode("utf-8")
        data, node = read_document(text, label, "`name:` and `engine:`")
        return DropIn(path, validated(ModelConfig, data, node, label))
    except OSError as error:
        return DropIn(path, None, f"{label}: {error.strerror or error}", error.errno in TRANSIENT)
    except UnicodeDecodeError:
        return DropIn(path, None, f"{label}: not UTF-8 text")
    except ConfigError as error:
        return DropIn(path, None, str(error).replace("\n", "; "))


def merge(base: Config, drop_ins: Iterable[DropIn], problems: Sequence[str] = ()) -> Config:
    """`base` with the models of the files. What the file of the configuration defines goes first, then the files in
    their order. Pure."""
    found = list(problems)
    added: list[ModelConfig] = []
    own = {model.name for model in base.models}
    candidates = [(each.path, each.model) for each in drop_ins if each.model is not None]
    needed = {model.name for _, model in candidates if model in base.models}  # by routes of the file: `load`
    seen: dict[str, Path] = {}
    for path, model in candidates:
        label = f"{path.parent.name}/{path.name}"
        if model.name in own - needed:
            found.append(f"{label}: '{model.name}' is in quarterdeck.yaml as well, whose definition applies")
        elif model.name in seen:
            found.append(f"{label}: '{model.name}' is defined in {seen[model.name].name} already")
        else:
            seen[model.name] = path
            added.append(model)
    if not added and not found:
        return base
    try:
        return base.with_models(added, found)
    except ValidationError:
        return _one_by_one(base, added, seen, found)


def _one_by_one(base: Config, added: Sequence[ModelConfig], paths: dict[str, Path], problems: list[str]) -> Config:
    """Leave out each model that conflicts with the rest."""
    kept: list[ModelConfig] = []
    for model in added:
        try:
            base.with_models([*kept, model])
        except ValidationError as error:
            path = paths[model.name]
            why = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
            problems.append(f"{path.parent.name}/{path.name}: {why}")
        else:
            kept.append(model)
    return base.with_models(kept, problems)


def read_configuration(environment: Environment) -> Config:
    """This machine's configuration as it is now: quarterdeck.yaml and the models added in the state folder. Raises
    ConfigError."""
    return load_with_drop_ins(config_path(environment), folder_of(environment.state))
