"""A spool: lines that must survive an outage of Redis, in a folder of files, each append fsynced.

Each process writes files of its own. A replay takes a file by renaming and locking it, so that no two processes replay
the same file; the lock ends with the process, so another can take the file of one that died. A crash between replay and
removal replays a line twice, which the reader must recognise: records are idempotent by id.
"""

import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

WRITING, TAKEN, UNREADABLE = ".lines", ".taken", ".unreadable"

MAX_FILE_BYTES = 8 * 1024 * 1024
"""A file of this size is not appended to, because a replay reads it into memory whole."""


class Spool:
    """The spool folder, as one process uses it. All methods block: call them in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path = self._new(WRITING)
        self._locks: dict[Path, int] = {}

    def append(self, lines: Sequence[bytes]) -> None:
        """Write the lines and wait until they are on disk. A line contains no newline. Raises OSError."""
        data = b"".join(line + b"\n" for line in lines)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        while not self._append(data):
            self._path = self._new(WRITING)

    def _append(self, data: bytes) -> bool:
        """False where the file cannot be appended to: it is full, or taken."""
        descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # A replay may have taken it between opening and locking; what is written to it then is never read.
            if not _is_at(self._path, descriptor):
                return False
            size = os.fstat(descriptor).st_size
            if size >= MAX_FILE_BYTES:
                return False
            try:
                written = 0
                while written < len(data):
                    written += os.write(descriptor, data[written:])
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)  # half a line would corrupt the next one
                raise
            if size == 0:
                self._sync_folder()  # a new file survives a crash only when its folder is synced
            return True
        finally:
            os.close(descriptor)

    def take(self) -> Path | None:
        """Claim a waiting file, of any process; None where there is none. `remove` or `put_back` must follow."""
        for path in sorted(self._folder.glob(f"*{WRITING}")) + sorted(self._folder.glob(f"*{TAKEN}")):
            if (taken := self._claim(path)) is not None:
                return taken
        return None

    def _claim(self, path: Path) -> Path | None:
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except FileNotFoundError:  # another gateway was faster
            return None
        taken = None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_at(path, descriptor):
                taken = self._new(TAKEN)
                path.rename(taken)
                self._locks[taken] = descriptor
        except BlockingIOError:  # being written to, or replayed by another
            pass
        finally:
            if taken is None:
                os.close(descriptor)
        return taken

    def read(self, taken: Path) -> Iterator[bytes]:
        """The lines of a claimed file. A last line cut off by a crash was never confirmed and is skipped."""
        with taken.open("rb") as file:
            for line in file:
                if line.endswith(b"\n") and len(line) > 1:
                    yield line[:-1]

    def remove(self, taken: Path) -> None:
        """Delete a claimed file: all of its lines were replayed."""
        taken.unlink(missing_ok=True)
        self.put_back(taken)

    def put_back(self, taken: Path) -> None:
        """Release a claimed file, so that any process can take it."""
        if (descriptor := self._locks.pop(taken, None)) is not None:
            os.close(descriptor)

    def set_aside(self, lines: Sequence[bytes]) -> Path:
        """Keep unreadable lines in a file for the operator, which is never replayed. Raises OSError."""
        path = self._new(UNREADABLE)
        path.write_bytes(b"".join(line + b"\n" for line in lines))
        path.chmod(0o600)
        return path

    def waiting(self) -> int:
        """The number of lines in all files."""
        count = 0
        for path in [*self._folder.glob(f"*{WRITING}"), *self._folder.glob(f"*{TAKEN}")]:
            try:
                with path.open("rb") as file:
                    count += sum(1 for _ in file)
            except FileNotFoundError:  # it was replayed in between
                continue
        return count

    def _new(self, suffix: str) -> Path:
        return self._folder / f"{uuid4().hex}{suffix}"

    def _sync_folder(self) -> None:
        folder = os.open(self._folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether the open file still has that name."""
    try:
        named = path.stat()
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
