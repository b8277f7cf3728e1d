"""Lines that must not be lost while Redis is away: a folder of files, each append fsynced.

Each process writes a file of its own. Whoever replays takes a file by renaming it, so that two never replay the same;
a line replayed twice (a crash between replay and removal) is the reader's to recognise: records are idempotent by id.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

WRITING, TAKEN = ".lines", ".taken"


class Spool:
    """Blocking: call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = folder / f"{uuid4().hex}{WRITING}"

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the lines and wait until the disk has them. A line holds no newline. Raises OSError."""
        is_new = not self._path.exists()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            data = b"".join(line + b"\n" for line in lines)
            while data:
                data = data[os.write(descriptor, data) :]
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if is_new:  # the file's name is on the disk only when its folder is
            folder = os.open(self._folder, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)

    def take(self) -> Path | None:
        """Claim a file that waits, whoever wrote it; None where there is none."""
        for path in sorted(self._folder.glob(f"*{WRITING}")) + sorted(self._folder.glob(f"*{TAKEN}")):
            taken = path.with_name(f"{uuid4().hex}{TAKEN}")
            try:
                path.rename(taken)
            except FileNotFoundError:  # another gateway was faster
                continue
            return taken
        return None

    def read(self, taken: Path) -> Iterator[bytes]:
        """The lines of a claimed file. A last line cut off by a crash was never confirmed, and is left out."""
        with taken.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    yield line[:-1]

    def remove(self, taken: Path) -> None:
        """All lines of the file are where they belong."""
        taken.unlink(missing_ok=True)

    def waiting(self) -> int:
        """How many lines wait, over all files."""
        count = 0
        for path in [*self._folder.glob(f"*{WRITING}"), *self._folder.glob(f"*{TAKEN}")]:
            try:
                count += path.read_bytes().count(b"\n")
            except FileNotFoundError:  # replayed meanwhile
                continue
        return count
