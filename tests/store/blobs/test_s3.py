"""Blobs in a bucket, on moto's server of S3's protocol: a process with an environment of its own."""

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Iterator

import pytest
from tests.moto import BUCKET, CREDENTIALS, MotoServer, running_moto
from tests.platform import free_port

from quarterdeck.errors import StorageUnavailableError
from quarterdeck.store.blobs.address import S3Address
from quarterdeck.store.blobs.interface import BlobNotFoundError
from quarterdeck.store.blobs.s3 import PART_BYTES, RANGE_BYTES, S3Blobs

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]  # the environment is built on first use


@pytest.fixture(scope="module")
def server() -> Iterator[MotoServer]:
    with running_moto() as made:
        yield made


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def blobs(server: MotoServer, credentials: None) -> S3Blobs:
    return S3Blobs(S3Address(BUCKET, "ours", server.url))


async def pieces(*given: bytes) -> AsyncIterator[bytes]:
    for piece in given:
        yield piece


async def read(blobs: S3Blobs, name: str, start: int = 0, end: int | None = None) -> bytes:
    return b"".join([piece async for piece in await blobs.open(name, start, end)])


async def test_a_blob_of_several_parts_is_read_as_it_was_written(blobs: S3Blobs) -> None:
    content = os.urandom(2 * PART_BYTES + 1000)
    cut = range(0, len(content), 700_000)
    summary = await blobs.put("files/large", pieces(*(content[at : at + 700_000] for at in cut)))
    assert (summary.size, summary.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert await read(blobs, "files/large") == content
    assert await read(blobs, "files/large", 5_000_000, 9_000_001) == content[5_000_000:9_000_001]
    assert (await blobs.put("files/empty", pieces())).size == 0
    assert await read(blobs, "files/empty") == b""


async def test_blobs_are_listed_and_deleted(blobs: S3Blobs) -> None:
    for name in ("parts/a1", "parts/a2", "partsx/a3"):
        await blobs.put(name, pieces(b"abc"))
    assert sorted([entry.name async for entry in blobs.entries("parts/")]) == ["parts/a1", "parts/a2"]
    await blobs.delete("parts/a1")
    await blobs.delete("parts/a1")
    with pytest.raises(BlobNotFoundError):
        await blobs.open("parts/a1")
    await blobs.probe()


@pytest.mark.parametrize("size", [1000, PART_BYTES + 1])
async def test_nothing_is_left_of_a_write_that_fails_or_is_cancelled(
    blobs: S3Blobs, server: MotoServer, size: int
) -> None:
    async def broken() -> AsyncIterator[bytes]:
        yield os.urandom(size)
        raise ValueError("the client is gone")

    with pytest.raises(ValueError, match="gone"):
        await blobs.put("failed/a", broken())
    has_begun = asyncio.Event()

    async def endless() -> AsyncIterator[bytes]:
        yield os.urandom(size)
        has_begun.set()
        await asyncio.Event().wait()

    writing = asyncio.create_task(blobs.put("failed/b", endless()))
    await has_begun.wait()
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    assert [entry async for entry in blobs.entries("failed/")] == []
    assert "failed/a" not in server.read("/bucket?uploads")  # its parts are not kept either


async def test_a_bucket_that_does_not_exist_is_an_outage(server: MotoServer, blobs: S3Blobs) -> None:
    other = S3Blobs(S3Address("nothing", "", server.url))
    for call in (other.put("files/a", pieces(b"x")), other.probe()):
        with pytest.raises(StorageUnavailableError) as caught:
            await call
        assert server.url not in caught.value.message


async def test_a_blob_that_is_deleted_while_it_is_read_ends_with_a_reason(blobs: S3Blobs) -> None:
    await blobs.put("files/a", pieces(os.urandom(RANGE_BYTES + 1000)))
    reading = await blobs.open("files/a")
    assert await anext(reading)
    await blobs.delete("files/a")
    with pytest.raises(StorageUnavailableError, match="deleted while it was read"):
        async for _ in reading:
            pass


async def test_a_bucket_whose_clock_differs_is_an_outage_whose_reason_is_logged(
    credentials: None, caplog: pytest.LogCaptureFixture
) -> None:
    """S3 refuses signatures that are fifteen minutes old, by its own clock."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>The difference is too large.</Message></Error>"
        head = b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/xml\r\ncontent-length: %d\r\n" % len(body)
        writer.write(head + b"connection: close\r\n\r\n" + body)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    async with server:
        skewed = S3Blobs(S3Address(BUCKET, "", f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"))
        for call in (skewed.probe(), skewed.put("files/a", pieces(b"x"))):
            with pytest.raises(StorageUnavailableError):
                await call
    assert "RequestTimeTooSkewed" in caplog.text


async def test_a_server_that_is_away_is_an_outage(credentials: None) -> None:
    away = S3Blobs(S3Address(BUCKET, "", f"http://127.0.0.1:{free_port()}"))
    for call in (away.put("files/a", pieces(b"x")), away.open("files/a")):
        with pytest.raises(StorageUnavailableError) as caught:
            await call
        assert "127.0.0.1" not in caught.value.message
