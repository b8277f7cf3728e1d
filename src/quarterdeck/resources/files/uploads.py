"""Uploads: a large file in parts, which may come in any order, at once, and again after a failure."""

import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Sequence
from typing import Any

from quarterdeck.errors import BadRequestError, ConflictError
from quarterdeck.ids import new_file_id, object_id
from quarterdeck.resources.files.content_types import content_type
from quarterdeck.resources.files.filenames import clean_filename
from quarterdeck.resources.files.objects import (
    UploadComplete,
    UploadCreate,
    check_expiry,
    check_purpose,
    part_object,
    upload_object,
)
from quarterdeck.resources.files.service import BATCH_SECONDS, Files, SizeLimit
from quarterdeck.settings.file_storage import MAX_PARTS
from quarterdeck.store.blobs.interface import BlobNotFoundError, Blobs
from quarterdeck.store.files import NewFile, over_quota
from quarterdeck.store.ownership import Owner
from quarterdeck.store.uploads import (
    PartRow,
    UploadRow,
    UploadStore,
    check_pending,
    too_many_parts,
)

UPLOAD_SECONDS = 3600
"""An upload that is not completed in an hour expires, as OpenAI's."""
SPARE = 2
"""Parts may have so many times the bytes of their upload: some are sent again."""


class Uploads:
    def __init__(
        self, store: UploadStore, files: Files, blobs: Blobs, *, wall: Callable[[], float] = time.time
    ) -> None:
        self._store = store
        self._files = files
        self._blobs = blobs
        self._wall = wall
        self._completing: set[str] = set()
        """Uploads that are joined here: each join writes all of the file again."""

    async def create(self, body: UploadCreate, owner: Owner) -> dict[str, Any]:
        """Raises BadRequestError and InsufficientQuotaError."""
        config = self._files.config
        purpose = check_purpose(body.purpose)
        expiry = body.expires_after
        seconds = None if expiry is None else check_expiry(expiry.anchor, expiry.seconds)
        if not 1 <= body.bytes <= config.max_upload_bytes:
            raise BadRequestError(
                f"'bytes' must be a number from 1 to {config.max_upload_bytes} (`files.max_upload_mb`).",
                param="bytes",
                code="invalid_value",
            )
        used = await self._files.store.usage(owner.org)
        if used + body.bytes > config.quota_bytes:
            self._files.on_written("uploads", "quota", 0)
            raise over_quota(owner.org, used, body.bytes, config.quota_bytes)
        now = self._wall()
        row = UploadRow(
            id=object_id("upload"),
            created=now,
            expires=now + UPLOAD_SECONDS,
            filename=clean_filename(body.filename),
            purpose=purpose,
            bytes=body.bytes,
            mime=body.mime_type,
            file_seconds=seconds,
            status="pending",
            file=None,
        )
        await self._store.create(row, owner)
        self._files.on_written("uploads", "stored", 0)
        return upload_object(row)

    async def add_part(self, upload_id: str, pieces: AsyncIterable[bytes], owner: Owner) -> dict[str, Any]:
        """Raises NotFoundError, BadRequestError, RequestTooLargeError, InsufficientQuotaError and the storage's
        errors."""
        row = await self._store.retrieve(upload_id, owner)
        check_pending(row)
        config = self._files.config
        most = SPARE * row.bytes + config.max_part_bytes
        if await self._store.size(upload_id) >= most:
            raise too_many_parts(most)
        limit = SizeLimit(config.max_part_bytes, "files.max_part_mb")
        async with self._files.written(owner, pieces, kind="parts", limit=limit) as written:
            if not written.summary.size:
                raise BadRequestError("The part is empty.", param="data", code="invalid_value")
            part = PartRow(object_id("part"), self._wall(), written.summary.size, written.blob)
            await self._store.add_part(upload_id, part, owner, config.quota_bytes, most=most)
        return part_object(part.id, upload_id, part.created)

    async def complete(self, upload_id: str, body: UploadComplete, owner: Owner) -> dict[str, Any]:
        """Join the parts to a file. Repeated, it returns the same file. Raises NotFoundError, BadRequestError, the
        storage's errors, and ConflictError while another request completes it."""
        upload = await self._store.retrieve(upload_id, owner)
        if upload.status == "completed":
            return await self._completed(upload, owner)
        check_pending(upload)
        if upload_id in self._completing:
            raise ConflictError(
                f"Upload '{upload_id}' is being completed by another request.",
                param="upload_id",
                code="upload_is_completing",
            )
        self._completing.add(upload_id)
        try:
            return await self._join(upload, body, owner)
        finally:
            self._completing.discard(upload_id)

    async def _join(self, upload: UploadRow, body: UploadComplete, owner: Owner) -> dict[str, Any]:
        chosen = _chosen(body.part_ids, await self._store.parts(upload.id, owner))
        size = sum(part.bytes for part in chosen)
        if size != upload.bytes:
            raise BadRequestError(
                f"The parts have {size} bytes together, but the upload was created for {upload.bytes}.",
                param="part_ids",
                code="invalid_value",
            )
        joined = self._joined(chosen)
        async with self._files.written(owner, joined, kind="files", limit=None, is_counted=False) as written:
            if body.md5 is not None and body.md5.lower() != written.summary.md5:
                raise BadRequestError(
                    f"The content's md5 is {written.summary.md5}, not {body.md5}.",
                    param="md5",
                    code="checksum_mismatch",
                )
            now = self._wall()
            seconds = upload.file_seconds
            if seconds is None and upload.purpose == "batch":
                seconds = BATCH_SECONDS
            is_whole = len(written.head) == written.summary.size
            new = NewFile(
                id=new_file_id(),
                owner=owner,
                created=now,
                expires=None if seconds is None else now + seconds,
                filename=upload.filename,
                purpose=upload.purpose,
                mime=content_type(written.head, upload.filename, is_whole=is_whole),
                blob=written.blob,
                summary=written.summary,
            )
            parts = await self._store.complete(upload.id, new)
        await self._files.discard(*([written.blob] if parts is None else parts))
        return await self._completed(await self._store.retrieve(upload.id, owner), owner)

    async def cancel(self, upload_id: str, owner: Owner) -> dict[str, Any]:
        """Raises NotFoundError and BadRequestError."""
        row, blobs = await self._store.cancel(upload_id, owner)
        await self._files.discard(*blobs)
        return upload_object(row)

    async def _completed(self, upload: UploadRow, owner: Owner) -> dict[str, Any]:
        found = await self._files.store.find([upload.file or ""], owner)
        return upload_object(upload, found.get(upload.file or ""))

    async def _joined(self, parts: Sequence[PartRow]) -> AsyncIterator[bytes]:
        for part in parts:
            try:
                pieces = await self._blobs.open(part.blob)
            except BlobNotFoundError:
                raise BadRequestError(
                    f"The part '{part.id}' is gone: the upload has ended meanwhile, or the storage has lost it.",
                    param="part_ids",
                    code="upload_part_missing",
                ) from None
            try:
                async for piece in pieces:
                    yield piece
            finally:
                await pieces.aclose()


def _chosen(ids: Sequence[str], parts: dict[str, PartRow]) -> list[PartRow]:
    """The parts in the order of their ids. Raises BadRequestError."""
    if len(ids) > MAX_PARTS:
        raise BadRequestError(f"At most {MAX_PARTS} parts.", param="part_ids", code="array_above_max_length")
    if len(set(ids)) < len(ids):
        raise BadRequestError("A part is named twice.", param="part_ids", code="invalid_value")
    for index, id in enumerate(ids):
        if id not in parts:
            raise BadRequestError(
                f"No such part of this upload: {id[:100]}", param=f"part_ids[{index}]", code="invalid_value"
            )
    return [parts[id] for id in ids]
