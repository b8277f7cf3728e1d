"""What files leave is removed, and files without content say so."""

import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

from quarterdeck.resources.files.service import Files
from quarterdeck.settings.file_storage import FilesConfig
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.blobs.interface import BlobEntry
from quarterdeck.store.database import Database
from quarterdeck.store.files import CLAIM_SECONDS, CLOCKS_SECONDS, FileRow, FileStore
from quarterdeck.store.leases import LeaseStore
from quarterdeck.store.ownership import Owner
from quarterdeck.store.uploads import UploadStore
from quarterdeck.worker.conditions import Condition
from quarterdeck.worker.file_sweep_loop import CHECK_SECONDS, FileSweepLoop

RED = Owner("default", "red", "key_1")


class Sweep:
    """A loop at `now`, with a folder."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.store, self.blobs, self.now = FileStore(database), FolderBlobs(folder), time.time()
        self.files = Files(self.store, self.blobs, FilesConfig, wall=lambda: self.now)
        self.usages: list[Mapping[str, int]] = []
        self.condition = Condition("files")
        leases = LeaseStore(database, "worker_1", wall=lambda: self.now)
        self.loop = FileSweepLoop(
            self.store,
            UploadStore(database),
            self.blobs,
            leases,
            self.condition,
            on_usage=self.usages.append,
            wall=lambda: self.now,
        )

    async def file(self, content: bytes, expires: int | None = None) -> FileRow:
        async def pieces() -> AsyncIterator[bytes]:
            yield content

        return await self.files.create(RED, pieces(), filename="a.txt", purpose="user_data", expires_seconds=expires)

    async def names(self) -> set[str]:
        return {entry.name async for entry in self.blobs.entries("files/")}


async def test_the_content_of_an_expired_file_is_deleted(database: Database, tmp_path: Path) -> None:
    sweep = Sweep(database, tmp_path)
    kept, expired = await sweep.file(b"kept"), await sweep.file(b"expired", 3600)
    await sweep.loop.turn()
    assert await sweep.names() == {kept.blob, expired.blob}
    sweep.now += 3601
    await sweep.loop.turn()
    assert await sweep.names() == {kept.blob}
    assert sweep.usages == [{"default": len(b"kept") + len(b"expired")}, {"default": len(b"kept")}]
    assert sweep.condition.reason == ""


async def test_what_a_killed_gateway_left_is_deleted_after_a_day(database: Database, tmp_path: Path) -> None:
    sweep = Sweep(database, tmp_path)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"whole, but its gateway was killed before its row"

    await sweep.store.announce("files/left", now=sweep.now)
    await sweep.blobs.put("files/left", pieces())
    partial = tmp_path / ".partial" / "left"
    partial.write_bytes(b"half")
    await sweep.loop.turn()
    assert partial.exists()
    sweep.now += CLAIM_SECONDS + 1
    await sweep.loop.turn()
    assert not partial.exists()
    assert await sweep.names() == set()
    assert await sweep.store.due_blobs(4e9) == []


async def test_a_file_without_content_says_so_until_it_is_back(database: Database, tmp_path: Path) -> None:
    sweep = Sweep(database, tmp_path)
    kept, lost = await sweep.file(b"kept"), await sweep.file(b"lost")
    content = (tmp_path / lost.blob).read_bytes()
    (tmp_path / lost.blob).unlink()
    sweep.now += CLOCKS_SECONDS + 1
    await sweep.loop.turn()
    assert (await sweep.store.retrieve(lost.id, RED)).is_missing
    assert not (await sweep.store.retrieve(kept.id, RED)).is_missing
    (tmp_path / lost.blob).write_bytes(content)
    sweep.now += CHECK_SECONDS + 1
    await sweep.loop.turn()
    assert not (await sweep.store.retrieve(lost.id, RED)).is_missing


async def test_a_file_that_is_made_while_the_storage_is_listed_is_not_missing(
    database: Database, tmp_path: Path
) -> None:
    sweep = Sweep(database, tmp_path)
    old = await sweep.file(b"old")
    sweep.now += CLOCKS_SECONDS + 1
    made: list[FileRow] = []

    class Listed(FolderBlobs):
        async def entries(self, prefix: str) -> AsyncIterator[BlobEntry]:
            async for entry in super().entries(prefix):
                yield entry
            made.append(await sweep.file(b"new"))

    loop = FileSweepLoop(
        sweep.store,
        UploadStore(database),
        Listed(tmp_path),
        LeaseStore(database, "worker_2", wall=lambda: sweep.now),
        sweep.condition,
        wall=lambda: sweep.now,
    )
    await loop.turn()
    assert [(await sweep.store.retrieve(row.id, RED)).is_missing for row in (old, *made)] == [False, False]
    assert sweep.condition.reason == ""


async def test_an_empty_storage_is_taken_for_the_wrong_one(database: Database, tmp_path: Path) -> None:
    sweep = Sweep(database, tmp_path)
    row = await sweep.file(b"content")
    (tmp_path / row.blob).rename(tmp_path / "elsewhere")
    sweep.now += CLOCKS_SECONDS + 1
    await sweep.loop.turn()
    assert not (await sweep.store.retrieve(row.id, RED)).is_missing
    assert "do gateways use another?" in sweep.condition.reason


async def test_contents_that_the_database_does_not_know_stay(database: Database, tmp_path: Path) -> None:
    sweep = Sweep(database, tmp_path)

    async def pieces() -> AsyncIterator[bytes]:
        yield b"of another installation"

    await sweep.blobs.put("files/foreign", pieces())
    sweep.now += CLAIM_SECONDS + 1
    await sweep.loop.turn()
    assert await sweep.names() == {"files/foreign"}
