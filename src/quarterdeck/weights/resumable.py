"""A large file, downloaded so that it is resumed where an earlier process was killed.

huggingface_hub begins an interrupted file anew, as its temporary file has a random name. Here it is named after the
file's hash, and the hash is checked before the file is put in place.
"""

import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".quarterdeck-partial"
PIECE = 1 << 20
ATTEMPTS = 5
"""Failures in a row, without a byte between them, before a download is given up."""
PAUSE_SECONDS = 1.0
"""Before the second attempt; doubled for each further one."""

OpenAt = Callable[[int], AbstractContextManager[tuple[int, Iterator[bytes]]]]
"""Opens the file at an offset. Gives the offset at which the pieces begin: 0 where the server can't resume."""


class DamagedError(Exception):
    """The content has not the hash that the hub states."""


@dataclass(frozen=True, slots=True)
class Blob:
    """A file by its content."""

    path: Path
    """Where it is put."""
    size: int
    sha256: str

    @property
    def partial(self) -> Path:
        return self.path.with_name(self.path.name + SUFFIX)

    @property
    def present(self) -> int:
        """Bytes of it that lie here."""
        for path in (self.path, self.partial):
            try:
                return min(path.stat().st_size, self.size)
            except FileNotFoundError:
                continue
        return 0


def download(
    blob: Blob,
    open_at: OpenAt,
    on_bytes: Callable[[int], None],
    *,
    retry_on: tuple[type[Exception], ...],
    pause_seconds: float = PAUSE_SECONDS,
) -> None:
    """Complete the file. `on_bytes`: bytes that were added, negative where some were thrown away. Another process that
    downloads the same file is waited for. Raises DamagedError, OSError, and one of `retry_on` after ATTEMPTS."""
    blob.path.parent.mkdir(parents=True, exist_ok=True)
    with _locked(blob) as file:
        if blob.path.exists():
            return
        failures = 0
        while (at := file.seek(0, os.SEEK_END)) < blob.size:
            try:
                _append(file, at, blob.size, open_at, on_bytes)
            except retry_on:
                failures = failures + 1 if file.seek(0, os.SEEK_END) <= at else 1
                if failures >= ATTEMPTS:
                    raise
                time.sleep(pause_seconds * 2 ** (failures - 1))
        if at > blob.size or _hash(file) != blob.sha256:
            on_bytes(-min(at, blob.size))
            blob.partial.unlink()
            raise DamagedError
        os.fsync(file.fileno())
        os.replace(blob.partial, blob.path)


def _append(file: BinaryIO, at: int, size: int, open_at: OpenAt, on_bytes: Callable[[int], None]) -> None:
    with open_at(at) as (begins, pieces):
        if begins != at:
            on_bytes(begins - at)
            file.truncate(begins)
            file.seek(begins)
        for piece in pieces:
            file.write(piece)
            on_bytes(len(piece))
            if file.tell() > size:
                return


class _locked:
    """The partial file, unbuffered, held by this process alone."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob

    def __enter__(self) -> BinaryIO:
        while True:
            file = open(self._blob.partial, "a+b", buffering=0)  # closed in __exit__
            fcntl.flock(file, fcntl.LOCK_EX)
            if self._is_in_place(file):
                self._file = file
                return file
            file.close()  # who held it has put it in place meanwhile

    def __exit__(self, *error: object) -> None:
        is_empty = self._file.seek(0, os.SEEK_END) == 0
        if is_empty and self._is_in_place(self._file):
            self._blob.partial.unlink()
        self._file.close()

    def _is_in_place(self, file: BinaryIO) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self._blob.partial))
        except FileNotFoundError:
            return False


def _hash(file: BinaryIO) -> str:
    digest = hashlib.sha256()
    file.seek(0)
    while piece := file.read(PIECE):
        digest.update(piece)
    return digest.hexdigest()
