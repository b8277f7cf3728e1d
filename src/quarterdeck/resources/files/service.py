"""Files: created from a stream, listed, read and deleted by the keys of a team.

The content goes to the storage while it arrives; the row, which makes the file visible, is inserted when all of it is
there. What fails or is cancelled before that leaves nothing.
"""

import logging
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from quarterdeck.errors import (
    APIError,
    InsufficientQuotaError,
    NotFoundError,
    RequestTooLargeError,
    StorageFullError,
    StorageUnavailableError,
)
from quarterdeck.ids import new_file_id, object_id
from quarterdeck.resources.files.content_types import SNIFFED_BYTES, content_type
from quarterdeck.resources.files.filenames import clean_filename
from quarterdeck.resources.files.objects import OUTPUT_PURPOSES
from quarterdeck.settings.file_storage import GIB, MIB, FilesConfig
from quarterdeck.store.blobs.interface import BlobNotFoundError, Blobs, BlobSummary
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.files import FileRow, FileStore, NewFile, no_such_file, over_quota
from quarterdeck.store.ownership import Owner

log = logging.getLogger(__name__)

BATCH_SECONDS = 30 * 24 * 3600
"""After which a batch's input expires, unless its request says otherwise, as OpenAI's."""


@dataclass(frozen=True, slots=True)
class SizeLimit:
    bytes: int
    setting: str
    """Where it is set."""


@dataclass(frozen=True, slots=True)
class Written:
    """A blob that no row claims yet."""

    blob: str
    head: bytes
    summary: BlobSummary


class Files:
    """`config`: the settings in force."""

    def __init__(
        self,
        store: FileStore,
        blobs: Blobs,
        config: Callable[[], FilesConfig],
        *,
        on_written: Callable[[str, str, int], None] = lambda kind, outcome, size: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`on_written`: for a metric, with the kind of a content, its outcome and the bytes that have arrived."""
        self.store = store
        self.on_written = on_written
        self._blobs = blobs
        self._config = config
        self._wall = wall
        self._arriving: dict[str, int] = {}
        """Bytes that arrive here at the moment, by organisation: together with what is stored they are within the
        quota, so that many at once don't fill the disk before each of them is refused."""

    @property
    def put_bytes(self) -> int:
        """Memory of a file on its way to the storage."""
        return self._blobs.put_bytes

    @property
    def config(self) -> FilesConfig:
        return self._config()

    async def create(
        self,
        owner: Owner,
        pieces: AsyncIterable[bytes],
        *,
        filename: str,
        purpose: str | Callable[[], str],
        expires_seconds: Callable[[], int | None] | int | None = None,
        file_id: str | None = None,
        limit: SizeLimit | None = None,
    ) -> FileRow:
        """Store a file.

        `purpose` and `expires_seconds` may be functions, called when the content has come: a form may state them after
        it. What they raise is raised, and nothing is stored. `file_id`: of a file that a repeated step makes; if it is
        there already, it is returned. `limit`: of a file that a client sends.

        Raises BadRequestError, RequestTooLargeError, InsufficientQuotaError, StorageUnavailableError, StorageFullError
        and DatabaseUnavailableError.
        """
        # What the platform makes counts, and is stored whatever there is: it has been paid for (`check_quota`).
        is_ours = isinstance(purpose, str) and purpose in OUTPUT_PURPOSES
        async with self.written(owner, pieces, kind="files", limit=limit, is_counted=not is_ours) as written:
            stated = purpose if isinstance(purpose, str) else purpose()
            seconds = expires_seconds() if callable(expires_seconds) else expires_seconds
            if seconds is None and stated == "batch":
                seconds = BATCH_SECONDS
            name = clean_filename(filename)
            now = self._wall()
            new = NewFile(
                id=file_id or new_file_id(),
                owner=owner,
                created=now,
                expires=None if seconds is None else now + seconds,
                filename=name,
                purpose=stated,
                mime=content_type(written.head, name, is_whole=len(written.head) == written.summary.size),
                blob=written.blob,
                summary=written.summary,
            )
            row = await self.store.create(new, None if is_ours else self.config.quota_bytes)
        if row.blob != written.blob:  # it was there already
            await self.discard(written.blob)
        return row

    async def open(self, row: FileRow, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """The file's bytes from `start` to before `end`; the caller closes it. Raises NotFoundError where the file was
        deleted meanwhile or the storage has lost its content, and StorageUnavailableError."""
        try:
            return await self._blobs.open(row.blob, start, end)
        except BlobNotFoundError:
            if not await self.store.note_missing([row.id], is_missing=True):
                raise no_such_file(row.id) from None
            log.error("the content of a file is missing from the storage", extra={"file": row.id, "blob": row.blob})
            raise NotFoundError(
                f"The content of the file '{row.id}' is missing from the storage.",
                param="file_id",
                code="content_missing",
            ) from None

    async def retrieve(self, file_id: str, owner: Owner) -> FileRow:
        """Raises NotFoundError."""
        return await self.store.retrieve(file_id, owner)

    async def delete(self, file_id: str, owner: Owner) -> None:
        """Raises NotFoundError."""
        if free := await self.store.delete(file_id, owner):
            await self.discard(*free)

    async def replace(self, row: FileRow, owner: Owner, pieces: AsyncIterable[bytes]) -> None:
        """Give a file another content, under its id. Who reads the former one is cut off. Raises NotFoundError where it
        was deleted meanwhile, StorageUnavailableError and StorageFullError."""
        async with self.written(owner, pieces, kind="files", limit=None, is_counted=False) as written:
            await self.store.replace(row, owner, written.blob, written.summary)
        await self.discard(row.blob)

    async def open_blob(self, blob: str, start: int, end: int) -> AsyncGenerator[bytes]:
        """Bytes of a file that may have been deleted; the caller closes it. Raises NotFoundError and
        StorageUnavailableError."""
        try:
            return await self._blobs.open(blob, start, end)
        except BlobNotFoundError:
            raise NotFoundError(
                "The content of the file is missing from the storage.", code="content_missing"
            ) from None

    async def check_quota(self, owner: Owner) -> None:
        """Whether the organisation may have files made for it. Raises InsufficientQuotaError."""
        used, quota = await self.store.usage(owner.org), self.config.quota_bytes
        if used > quota:
            raise InsufficientQuotaError(
                f"The organisation '{owner.org}' may store {quota / GIB:.4g} GiB of files (`files.max_gb_per_org`), and"
                f" stores {used / GIB:.4g} GiB with the results of its batches. Delete files to make room.",
                code="storage_quota_exceeded",
            )

    async def discard(self, *blobs: str) -> None:
        """Delete unclaimed blobs now. Where that fails, the worker does it later. A blob that was claimed stays: its
        request may have been cancelled in the moment of its commit."""
        try:
            unclaimed = await self.store.give_up(blobs)
            for blob in unclaimed:
                await self._blobs.delete(blob)
            await self.store.forget_blobs(unclaimed)
        except Exception as error:  # an error boundary: what was asked for is done
            log.warning("could not delete the content of a file, the worker will: %s", error)

    @asynccontextmanager
    async def written(
        self, owner: Owner, pieces: AsyncIterable[bytes], *, kind: str, limit: SizeLimit | None, is_counted: bool = True
    ) -> AsyncIterator[Written]:
        """A blob of these pieces. Where the block raises, it is deleted."""
        used = await self.store.usage(owner.org) if is_counted else 0
        blob = f"{kind}/{object_id('blob')}"
        await self.store.announce(blob, now=self._wall())
        counted = _Counted(self, owner.org, pieces, used, limit=limit, is_counted=is_counted)
        try:
            summary = await self._blobs.put(blob, counted.pieces())
            yield Written(blob, counted.head, summary)
            self.on_written(kind, "stored", counted.size)
        except BaseException as error:
            self.on_written(kind, outcome_of(error), counted.size)
            await self.discard(blob)
            raise
        finally:
            self._leave(owner.org, counted.size)

    def _arrive(self, org: str, size: int) -> int:
        """Returns what arrives for the organisation now."""
        self._arriving[org] = arriving = self._arriving.get(org, 0) + size
        return arriving

    def _leave(self, org: str, size: int) -> None:
        self._arriving[org] = left = self._arriving.get(org, 0) - size
        if left <= 0:
            del self._arriving[org]


class _Counted:
    """Pieces on their way to the storage, checked against a limit and the quota."""

    def __init__(
        self,
        files: Files,
        org: str,
        pieces: AsyncIterable[bytes],
        used: int,
        *,
        limit: SizeLimit | None,
        is_counted: bool,
    ) -> None:
        self.head = b""
        self.size = 0
        self._files = files
        self._org = org
        self._pieces = pieces
        self._used = used
        self._limit = limit
        self._is_counted = is_counted

    async def pieces(self) -> AsyncIterator[bytes]:
        quota = self._files.config.quota_bytes
        async for piece in self._pieces:
            self.size += len(piece)
            arriving = self._files._arrive(self._org, len(piece))
            if self._limit is not None and self.size > self._limit.bytes:
                raise too_large(self._limit)
            if self._is_counted and self._used + arriving > quota:
                raise over_quota(self._org, self._used, self.size, quota)
            if len(self.head) < SNIFFED_BYTES:
                self.head += piece[: SNIFFED_BYTES - len(self.head)]
            yield piece


def outcome_of(error: BaseException) -> str:
    """Why a content was not stored, as a metric has it."""
    match error:
        case InsufficientQuotaError():
            return "quota"
        case RequestTooLargeError():
            return "too_large"
        case StorageFullError():
            return "full"
        case StorageUnavailableError() | DatabaseUnavailableError():
            return "unavailable"
        case APIError():
            return "refused"
    return "cancelled"


def too_large(limit: SizeLimit) -> RequestTooLargeError:
    more = " Send a larger one in parts, with /v1/uploads." if limit.setting == "files.max_file_mb" else ""
    return RequestTooLargeError(
        f"The file is too large: at most {limit.bytes // MIB} MiB (`{limit.setting}`).{more}", param="file"
    )
