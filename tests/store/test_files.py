"""Files, uploads and quotas, on both databases."""

import asyncio
import time

import pytest
from sqlalchemy import update

from quarterdeck.errors import BadRequestError, InsufficientQuotaError, NotFoundError
from quarterdeck.store.blobs.interface import BlobSummary
from quarterdeck.store.database import Database
from quarterdeck.store.file_tables import files
from quarterdeck.store.files import CLAIM_SECONDS, FileRow, FileStore, NewFile
from quarterdeck.store.keys import KeyStore
from quarterdeck.store.org_deletion import OrgDeletion
from quarterdeck.store.ownership import Owner
from quarterdeck.store.uploads import PartRow, UploadRow, UploadStore

RED, BLUE, ACME = Owner("default", "red", "key_1"), Owner("default", "blue", "key_2"), Owner("acme", "red", "key_3")
QUOTA = 1000


def a_file(number: int, of: Owner = RED, *, size: int = 10, expires: float | None = None) -> NewFile:
    return NewFile(
        id=f"file-{number}",
        owner=of,
        created=1000.0 + number,
        expires=expires,
        filename="a.txt",
        purpose="batch" if number % 2 else "user_data",
        mime="text/plain",
        blob=f"files/{number}",
        summary=BlobSummary(size, "aa", "bb"),
    )


async def create(store: FileStore, new: NewFile, quota: int | None = QUOTA) -> FileRow:
    await store.announce(new.blob, now=time.time())
    return await store.create(new, quota)


def an_upload(id: str = "upload_1", *, expires: float = 4e9) -> UploadRow:
    return UploadRow(id, 1.0, expires, "a.txt", "batch", 6, "text/plain", None, "pending", None)


async def add_part(database: Database, number: int, size: int, *, upload: str = "upload_1", of: Owner = RED) -> None:
    blob = f"parts/{number}"
    await FileStore(database).announce(blob, now=time.time())
    part = PartRow(f"part_{number}", 1.0, size, blob)
    await UploadStore(database).add_part(upload, part, of, QUOTA, most=500)


async def test_more_files_are_found_than_a_statement_has_parameters(database: Database) -> None:
    made = await create(FileStore(database), a_file(1))
    many = ["file-1", *(f"file-none-{number}" for number in range(40_000))]
    assert await FileStore(database).find(many, RED) == {"file-1": made}


async def test_a_file_is_seen_by_its_team_only(database: Database) -> None:
    store = FileStore(database)
    made = await create(store, a_file(1))
    assert await store.retrieve("file-1", RED) == made
    assert await store.find(["file-1", "file-2"], RED) == {"file-1": made}
    for other in (BLUE, ACME, Owner("default", "red", "key_1", since=2000.0)):
        with pytest.raises(NotFoundError):
            await store.retrieve("file-1", other)
        with pytest.raises(NotFoundError):
            await store.delete("file-1", other)
        with pytest.raises(NotFoundError):
            await store.page(other, purpose=None, after="file-1", limit=1, is_descending=True)
        assert await store.find(["file-1"], other) == {}
        assert await store.page(other, purpose=None, after=None, limit=9, is_descending=True) == []


async def test_pages_follow_one_another(database: Database) -> None:
    store = FileStore(database)
    for number in range(6):
        await create(store, a_file(number))
    seen: list[str] = []
    after = None
    while rows := (await store.page(RED, purpose=None, after=after, limit=2, is_descending=True))[:2]:
        seen += [row.id for row in rows]
        after = seen[-1]
    assert seen == [f"file-{number}" for number in range(5, -1, -1)]
    batches = await store.page(RED, purpose="batch", after="file-1", limit=2, is_descending=False)
    assert [row.id for row in batches] == ["file-3", "file-5"]


async def test_a_blob_is_known_from_before_its_write_to_after_its_deletion(database: Database) -> None:
    store, now = FileStore(database), time.time()
    await store.announce("files/1", now=now)
    assert await store.due_blobs(now) == []
    assert await store.due_blobs(now + CLAIM_SECONDS + 1) == ["files/1"]  # its gateway was killed
    await store.create(a_file(1), QUOTA)
    assert await store.due_blobs(now + CLAIM_SECONDS + 1) == []
    assert await store.delete("file-1", RED) == ["files/1"]
    assert await store.due_blobs(time.time() + 1) == ["files/1"]
    await store.forget_blobs(["files/1"])
    assert await store.due_blobs(now + CLAIM_SECONDS + 1) == []


async def test_a_blob_that_took_too_long_makes_no_file(database: Database) -> None:
    store = FileStore(database)
    await store.announce("files/1", now=time.time() - CLAIM_SECONDS)
    with pytest.raises(BadRequestError) as caught:
        await store.create(a_file(1), QUOTA)
    assert caught.value.code == "upload_expired"
    with pytest.raises(NotFoundError):
        await store.retrieve("file-1", RED)
    assert await store.usage("default") == 0


async def test_a_repeated_step_makes_one_file(database: Database) -> None:
    store = FileStore(database)
    first = await create(store, a_file(1))
    again = a_file(1)
    again = NewFile(**{**{name: getattr(again, name) for name in again.__slots__}, "blob": "files/other"})
    assert await create(store, again) == first
    assert await store.usage("default") == 10
    assert await store.due_blobs(time.time() + CLAIM_SECONDS + 1) == ["files/other"]


async def test_two_files_that_exceed_the_quota_together_do_not_both_succeed(database: Database) -> None:
    store = FileStore(database)
    made = [a_file(number, size=300) for number in range(6)]
    for new in made:
        await store.announce(new.blob, now=time.time())
    results = await asyncio.gather(*(store.create(new, QUOTA) for new in made), return_exceptions=True)
    refused = [each for each in results if isinstance(each, InsufficientQuotaError)]
    assert len(refused) == 3
    assert "'default'" in refused[0].message
    assert refused[0].code == "storage_quota_exceeded"
    assert await store.usage("default") == 900
    await create(store, a_file(7, ACME, size=900))  # another organisation's is its own
    await create(store, a_file(8, size=900), None)  # what the platform makes counts, and is stored in any case
    assert await store.usage("default") == 1800
    for each in results:
        if isinstance(each, FileRow):
            await store.delete(each.id, RED)
    await store.delete("file-8", RED)
    assert await store.usage("default") == 0


async def test_expired_files_are_not_seen_and_then_deleted(database: Database) -> None:
    store, now = FileStore(database), time.time()
    for number in (1, 2):
        await create(store, a_file(number, expires=now + 1000))
    async with database.begin() as connection:
        await connection.execute(update(files).where(files.c.id == "file-1").values(expires=now - 1))
    with pytest.raises(NotFoundError):
        await store.retrieve("file-1", RED)
    listed = await store.page(RED, purpose=None, after=None, limit=9, is_descending=True)
    assert [row.id for row in listed] == ["file-2"]
    assert await store.delete_expired(now) == ["file-1"]
    assert await store.delete_expired(now) == []
    assert await store.usage("default") == 10


async def test_an_upload_becomes_a_file_and_its_parts_are_given_back(database: Database) -> None:
    store, uploads = FileStore(database), UploadStore(database)
    await uploads.create(an_upload(), RED)
    for number, size in ((1, 4), (2, 2), (3, 50)):
        await add_part(database, number, size)
    assert await store.usage("default") == 56
    assert set(await uploads.parts("upload_1", RED)) == {"part_1", "part_2", "part_3"}
    for number, other in ((8, BLUE), (9, ACME)):
        with pytest.raises(NotFoundError):
            await uploads.parts("upload_1", other)
        with pytest.raises(NotFoundError):
            await add_part(database, number, 1, of=other)
        with pytest.raises(NotFoundError):
            await uploads.cancel("upload_1", other)
    await store.announce("files/1", now=time.time())
    assert sorted(await uploads.complete("upload_1", a_file(1, size=6)) or ()) == ["parts/1", "parts/2", "parts/3"]
    assert await store.usage("default") == 6
    assert (await uploads.retrieve("upload_1", RED)).file == "file-1"
    await store.announce("files/2", now=time.time())
    assert await uploads.complete("upload_1", a_file(2, size=6)) is None
    with pytest.raises(BadRequestError):
        await add_part(database, 4, 1)
    assert {name for name in await store.due_blobs(time.time() + 1) if name.startswith("parts/")} == {
        "parts/1",
        "parts/2",
        "parts/3",
    }


async def test_parts_are_bounded(database: Database) -> None:
    await UploadStore(database).create(an_upload(), RED)
    await add_part(database, 1, 400)
    with pytest.raises(BadRequestError) as caught:
        await add_part(database, 2, 101)
    assert caught.value.code == "upload_too_large"
    assert await FileStore(database).usage("default") == 400


async def test_uploads_expire(database: Database) -> None:
    uploads, now = UploadStore(database), time.time()
    await uploads.create(an_upload(expires=now - 1), RED)
    await uploads.create(an_upload("upload_2"), RED)
    await add_part(database, 1, 4, upload="upload_2")
    with pytest.raises(BadRequestError) as caught:
        await add_part(database, 2, 4)
    assert caught.value.code == "upload_expired"
    assert await uploads.expire(now) == 1
    assert (await uploads.retrieve("upload_1", RED)).status == "expired"
    assert await uploads.expire(4e9 + 1) == 1
    assert await FileStore(database).usage("default") == 0
    await uploads.expire(5e9)
    with pytest.raises(NotFoundError):
        await uploads.retrieve("upload_1", RED)


async def test_an_organisation_takes_its_files_with_it(database: Database) -> None:
    store, uploads = FileStore(database), UploadStore(database)
    await KeyStore(database).create(secret="sk-acme", name="a", org="acme")
    await create(store, a_file(1, ACME))
    await create(store, a_file(2))
    await uploads.create(an_upload(), ACME)
    await add_part(database, 1, 5, of=ACME)
    await OrgDeletion(database).delete("acme", revoke_keys=True, author="key_0")
    with pytest.raises(NotFoundError):
        await store.retrieve("file-1", ACME)
    with pytest.raises(NotFoundError):
        await uploads.retrieve("upload_1", ACME)
    assert await store.usage("acme") == 0
    assert sorted(await store.due_blobs(time.time() + 1)) == ["files/1", "parts/1"]
    assert (await store.retrieve("file-2", RED)).id == "file-2"
