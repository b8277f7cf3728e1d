"""Blobs in a folder: whole or not there, in ranges, and what a full or lost disk does."""

import asyncio
import errno
import hashlib
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.errors import StorageFullError, StorageUnavailableError
from quarterdeck.store.blobs.folder import MIN_FREE_BYTES, WRITE_BYTES, FolderBlobs
from quarterdeck.store.blobs.interface import BlobNotFoundError


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


async def read(blobs: FolderBlobs, name: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([piece async for piece in await blobs.open(name, start, end)])


def everything(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


async def test_a_blob_is_read_as_it_was_written(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    content = os.urandom(3_000_000)
    summary = await blobs.put("files/a", pieces(content[:10], content[10:2_500_000], content[2_500_000:]))
    assert (summary.size, summary.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert summary.md5 == hashlib.md5(content, usedforsecurity=False).hexdigest()
    assert await read(blobs, "files/a") == content
    assert await read(blobs, "files/a", 5, 1_000_000) == content[5:1_000_000]
    assert await read(blobs, "files/a", 2_999_990) == content[-10:]
    assert everything(tmp_path) == ["files/a"]


async def test_an_empty_blob(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    assert (await blobs.put("files/empty", pieces())).size == 0
    assert await read(blobs, "files/empty") == b""


async def test_nothing_is_left_of_a_write_that_fails(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)

    async def broken() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        raise ValueError("the client is gone")

    with pytest.raises(ValueError, match="gone"):
        await blobs.put("files/a", broken())
    assert everything(tmp_path) == []


async def test_nothing_is_left_of_a_write_that_is_cancelled(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    has_begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield b"x" * 2_000_000
        has_begun.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(blobs.put("files/a", endless()))
    await has_begun.wait()
    assert [name for name in everything(tmp_path) if not name.startswith(".partial/")] == []  # not visible yet
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert everything(tmp_path) == []


async def test_what_a_killed_process_left_is_swept(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    await blobs.put("files/whole", pieces(b"whole"))
    left = tmp_path / ".partial" / "files_left"
    left.write_bytes(b"half")
    os.utime(left, (1000, 1000))
    assert await blobs.sweep(999) == 0
    assert await blobs.sweep(1001) == 1
    assert everything(tmp_path) == ["files/whole"]


async def test_blobs_are_listed_and_deleted(tmp_path: Path) -> None:
    blobs = FolderBlobs(tmp_path)
    for name in ("files/a1", "files/a2", "parts/a1"):
        await blobs.put(name, pieces(b"abc"))
    assert sorted([entry.name async for entry in blobs.entries("files/")]) == ["files/a1", "files/a2"]
    assert [(entry.name, entry.size) async for entry in blobs.entries("files/a2")] == [("files/a2", 3)]
    await blobs.delete("files/a1")
    await blobs.delete("files/a1")
    with pytest.raises(BlobNotFoundError):
        await blobs.open("files/a1")


@pytest.mark.parametrize("name", ["../a", "files/../../a", "/etc/passwd", "files/", "files/a/b", "a", "files/a\0", ""])
async def test_no_name_leaves_the_folder(tmp_path: Path, name: str) -> None:
    blobs = FolderBlobs(tmp_path / "blobs")
    with pytest.raises(ValueError, match="not the name of a blob"):
        await blobs.put(name, pieces(b"x"))
    with pytest.raises(ValueError, match="not the name of a blob"):
        await blobs.open(name)
    with pytest.raises(ValueError, match="not the name of a blob"):
        await blobs.delete(name)


async def test_a_blob_does_not_take_the_last_space_of_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs, free = FolderBlobs(tmp_path), 32 * 1024 * 1024

    def state(of: object) -> os.statvfs_result:
        return os.statvfs_result((1, 1, free, free, free, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", state)

    async def fills() -> AsyncIterator[bytes]:
        nonlocal free
        yield b"a" * WRITE_BYTES
        free = MIN_FREE_BYTES - 1
        yield b"b" * WRITE_BYTES

    with pytest.raises(StorageFullError):
        await blobs.put("files/a", fills())
    assert everything(tmp_path) == []


async def test_a_full_disk_is_said_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blobs = FolderBlobs(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageFullError) as caught:
        await blobs.put("files/a", pieces(b"abc"))
    assert caught.value.message.startswith("The storage of files is full.")
    assert everything(tmp_path) == []


async def test_a_folder_that_is_gone_is_an_outage_and_not_a_missing_blob(tmp_path: Path) -> None:
    away = tmp_path / "file"
    away.write_bytes(b"")
    blobs = FolderBlobs(away)  # a file where the folder should be: a mount that failed
    for call in (blobs.put("files/a", pieces(b"x")), blobs.open("files/a"), blobs.probe()):
        with pytest.raises(StorageUnavailableError) as caught:
            await call
        assert str(tmp_path) not in caught.value.message


async def test_blobs_are_readable_by_their_user_only(tmp_path: Path) -> None:
    await FolderBlobs(tmp_path / "blobs").put("files/a", pieces(b"x"))
    assert (tmp_path / "blobs" / "files" / "a").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "blobs" / "files").stat().st_mode & 0o777 == 0o700
