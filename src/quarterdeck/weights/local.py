"""Weights that lie on this machine, without asking the hub.

Files are kept in Hugging Face's own cache (HF_HOME), so that what other programs have downloaded is not downloaded
again. A complete download leaves a receipt in our cache folder: the commit, its files and their sizes.
"""

import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from quarterdeck.weights.selection import has_weights

DEFAULT_REVISION = "main"
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class Weights:
    """A complete model folder."""

    repository: str
    revision: str
    """The commit."""
    folder: Path
    size: int
    """Bytes."""


def hub_cache(variables: Mapping[str, str]) -> Path:
    """Where Hugging Face's libraries keep repositories."""
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        if value := variables.get(name):
            return Path(value).expanduser()
    if home := variables.get("HF_HOME"):
        return Path(home).expanduser() / "hub"
    parent = variables.get("XDG_CACHE_HOME")
    return (Path(parent) if parent else Path.home() / ".cache") / "huggingface" / "hub"


def repository_folder(repository: str, variables: Mapping[str, str]) -> Path:
    """The folder of a repository in Hugging Face's cache."""
    return hub_cache(variables) / f"models--{repository.replace('/', '--')}"


class Receipts:
    """What was downloaded completely. `folder` is in our cache folder."""

    def __init__(self, cache: Path) -> None:
        self._folder = cache / "weights"

    def write(self, weights: Weights, files: Mapping[str, int], revision: str) -> None:
        """Note a complete download, and that `revision` was this commit. Raises OSError."""
        folder = self._of(weights.repository)
        folder.mkdir(parents=True, exist_ok=True)
        content = {"folder": str(weights.folder), "files": dict(files)}
        _put(folder / f"{weights.revision}.json", json.dumps(content))
        if revision != weights.revision:
            _put(folder / f"{quote(revision, safe='')}.ref", weights.revision)

    def find(self, repository: str, revision: str) -> Weights | None:
        """The weights whose files are all here."""
        folder = self._of(repository)
        try:
            commit = (
                revision if _COMMIT.fullmatch(revision) else (folder / f"{quote(revision, safe='')}.ref").read_text()
            )
            content = json.loads((folder / f"{commit}.json").read_text())
            return _complete(repository, commit, content)
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None  # no receipt, or not one of ours: the hub is asked again

    def _of(self, repository: str) -> Path:
        return self._folder / quote(repository, safe="")


def find_local(repository: str, revision: str | None, variables: Mapping[str, str], cache: Path) -> Weights | None:
    """Weights that are complete on this machine: those of a download, else those that another program left in Hugging
    Face's cache. Without `revision`: the commit that `main` was when it was downloaded."""
    wanted = revision or DEFAULT_REVISION
    return Receipts(cache).find(repository, wanted) or _of_another_program(repository, wanted, variables)


def _complete(repository: str, commit: str, content: Any) -> Weights | None:
    folder, files = Path(content["folder"]), content["files"]
    for name, size in files.items():
        if (folder / name).stat().st_size != size:
            return None
    return Weights(repository, commit, folder, sum(files.values()))


def _of_another_program(repository: str, revision: str, variables: Mapping[str, str]) -> Weights | None:
    root = repository_folder(repository, variables)
    try:
        commit = revision if _COMMIT.fullmatch(revision) else (root / "refs" / revision).read_text().strip()
        folder = root / "snapshots" / commit
        if not _COMMIT.fullmatch(commit) or not folder.is_dir():
            return None
        sizes = {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}
        if not has_weights(sizes) or not _has_every_shard(folder, sizes):
            return None
    except (OSError, ValueError):
        return None
    return Weights(repository, commit, folder, sum(sizes.values()))


def _has_every_shard(folder: Path, names: Mapping[str, int]) -> bool:
    """Whether the shards that an index lists are there. Raises OSError, ValueError."""
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        if index in names:
            shards = json.loads((folder / index).read_text()).get("weight_map", {}).values()
            return all(shard in names for shard in shards)
    return True


def _put(path: Path, text: str) -> None:
    """Write a file whole or not at all. Raises OSError."""
    descriptor, name = tempfile.mkstemp(dir=path.parent)
    try:
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
