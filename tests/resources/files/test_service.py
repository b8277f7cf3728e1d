"""A file that goes away while it is read says why, and each content that came is counted with its outcome."""

import asyncio
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from quarterdeck.errors import (
    BadRequestError,
    InsufficientQuotaError,
    NotFoundError,
    RequestTooLargeError,
    StorageFullError,
    StorageUnavailableError,
)
from quarterdeck.resources.files.service import Files, SizeLimit
from quarterdeck.settings.file_storage import FilesConfig
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.database import Database
from quarterdeck.store.files import FileRow, FileStore, NewFile
from quarterdeck.store.ownership import Owner

OWNER = Owner("default", "red", "key_1")


def left(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


async def made(files: Files) -> FileRow:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"content"

    return await files.create(OWNER, pieces(), filename="a.txt", purpose="user_data")


async def test_a_file_that_is_deleted_between_look_up_and_reading_does_not_exist(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(FileStore(database), FolderBlobs(tmp_path), FilesConfig)
    row = await made(files)
    await files.delete(row.id, OWNER)
    with pytest.raises(NotFoundError, match="No such File object"):
        await files.open(row)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_a_file_whose_content_is_lost_says_so(
    database: Database, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = Files(FileStore(database), FolderBlobs(tmp_path), FilesConfig)
    row = await made(files)
    (tmp_path / row.blob).unlink()
    with pytest.raises(NotFoundError) as caught:
        await files.open(row)
    assert caught.value.code == "content_missing"
    assert (await files.retrieve(row.id, OWNER)).is_missing
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


async def test_each_content_is_counted_once_with_its_outcome(database: Database, tmp_path: Path) -> None:
    seen: list[tuple[str, str, int]] = []
    small = FilesConfig(max_gb_per_org=1e-8)  # 10 bytes
    limit = SizeLimit(5, "files.max_file_mb")

    async def create(config: FilesConfig | None = None, limit: SizeLimit | None = None, fail: Any = None) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            yield b"content"
            if fail is not None:
                raise fail
            yield b" and more"

        files = Files(
            FileStore(database),
            FolderBlobs(tmp_path),
            lambda: config or FilesConfig(),
            on_written=lambda *written: seen.append(written),
        )
        await files.create(OWNER, pieces(), filename="a.txt", purpose="user_data", limit=limit)

    await create()
    for error, options in (
        (InsufficientQuotaError, {"config": small}),
        (RequestTooLargeError, {"limit": limit}),
        (BadRequestError, {"fail": BadRequestError("no")}),
        (StorageFullError, {"fail": StorageFullError("full")}),
        (StorageUnavailableError, {"fail": StorageUnavailableError("away")}),
        (asyncio.CancelledError, {"fail": asyncio.CancelledError()}),
    ):
        with pytest.raises(error):
            await create(**options)
    outcomes = [outcome for _, outcome, _ in seen]
    assert outcomes == ["stored", "quota", "too_large", "refused", "full", "unavailable", "cancelled"]
    assert seen[0] == ("files", "stored", len(b"content and more"))


async def test_a_request_that_is_cancelled_in_the_moment_of_its_commit_keeps_the_content(
    database: Database, tmp_path: Path
) -> None:
    class Cancelled(FileStore):
        async def create(self, new: NewFile, quota: int | None) -> FileRow:
            await super().create(new, quota)
            raise asyncio.CancelledError

    files = Files(Cancelled(database), FolderBlobs(tmp_path), FilesConfig)
    with pytest.raises(asyncio.CancelledError):
        await made(files)
    (row,) = await files.store.page(OWNER, purpose=None, after=None, limit=10, is_descending=True)
    assert b"".join([piece async for piece in await files.open(row)]) == b"content"
    await files.delete(row.id, OWNER)
    assert left(tmp_path) == []


async def test_a_blob_that_was_given_up_is_not_claimed(database: Database, tmp_path: Path) -> None:
    class Late(FileStore):
        async def create(self, new: NewFile, quota: int | None) -> FileRow:
            assert await self.give_up([new.blob]) == [new.blob]
            return await super().create(new, quota)

    files = Files(Late(database), FolderBlobs(tmp_path), FilesConfig)
    with pytest.raises(BadRequestError, match="took too long"):
        await made(files)
    assert await files.store.page(OWNER, purpose=None, after=None, limit=10, is_descending=True) == []
    assert left(tmp_path) == []
