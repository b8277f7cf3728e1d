"""Blobs in a folder of this machine, or of a volume that all gateways and workers mount.

A blob is written into `.partial/`, synced, and renamed: a reader sees all of it or nothing, also after a power failure.
Work on files runs in threads, so that a slow disk does not hold up other requests.
"""

import asyncio
import errno
import logging
import os
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, NoReturn, ParamSpec, TypeVar

from quarterdeck.durability import sync_folder
from quarterdeck.errors import StorageFullError, StorageUnavailableError
from quarterdeck.ids import object_id
from quarterdeck.store.blobs.interface import (
    PIECE_BYTES,
    BlobEntry,
    BlobNotFoundError,
    BlobSummary,
    Digests,
    check_name,
)

PARTIAL = ".partial"
WRITE_BYTES = 1024 * 1024
"""Pieces are collected up to this size: a thread for each piece of 64 KB would cost more than its write."""
MIN_FREE_BYTES = 16 * 1024 * 1024
"""With less free space, the disk counts as full: the database may be on it."""

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class FolderBlobs:
    """`folder` is created when it is first written to."""

    put_bytes = 2 * WRITE_BYTES

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, name: str, pieces: AsyncIterable[bytes]) -> BlobSummary:
        target = self._folder / check_name(name)
        digests = Digests()
        partial, file = await _in_thread(self._create, target)
        try:
            waiting: list[bytes] = []
            size = 0
            async for piece in pieces:
                waiting.append(piece)
                size += len(piece)
                if size >= WRITE_BYTES:
                    await _in_thread(_write, file, waiting, digests)
                    waiting, size = [], 0
            await _in_thread(_complete, file, waiting, digests, partial, target)
        except BaseException:
            await _in_thread(_discard, file, partial, target)
            raise
        return digests.summary()

    async def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        file = await _in_thread(self._open, check_name(name), start)
        return _read(file, None if end is None else end - start)

    async def delete(self, name: str) -> None:
        await _in_thread(self._delete, check_name(name))

    async def entries(self, prefix: str) -> AsyncIterator[BlobEntry]:
        kind, _, beginning = prefix.partition("/")
        for entry in await _in_thread(self._scan, kind, beginning):
            yield entry

    async def sweep(self, before: float) -> int:
        return await _in_thread(self._sweep, before)

    async def probe(self) -> None:
        await _in_thread(self._probe)

    async def close(self) -> None: ...

    def _create(self, target: Path) -> tuple[Path, BinaryIO]:
        folder = self._folder / PARTIAL
        for each in (folder, target.parent):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_space(folder)
        partial = folder / object_id(target.name)
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        return partial, os.fdopen(descriptor, "wb", buffering=0)

    def _open(self, name: str, start: int) -> BinaryIO:
        try:
            file = (self._folder / name).open("rb", buffering=0)
        except FileNotFoundError:
            raise BlobNotFoundError(name) from None
        file.seek(start)
        return file

    def _delete(self, name: str) -> None:
        (self._folder / name).unlink(missing_ok=True)

    def _scan(self, kind: str, beginning: str) -> list[BlobEntry]:
        entries = []
        with suppress(FileNotFoundError), os.scandir(self._folder / kind) as found:
            for each in found:
                if each.name.startswith(beginning):
                    with suppress(FileNotFoundError):
                        stat = each.stat()
                        entries.append(BlobEntry(f"{kind}/{each.name}", stat.st_size, stat.st_mtime))
        return entries

    def _sweep(self, before: float) -> int:
        count = 0
        with suppress(FileNotFoundError), os.scandir(self._folder / PARTIAL) as found:
            for each in found:
                with suppress(FileNotFoundError):
                    if each.stat().st_mtime < before:  # of its last write
                        os.unlink(each.path)
                        count += 1
        return count

    def _probe(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(self._folder, os.W_OK | os.X_OK):
            raise StorageUnavailableError("The storage of files is not available: its folder is not writable.")
        _check_space(self._folder)


async def _in_thread(call: Callable[P, R], /, *arguments: P.args, **more: P.kwargs) -> R:
    """Call in a thread, and wait for it even when cancelled: it can't be stopped, and what follows closes its file.
    Raises StorageFullError and StorageUnavailableError for errors of the system."""
    task = asyncio.ensure_future(asyncio.to_thread(call, *arguments, **more))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait({task})
        if not task.cancelled():
            task.exception()  # it was retrieved
        raise
    except OSError as error:
        _raise(error)


def _raise(error: OSError) -> NoReturn:
    """No path in the message: clients see it. The log has it."""
    reason = os.strerror(error.errno) if error.errno else type(error).__name__
    log.warning("storage of files: %s", error)
    if error.errno in _FULL:
        raise _full() from error
    raise StorageUnavailableError(f"The storage of files is not available: {reason}.") from error


def _full() -> StorageFullError:
    return StorageFullError("The storage of files is full. Delete files, or ask your administrator for more space.")


async def _read(file: BinaryIO, length: int | None) -> AsyncGenerator[bytes]:
    left = length
    try:
        while left is None or left > 0:
            piece = await _in_thread(file.read, PIECE_BYTES if left is None else min(PIECE_BYTES, left))
            if not piece:
                return
            if left is not None:
                left -= len(piece)
            yield piece
    finally:
        file.close()


def _check_space(folder: Path | int) -> None:
    """Raises StorageFullError."""
    state = os.statvfs(folder)
    if state.f_bavail * state.f_frsize < MIN_FREE_BYTES:
        raise _full()


def _write(file: BinaryIO, pieces: list[bytes], digests: Digests) -> None:
    _check_space(file.fileno())
    for piece in pieces:
        view = memoryview(piece)
        while view:
            view = view[file.write(view) :]
        digests.update(piece)


def _complete(file: BinaryIO, pieces: list[bytes], digests: Digests, partial: Path, target: Path) -> None:
    _write(file, pieces, digests)
    os.fsync(file.fileno())
    file.close()
    partial.rename(target)
    sync_folder(target.parent)


def _discard(file: BinaryIO, partial: Path, target: Path) -> None:
    file.close()
    for path in (partial, target):  # cancelled while it was renamed: no other blob ever has its name
        path.unlink(missing_ok=True)
