"""Copies of adapters, one folder for each content.

vLLM reads an adapter's files again after it has evicted the adapter, and a file that is missing then ends its engine
core. Its prefix cache knows an adapter by its name only. So the engine is given a copy that nothing else changes, under
a name that carries the content's hash.
"""

import hashlib
import json
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin", "adapter_model.pt")
"""The files that vLLM looks for, in its order."""
MARK = "@"
"""Between the name and the hash in the engine's name. No name of an adapter contains it."""
KEPT_SECONDS = 3600.0
"""How long an unused copy is kept: longer than any request that may still run with it."""

_CONFIG_LIMIT = 1 << 20
_HEADER_LIMIT = 100 << 20
"""Of a safetensors file, as the format's own reader limits it."""
_HASH_DIGITS = 16
_INCOMING = ".incoming-"


class AdapterFilesError(Exception):
    """The folder has no adapter that can be loaded. The message gives the reason in one line, without the path: callers
    of the gateway see it."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter as the engine loads it."""

    name: str
    """The public name."""
    engine_name: str
    """The name in the engine: equal names are equal contents."""
    path: Path
    """Our copy."""


class AdapterStore:
    """`folder` must be visible on every node with replicas. All methods block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def take(self, name: str, source: Path, roots: Sequence[Path] = ()) -> Adapter:
        """Copy the adapter in `source`. With `roots`, its files must be below one of them, links resolved.

        Raises AdapterFilesError.
        """
        try:
            files = [source / CONFIG, _weights(source)]
            for file in files:
                if roots and not any(file.resolve().is_relative_to(root) for root in roots):
                    raise AdapterFilesError(f"its {file.name} is a link to a file outside the adapter roots")
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            incoming = Path(tempfile.mkdtemp(prefix=_INCOMING, dir=self._folder))
            try:
                digest = hashlib.sha256()
                for file in files:
                    _copy(file, incoming / file.name, digest)
                _validate(incoming)
                path = self._folder / digest.hexdigest()[:_HASH_DIGITS]
                if not _is_complete(path):
                    shutil.rmtree(path, ignore_errors=True)
                    incoming.rename(path)
                os.utime(path)
            finally:
                shutil.rmtree(incoming, ignore_errors=True)
        except OSError as error:
            raise AdapterFilesError(f"its files can't be copied: {error.strerror or type(error).__name__}") from error
        return Adapter(name, f"{name}{MARK}{path.name}", path)

    def has(self, adapter: Adapter) -> bool:
        """Whether the adapter's copy is complete."""
        return _is_complete(adapter.path)

    def prune(self, used: Collection[Path], now: float | None = None) -> None:
        """Delete copies that have not been used for an hour, and what a killed process left."""
        oldest = (time.time() if now is None else now) - KEPT_SECONDS
        try:
            found = list(os.scandir(self._folder))
        except FileNotFoundError:
            return
        for entry in found:
            path = Path(entry.path)
            if path in used:
                os.utime(path)
            elif entry.is_dir(follow_symlinks=False) and entry.stat().st_mtime < oldest:
                shutil.rmtree(path, ignore_errors=True)


def _weights(source: Path) -> Path:
    if not (source / CONFIG).is_file():
        raise AdapterFilesError(f"its folder has no {CONFIG}")
    for name in WEIGHTS:
        if (source / name).is_file():
            return source / name
    raise AdapterFilesError(f"its folder has no {WEIGHTS[0]}")


def _is_complete(path: Path) -> bool:
    return (path / CONFIG).is_file() and any((path / name).is_file() for name in WEIGHTS)


def _copy(source: Path, target: Path, digest: "hashlib._Hash") -> None:
    """Copy a file and add its name, size and bytes, as they were copied, to the digest."""
    with source.open("rb") as reading, target.open("xb") as writing:
        size = 0
        own = hashlib.sha256()
        while piece := reading.read(1 << 20):
            size += len(piece)
            own.update(piece)
            writing.write(piece)
        digest.update(f"{target.name} {size} {own.hexdigest()}\n".encode())
        writing.flush()
        os.fsync(writing.fileno())


def _validate(folder: Path) -> None:
    """Refuse what the engine could not read: a folder may be copied while its files are still being written."""
    config = folder / CONFIG
    try:
        values = json.loads(config.read_bytes()) if config.stat().st_size <= _CONFIG_LIMIT else None
    except (ValueError, RecursionError):
        values = None
    if not isinstance(values, dict):
        raise AdapterFilesError(f"its {CONFIG} is not a JSON object")
    weights = folder / WEIGHTS[0]
    if weights.is_file() and not _is_safetensors(weights):
        raise AdapterFilesError(f"its {WEIGHTS[0]} is damaged or incomplete")


def _is_safetensors(path: Path) -> bool:
    """Whether the file has the length that its header says."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
        if len(start) < 8:
            return False
        (length,) = struct.unpack("<Q", start)
        if length > min(size - 8, _HEADER_LIMIT):
            return False
        try:
            header = json.loads(file.read(length))
            ends = [value["data_offsets"][1] for name, value in header.items() if name != "__metadata__"]
        except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
            return False
    return bool(ends) and 8 + length + max(ends) == size
