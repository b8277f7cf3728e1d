"""Files through a real gateway: what dies, hangs up, lies or fills the disk in mid-upload leaves nothing behind."""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from tests.faults.files_stack import END, MIB, SECONDS, FilesStack, begin, form
from tests.moto import BUCKET, CREDENTIALS, MotoServer, running_moto
from tests.servers import RedisServer, short_folder, wait_until
from tests.small_disk import SmallDisk

from quarterdeck.store.blobs.address import S3Address
from quarterdeck.store.blobs.folder import FolderBlobs
from quarterdeck.store.blobs.interface import Blobs
from quarterdeck.store.blobs.s3 import S3Blobs

LARGE = 512
"""MiB."""
PART = 64
ROOM = 50.0
"""MiB of memory that a file of any size may take."""


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    made = short_folder()
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def stack(folder: Path, redis_server: RedisServer, platform_database_url: str) -> Iterator[FilesStack]:
    """With a storage in a folder."""
    made = FilesStack(folder, redis_server, platform_database_url, str(folder / "blobs"))
    yield made
    made.stop()


@pytest.fixture(scope="module")
def moto() -> Iterator[MotoServer]:
    with running_moto() as made:
        yield made


@pytest.fixture
def folder_stack(redis_server: RedisServer) -> Iterator[FilesStack]:
    """For one test, with SQLite."""
    folder = short_folder()
    made = FilesStack(folder, redis_server, f"sqlite+aiosqlite:///{folder}/q.db", str(folder / "blobs"))
    yield made
    made.stop()
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def s3_stack(moto: MotoServer, redis_server: RedisServer) -> Iterator[FilesStack]:
    folder = short_folder()
    environ = {**CREDENTIALS, "AWS_REGION": "us-east-1"}
    address = f"s3://{BUCKET}/ours?endpoint={moto.url}"
    made = FilesStack(folder, redis_server, f"sqlite+aiosqlite:///{folder}/q.db", address, environ)
    yield made
    made.stop()
    shutil.rmtree(folder)


@pytest.fixture
def bucket(moto: MotoServer, monkeypatch: pytest.MonkeyPatch) -> S3Blobs:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    return S3Blobs(S3Address(BUCKET, "ours", moto.url))


def partial(folder: Path) -> list[int]:
    """Sizes of what is being written."""
    sizes = []
    with suppress(FileNotFoundError):  # before the first one
        for path in (folder / "blobs" / ".partial").iterdir():
            with suppress(FileNotFoundError):
                sizes.append(path.stat().st_size)
    return sizes


def is_served(stack: FilesStack) -> None:
    content = os.urandom(100_000)
    made = stack.create([content])
    assert b"".join(stack.read(made["id"])) == content


def test_a_gateway_that_is_killed_in_mid_upload_leaves_what_the_worker_removes(stack: FilesStack, folder: Path) -> None:
    used, kept = stack.used(), stack.sweep(FolderBlobs(folder / "blobs"))
    with stack.half_sent("/v1/files", os.urandom(3 * MIB)):
        wait_until(lambda: any(size > MIB for size in partial(folder)), seconds=SECONDS)
        stack.restart_after_kill()
    assert (stack.used(), stack.on_its_way("files")) == (used, 1)
    assert partial(folder) != []
    is_served(stack)  # a retry
    for path in (folder / "blobs" / ".partial").iterdir():
        os.utime(path, (1, 1))  # an hour and more ago
    left = stack.sweep(FolderBlobs(folder / "blobs"))
    assert (partial(folder), stack.on_its_way("files")) == ([], 0)
    assert len(left - kept) == 1 and stack.used() == used + 100_000


def test_a_gateway_that_is_killed_while_it_joins_an_upload_joins_it_again(stack: FilesStack, folder: Path) -> None:
    used = stack.used()
    contents = [os.urandom(3 * MIB), os.urandom(2 * MIB)]
    ask = {"bytes": 5 * MIB, "filename": "a.bin", "mime_type": "application/x", "purpose": "user_data"}
    upload = stack.post("/v1/uploads", ask)[1]["id"]
    parts = [stack.send(f"/v1/uploads/{upload}/parts", form([each], "data"))[1]["id"] for each in contents]
    second = folder / "blobs" / stack.rows(f"SELECT blob FROM upload_parts WHERE id = '{parts[1]}'")[0].blob
    second.rename(folder / "aside")
    os.mkfifo(second)  # its reader waits
    body = {"part_ids": parts, "md5": hashlib.md5(b"".join(contents), usedforsecurity=False).hexdigest()}
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(stack.post, f"/v1/uploads/{upload}/complete", body)
        wait_until(lambda: any(size > MIB for size in partial(folder)), seconds=SECONDS)
        stack.gateway.kill()
        assert joining.exception(SECONDS) is not None
    second.unlink()
    (folder / "aside").rename(second)
    stack.gateway.start()
    assert (stack.used(), stack.on_its_way("files")) == (used + 5 * MIB, 1)
    status, made = stack.post(f"/v1/uploads/{upload}/complete", body)
    assert (status, made["status"], made["file"]["bytes"]) == (200, "completed", 5 * MIB)
    assert b"".join(stack.read(made["file"]["id"])) == b"".join(contents)
    for path in (folder / "blobs" / ".partial").iterdir():
        os.utime(path, (1, 1))
    left = stack.sweep(FolderBlobs(folder / "blobs"))
    assert not any(name.startswith("parts/") for name in left)
    assert (partial(folder), stack.used(), stack.on_its_way("files")) == ([], used + 5 * MIB, 0)


def test_a_client_that_hangs_up_in_mid_upload_leaves_nothing(stack: FilesStack, folder: Path) -> None:
    is_served(stack)
    used, waiting = stack.used(), stack.on_its_way("files")
    for _ in range(20):
        with stack.half_sent("/v1/files", os.urandom(2 * MIB)):
            wait_until(lambda: partial(folder) != [], seconds=SECONDS)
    wait_until(lambda: partial(folder) == [] and stack.on_its_way("files") == waiting, seconds=SECONDS)
    wait_until(lambda: stack.open_blobs() == [], seconds=SECONDS, what=lambda: f"{stack.open_blobs()}")
    wait_until(lambda: "quarterdeck_requests_in_flight 0\n" in stack.gateway.get("/metrics")[1], seconds=SECONDS)
    assert stack.used() == used
    is_served(stack)


@pytest.mark.parametrize(
    ("stated", "sent"),
    [
        (2 * MIB, MIB),  # the client ends before
        (700 * MIB, MIB),  # above the limit
    ],
)
def test_a_content_length_that_is_not_true_stores_nothing(
    stack: FilesStack, folder: Path, stated: int, sent: int
) -> None:
    used, count = stack.used(), len(stack.rows("SELECT id FROM files"))
    with stack.half_sent("/v1/files", os.urandom(sent), length=stated) as connection:
        connection.shutdown(1)
        said = b"".join(iter(lambda: connection.recv(65536), b""))
    assert said == b"" or b" 413 " in said or b" 400 " in said
    wait_until(lambda: partial(folder) == [], seconds=SECONDS)
    assert (stack.used(), len(stack.rows("SELECT id FROM files"))) == (used, count)


def test_what_follows_a_body_of_a_stated_length_is_not_in_the_file(stack: FilesStack) -> None:
    content = os.urandom(MIB)
    length = len(begin()) + len(content) + len(END)
    with stack.half_sent("/v1/files", content, length=length) as connection:
        connection.sendall(END + b"more than was stated")
        said = b""
        while b'"id"' not in said:
            piece = connection.recv(65536)
            assert piece, said
            said += piece
    file_id = said.partition(b'"id":"')[2].partition(b'"')[0].decode()
    assert b"".join(stack.read(file_id)) == content


def test_a_disk_that_fills_up_in_mid_upload_is_said_and_leaves_nothing(redis_server: RedisServer) -> None:
    folder = short_folder()
    disk = SmallDisk(folder / "blobs", 40 * 1024)
    try:
        stack = FilesStack(folder, redis_server, f"sqlite+aiosqlite:///{folder}/q.db", str(disk.folder))
        try:
            status, body = stack.send("/v1/files", form(os.urandom(MIB) for _ in range(60)))
            assert (status, body["error"]["code"]) == (507, "storage_full")
            assert str(folder) not in body["error"]["message"]
            assert (partial(folder), stack.used(), stack.on_its_way("files")) == ([], 0, 0)
            is_served(stack)
        finally:
            stack.stop()
    finally:
        disk.close()
        shutil.rmtree(folder)


# of a bucket, and of large files


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_gateway_that_is_killed_in_mid_upload_to_a_bucket_leaves_nothing_visible(
    s3_stack: FilesStack, bucket: S3Blobs, moto: MotoServer
) -> None:
    used, kept = s3_stack.used(), s3_stack.sweep(bucket)
    with s3_stack.half_sent("/v1/files", os.urandom(20 * MIB)):
        wait_until(lambda: s3_stack.on_its_way("files") == 1, seconds=SECONDS)
        s3_stack.restart_after_kill()
    assert s3_stack.used() == used
    is_served(s3_stack)
    assert len(s3_stack.sweep(bucket) - kept) == 1
    assert (s3_stack.used(), s3_stack.on_its_way("files")) == (used + 100_000, 0)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_gateway_that_is_killed_while_it_joins_parts_in_a_bucket_joins_them_again(
    s3_stack: FilesStack, bucket: S3Blobs, moto: MotoServer
) -> None:
    content = os.urandom(3 * MIB)
    ask = {"bytes": len(content), "filename": "a.bin", "mime_type": "application/x", "purpose": "user_data"}
    upload = s3_stack.post("/v1/uploads", ask)[1]["id"]
    part = s3_stack.send(f"/v1/uploads/{upload}/parts", form([content], "data"))[1]["id"]
    waiting = s3_stack.on_its_way("files")
    moto.pause()
    with ThreadPoolExecutor(1) as pool:
        joining = pool.submit(s3_stack.post, f"/v1/uploads/{upload}/complete", {"part_ids": [part]})
        wait_until(lambda: s3_stack.on_its_way("files") == waiting + 1, seconds=SECONDS)
        s3_stack.gateway.kill()
        moto.resume()
        assert joining.exception(SECONDS) is not None
    s3_stack.gateway.start()
    status, made = s3_stack.post(f"/v1/uploads/{upload}/complete", {"part_ids": [part]})
    assert (status, made["status"]) == (200, "completed")
    assert b"".join(s3_stack.read(made["file"]["id"])) == content
    left = s3_stack.sweep(bucket)
    assert not any(name.startswith("parts/") for name in left) and s3_stack.on_its_way("files") == 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_file_that_is_deleted_while_it_is_downloaded_is_cut_off_with_one_line_in_the_log(
    s3_stack: FilesStack, bucket: S3Blobs
) -> None:
    made = s3_stack.create([os.urandom(MIB) for _ in range(48)])
    blob = s3_stack.rows(f"SELECT blob FROM files WHERE id = '{made['id']}'")[0].blob
    lines = len(s3_stack.gateway.log_lines())
    reading = s3_stack.read(made["id"])
    size = len(next(reading))
    asyncio.run(bucket.delete(blob))
    with suppress(ConnectionError):
        for piece in reading:
            size += len(piece)
    assert size < 48 * MIB  # of a stated length of 48 MiB
    wait_until(lambda: any(line.get("error") for line in s3_stack.gateway.log_lines()[lines:]), seconds=SECONDS)
    said = [line for line in s3_stack.gateway.log_lines()[lines:] if "content" in str(line)]
    assert [(line.get("error"), "Traceback" in str(line)) for line in said] == [("storage_unavailable", False)]


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_a_file_of_512_mb_takes_less_than_50_mb_of_memory(kind: str, request: pytest.FixtureRequest) -> None:
    stack: FilesStack = request.getfixturevalue(f"{kind}_stack")
    storage: Blobs = request.getfixturevalue("bucket") if kind == "s3" else FolderBlobs(stack.folder / "blobs")
    is_served(stack)  # what is imported and allocated at the first use is not the file's
    piece = os.urandom(MIB)
    whole = hashlib.sha256()
    for _ in range(LARGE):
        whole.update(piece)
    content = whole.hexdigest()

    before = stack.reset_peak()
    made = stack.create(piece for _ in range(LARGE))
    assert made["bytes"] == LARGE * MIB and stack.peak() - before < ROOM

    before, digest = stack.reset_peak(), hashlib.sha256()
    for each in stack.read(made["id"]):
        digest.update(each)
    assert digest.hexdigest() == content and stack.peak() - before < ROOM
    delete(stack, made["id"])

    before = stack.reset_peak()
    ask = {"bytes": LARGE * MIB, "filename": "a.bin", "mime_type": "application/x", "purpose": "user_data"}
    upload = stack.post("/v1/uploads", ask)[1]["id"]
    places = list(range(LARGE // PART))[::-1]
    ids: dict[int, str] = {}
    for place in places:
        sent = form((piece for _ in range(PART)), "data")
        status, part = stack.send(f"/v1/uploads/{upload}/parts", sent)
        assert status == 200, part
        ids[place] = part["id"]
    status, joined = stack.post(f"/v1/uploads/{upload}/complete", {"part_ids": [ids[at] for at in sorted(ids)]})
    assert (status, joined["file"]["bytes"]) == (200, LARGE * MIB)
    assert stack.peak() - before < ROOM
    sha = stack.rows(f"SELECT sha256 FROM files WHERE id = '{joined['file']['id']}'")[0].sha256
    assert sha == content
    delete(stack, joined["file"]["id"])
    stack.sweep(storage)


def delete(stack: FilesStack, file_id: str) -> None:
    with stack.connection() as connection:
        connection.request("DELETE", f"/v1/files/{file_id}", headers={"authorization": "Bearer sk-qd-user"})
        assert connection.getresponse().status == 200
