"""Writes the files of added models (`drop_ins.py`): whole or not at all, one writer at a time.

Gateway and CLI may write at the same time. A lock file orders them, and each change sees what the one before it left.
"""

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import yaml

from quarterdeck.durability import sync_folder
from quarterdeck.settings.drop_ins import MAX_BYTES, MAX_FILES, SUFFIX, DropIn, paths_in, read_drop_in
from quarterdeck.settings.models import ModelConfig

LOCK = ".lock"
HEADER = (
    "# A model of Quarterdeck: an entry of `models:`. `quarterdeck models` changes it; an edit takes effect at once.\n"
)
_MAX_NAME = 200


class NameTakenError(Exception):
    """A file of the folder defines this name already."""


class NotAddedError(Exception):
    """No file of the folder defines this name."""


class TooManyModelsError(Exception):
    """The folder holds MAX_FILES files."""


class ModelTooLargeError(Exception):
    """The model's file would be larger than MAX_BYTES."""


class DropInFiles:
    """The folder, for changes. All methods block, and raise OSError where the disk is full or not writable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other writers out. The lock ends with its process."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def read(self) -> list[DropIn]:
        return [read_drop_in(path) for path in paths_in(self.folder)]

    def find(self, name: str) -> DropIn:
        """The file that defines a model, or that has its name and is broken. Raises NotAddedError."""
        read = self.read()
        for each in read:
            if each.model is not None and each.model.name == name:
                return each
        for each in read:
            if each.model is None and each.path.name == filename_of(name):
                return each
        raise NotAddedError(name)

    def create(self, model: ModelConfig) -> Path:
        """Add a file; call it within `locked`. Raises NameTakenError, TooManyModelsError, ModelTooLargeError."""
        if any(each.model is not None and each.model.name == model.name for each in self.read()):
            raise NameTakenError(model.name)
        if len(paths_in(self.folder)) >= MAX_FILES:
            raise TooManyModelsError
        path = self.folder / filename_of(model.name)
        if path.exists():  # a file that is broken, or that defines another model
            raise NameTakenError(path.name)
        self._write(path, model)
        return path

    def replace(self, model: ModelConfig) -> Path:
        """Write a model's file anew; call it within `locked`. Raises NotAddedError, ModelTooLargeError."""
        path = self.find(model.name).path
        self._write(path, model)
        return path

    def remove(self, name: str) -> Path:
        """Delete a model's file; call it within `locked`. Raises NotAddedError."""
        path = self.find(name).path
        path.unlink()
        sync_folder(self.folder)
        return path

    def _write(self, path: Path, model: ModelConfig) -> None:
        text = HEADER + text_of(model)
        if len(text.encode()) > MAX_BYTES:
            raise ModelTooLargeError
        descriptor, name = tempfile.mkstemp(prefix=".", suffix=".new", dir=self.folder)
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            os.replace(name, path)
        except BaseException:
            with suppress(OSError):
                os.unlink(name)
            raise
        sync_folder(self.folder)


def filename_of(name: str) -> str:
    """A file name for a model's: a slash is `%2F`."""
    quoted = quote(name, safe=":@")
    return (
        quoted if len(quoted) <= _MAX_NAME else f"{quoted[:_MAX_NAME]}~{sha256(name.encode()).hexdigest()[:12]}"
    ) + SUFFIX


def text_of(model: ModelConfig) -> str:
    """The model's entry as YAML, without the fields that have their defaults."""
    text: str = yaml.safe_dump(
        model.model_dump(mode="json", exclude_defaults=True), sort_keys=False, allow_unicode=True, width=120
    )
    return text
