"""A spool: lines that must survive an outage of Redis, in a folder of files, each append fsynced.

Each process writes files of its own. A replay takes a file by renaming and locking it, so that no two processes replay
the same file; the lock ends with the process, so another can take the file of one that died. A crash between replay and
removal replays a line twice, which the reader must recognise: records are idempotent by id.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from uuid import uuid4

WRITING, TAKEN, UNREADABLE, RESERVE = ".lines", ".taken", ".unreadable", ".reserve"

MAX_FILE_BYTES = 8 * 1024 * 1024
"""A file of this size is not appended to, because a replay reads it into memory whole."""
RESERVED_BYTES = 4 * 1024 * 1024
"""Kept free for the records of requests that are in flight when the disk fills up: 2,048 of them, and some to spare."""
LEAST_RESERVED_BYTES = 16 * 1024
"""On a disk that has no room for RESERVED_BYTES, a quarter is tried as long as it is no less than this."""
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Spool:
    """The spool folder, as one process uses it. All methods block: call them in a thread."""

    def __init__(self, folder: Path, *, reserved_bytes: int = RESERVED_BYTES) -> None:
        self._folder = folder
        self._path = self._new(WRITING)
        self._locks: dict[Path, int] = {}
        self._reserved_bytes = reserved_bytes
        self._reserve: int | None = None
        """The descriptor of the file that keeps space free. It is locked for as long as this process lives."""
        self._reserve_path = self._new(RESERVE)
        self._reserve_left = self._reserve_at = 0

    def append(self, lines: Sequence[bytes], short: Sequence[bytes] | None = None) -> bool:
        """Write the lines and wait until they are on disk. A line contains no newline. Raises OSError.

        Returns False where the disk is full and they went into reserved space, as `short` if there is that.
        """
        data = _joined(lines)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            while not self._append(data):
                self._path = self._new(WRITING)
        except OSError as error:
            if error.errno not in _FULL or not self._append_reserved(_joined(short or lines)):
                raise
            return False
        return True

    def reserve(self) -> bool:
        """Keep space for records that come when the disk is full, unless that is done already. Returns whether there
        is any."""
        if self._reserve is not None and self._reserve_path.suffix == RESERVE:
            return True
        self._forget_reserve()
        with contextlib.suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._drop_old_reserves()
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return False
        # The database and Redis may be on the same disk.
        size = min(self._reserved_bytes, disk.f_bavail * disk.f_frsize // 4)
        while size >= max(1, min(LEAST_RESERVED_BYTES, self._reserved_bytes)):
            path = self._new(RESERVE)
            try:
                descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            except OSError:
                return False
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.posix_fallocate(descriptor, 0, size)
            except OSError:
                os.close(descriptor)
                path.unlink(missing_ok=True)
                size //= 4
                continue
            self._reserve, self._reserve_path, self._reserve_left, self._reserve_at = descriptor, path, size, 0
            return True
        return False

    def _append_reserved(self, data: bytes) -> bool:
        """Write into the reserved space, which becomes a file of lines. False: there is too little left."""
        if self._reserve is None or len(data) > self._reserve_left:
            return False
        if self._reserve_path.suffix == RESERVE:
            path = self._new(WRITING)
            self._reserve_path.rename(path)
            self._reserve_path = path
        written = 0
        while written < len(data):
            written += os.pwrite(self._reserve, data[written:], self._reserve_at + written)
        os.fsync(self._reserve)
        self._sync_folder()
        self._reserve_at += len(data)
        self._reserve_left -= len(data)
        return True

    def release_reserve(self) -> None:
        """Let the reserved space be replayed, where records were written to it. It takes no more of them."""
        if self._reserve is not None and self._reserve_path.suffix != RESERVE:
            self._forget_reserve()

    def close(self) -> None:
        """Give the reserved space back."""
        if self._reserve is not None and self._reserve_path.suffix == RESERVE:
            self._reserve_path.unlink(missing_ok=True)
        self._forget_reserve()

    def _forget_reserve(self) -> None:
        if self._reserve is not None:
            os.close(self._reserve)
        self._reserve, self._reserve_left = None, 0

    def _drop_old_reserves(self) -> None:
        """Remove the reserved space of processes that died."""
        for path in self._folder.glob(f"*{RESERVE}"):
            try:
                descriptor = os.open(path, os.O_WRONLY)
            except FileNotFoundError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink(missing_ok=True)
            except BlockingIOError:  # its process lives
                pass
            finally:
                os.close(descriptor)

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
        """The lines of a claimed file. A last line cut off by a crash was never confirmed and is skipped, as are the
        zeros of reserved space."""
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
                    count += sum(line.endswith(b"\n") for line in file)
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


def _joined(lines: Sequence[bytes]) -> bytes:
    return b"".join(line + b"\n" for line in lines)
