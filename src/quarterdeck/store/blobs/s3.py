"""Blobs in a bucket of S3, or of any server that speaks its protocol (MinIO, Ceph, R2, …).

Written in parts (multipart upload), of which a few are in memory, and visible when the last one is complete; what
raises or is cancelled aborts the upload. A killed process leaves an incomplete upload, which S3's protocol shows to no
reader and a lifecycle rule of the bucket removes (docs/files.md). Read in ranges, each a request of its own: a slow
client holds no connection to the bucket.

The client is obstore, Rust's object_store. It is imported where it is used: an installation with a folder needs none.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from quarterdeck.errors import StorageUnavailableError
from quarterdeck.store.blobs.address import S3Address
from quarterdeck.store.blobs.interface import (
    PIECE_BYTES,
    BlobEntry,
    BlobNotFoundError,
    BlobSummary,
    Digests,
    check_name,
)

log = logging.getLogger(__name__)

PART_BYTES = 8 * 1024 * 1024
"""S3 takes 10,000 parts of an object: 80 GB."""
PARTS_AT_ONCE = 2
WRITE_BYTES = 1024 * 1024
"""Pieces are collected up to this size before they cross into the client."""
RANGE_BYTES = 4 * 1024 * 1024
CONNECT_SECONDS = 5
REQUEST_SECONDS = 60
"""Of one part or range: 8 MB at 1 Mbit/s."""
MAX_RETRIES = 3
RETRY_SECONDS = 15
"""Of all attempts of one request: a client waits for them."""


class S3Blobs:
    """Credentials are those of the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a web identity token, or
    the machine's role."""

    put_bytes = (PARTS_AT_ONCE + 1) * PART_BYTES

    def __init__(self, address: S3Address) -> None:
        """Raises ValueError where the client is not installed, or takes no such address."""
        try:
            import obstore
            from obstore.exceptions import BaseError
            from obstore.store import S3Store
        except ImportError:
            raise ValueError("storage in S3 needs the extra `s3`: pip install 'quarterdeck[s3]'") from None
        self._client: Any = obstore
        self._errors = BaseError
        make: Any = S3Store
        options: dict[str, Any] = {"region": address.region or "us-east-1"} if address.endpoint else {}
        if address.region:
            options["region"] = address.region
        if address.endpoint:
            options["endpoint"] = address.endpoint
            options["virtual_hosted_style_request"] = not address.path_style
        try:
            self._store = make(
                address.bucket,
                prefix=address.prefix or None,
                client_options={
                    "allow_http": bool(address.endpoint and address.endpoint.startswith("http://")),
                    "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
                    "timeout": timedelta(seconds=REQUEST_SECONDS),
                },
                retry_config={"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
                **options,
            )
        except self._errors as error:
            raise ValueError(f"storage in S3: {_reason(error)}") from None

    async def put(self, name: str, pieces: AsyncIterable[bytes]) -> BlobSummary:
        digests = Digests()
        writer = self._client.open_writer_async(
            self._store, check_name(name), buffer_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE
        )
        with self._translated(name):
            async with writer:  # aborts the upload where the block raises
                waiting: list[bytes] = []
                size = 0
                async for piece in pieces:
                    waiting.append(piece)
                    size += len(piece)
                    if size >= WRITE_BYTES:
                        await writer.write(await asyncio.to_thread(_joined, waiting, digests))
                        waiting, size = [], 0
                await writer.write(await asyncio.to_thread(_joined, waiting, digests))
        return digests.summary()

    async def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        with self._translated(name):
            size = (await self._client.head_async(self._store, check_name(name)))["size"]
        return self._ranges(name, start, size if end is None else min(end, size))

    async def delete(self, name: str) -> None:
        try:
            with self._translated(name):
                await self._client.delete_async(self._store, check_name(name))
        except BlobNotFoundError:  # S3 itself has no such error
            pass

    async def entries(self, prefix: str) -> AsyncIterator[BlobEntry]:
        kind, _, _ = prefix.partition("/")
        with self._translated(prefix):
            async for found in self._client.list(self._store, kind, chunk_size=1000):
                for each in found:
                    if each["path"].startswith(prefix):
                        yield BlobEntry(each["path"], each["size"], each["last_modified"].timestamp())

    async def sweep(self, before: float) -> int:
        return 0  # the bucket's lifecycle rule

    async def probe(self) -> None:
        try:
            with self._translated("probe"):
                await self._client.get_range_async(self._store, ".probe", start=0, length=1)
        except BlobNotFoundError:
            pass

    async def close(self) -> None: ...

    async def _ranges(self, name: str, start: int, end: int) -> AsyncGenerator[bytes]:
        while start < end:
            until = min(start + RANGE_BYTES, end)
            try:
                with self._translated(name):
                    found = await self._client.get_range_async(self._store, name, start=start, end=until)
            except BlobNotFoundError:  # a folder's file could be read to its end
                raise StorageUnavailableError("The stored content was deleted while it was read.") from None
            view = memoryview(found)
            for at in range(0, len(view), PIECE_BYTES):
                yield bytes(view[at : at + PIECE_BYTES])
            start = until

    @contextmanager
    def _translated(self, name: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError as error:
            if "NoSuchBucket" not in str(error):
                raise BlobNotFoundError(name) from None
            log.warning("storage of files: %s", _reason(error))
            raise StorageUnavailableError(
                "The storage of files is not available: its bucket does not exist."
            ) from error
        except (self._errors, OSError) as error:
            # Not shown to clients: it names addresses.
            log.warning("storage of files: %s", _reason(error))
            raise StorageUnavailableError("The storage of files is not available.") from error


def _joined(pieces: list[bytes], digests: Digests) -> bytes:
    joined = b"".join(pieces)
    digests.update(joined)
    return joined


def _reason(error: BaseException) -> str:
    """The first line: the others repeat it as a debugger would."""
    return next(iter(str(error).splitlines()), type(error).__name__)[:500]
