"""An upload is joined by one request at a time, and what ends meanwhile is said in words."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path

import pytest

from quarterdeck.errors import BadRequestError, ConflictError
from quarterdeck.resources.files.objects import UploadComplete, UploadCreate
from quarterdeck.resources.files.service import Files
from quarterdeck.resources.files.uploads import Uploads
from quarterdeck.settings.file_storage import FilesConfig
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.database import Database
from quarterdeck.store.files import FileStore
from quarterdeck.store.ownership import Owner
from quarterdeck.store.uploads import UploadStore

OWNER = Owner("default", "team", "key_1")


class SlowBlobs(FolderBlobs):
    """Reads wait for `may_read`."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.reads, self.may_read = asyncio.Event(), asyncio.Event()

    async def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        self.reads.set()
        await self.may_read.wait()
        return await super().open(name, start, end)


class Bench:
    def __init__(self, database: Database, folder: Path) -> None:
        self.blobs = SlowBlobs(folder)
        files = Files(FileStore(database), self.blobs, FilesConfig)
        self.uploads = Uploads(UploadStore(database), files, self.blobs)

    async def begin(self) -> tuple[str, UploadComplete]:
        """An upload with all of its parts."""

        async def pieces() -> AsyncIterator[bytes]:
            yield b"abcdef"

        body = UploadCreate(bytes=6, filename="a.txt", mime_type="text/plain", purpose="user_data")
        made = await self.uploads.create(body, OWNER)
        part = await self.uploads.add_part(made["id"], pieces(), OWNER)
        return made["id"], UploadComplete(part_ids=[part["id"]])


async def test_a_second_request_does_not_join_the_parts_again(database: Database, tmp_path: Path) -> None:
    bench = Bench(database, tmp_path)
    id, body = await bench.begin()
    first = asyncio.create_task(bench.uploads.complete(id, body, OWNER))
    await bench.blobs.reads.wait()
    with pytest.raises(ConflictError) as caught:
        await bench.uploads.complete(id, body, OWNER)
    assert caught.value.code == "upload_is_completing"
    bench.blobs.may_read.set()
    made = await first
    assert made["status"] == "completed"
    assert await bench.uploads.complete(id, body, OWNER) == made


async def test_an_upload_that_is_cancelled_while_it_is_joined_makes_no_file(database: Database, tmp_path: Path) -> None:
    bench = Bench(database, tmp_path)
    id, body = await bench.begin()
    first = asyncio.create_task(bench.uploads.complete(id, body, OWNER))
    await bench.blobs.reads.wait()
    await bench.uploads.cancel(id, OWNER)
    bench.blobs.may_read.set()
    with pytest.raises(BadRequestError) as caught:
        await first
    assert caught.value.code == "upload_part_missing"
    assert [entry async for entry in bench.blobs.entries("files/")] == []
