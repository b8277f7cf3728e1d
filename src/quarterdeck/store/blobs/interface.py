"""What the platform needs of a store of blobs, and no more.

A blob is written once, under a name that is never used again, and read any number of times. Objects of the API name
blobs by id; `store/files` keeps which blobs belong to a file and which are to be deleted.
"""

import hashlib
import re
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import Protocol

PIECE_BYTES = 256 * 1024
"""About the size of the pieces in which a blob is read."""

_NAME = re.compile(r"[a-z]{1,16}/[A-Za-z0-9_-]{1,100}")


class BlobNotFoundError(Exception):
    """There is no blob of this name."""


@dataclass(frozen=True, slots=True)
class BlobSummary:
    """What was written. The digests are in hex."""

    size: int
    sha256: str
    md5: str


@dataclass(frozen=True, slots=True)
class BlobEntry:
    """A blob in a listing. `modified` is in Unix seconds."""

    name: str
    size: int
    modified: float


class Blobs(Protocol):
    """Names are `<kind>/<id>`: `files/blob_3f2a`. Methods raise StorageUnavailableError, `put` StorageFullError too."""

    @property
    def put_bytes(self) -> int:
        """Memory that a `put` holds."""
        ...

    async def put(self, name: str, pieces: AsyncIterable[bytes]) -> BlobSummary:
        """Write a blob. It is visible, whole and durable, when this returns. Where it raises, or is cancelled, nothing
        is left of it. What `pieces` raises is raised."""
        ...

    async def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        """The bytes from `start` to before `end`, in pieces; the caller closes it. Raises BlobNotFoundError before the
        first piece. Of a blob that is deleted meanwhile, the rest may come, or StorageUnavailableError."""
        ...

    async def delete(self, name: str) -> None:
        """Delete a blob. One that is not there is deleted already."""
        ...

    def entries(self, prefix: str) -> AsyncIterator[BlobEntry]:
        """The blobs whose names begin with `prefix`: a kind and a slash, with or without the beginning of an id."""
        ...

    async def sweep(self, before: float) -> int:
        """Remove what writes left that ended without a clean-up (a killed process) before then. Returns how many."""
        ...

    async def probe(self) -> None:
        """Raises StorageUnavailableError or StorageFullError where nothing could be written now."""
        ...

    async def close(self) -> None: ...


class Digests:
    """The size and digests of what passes through."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False)

    def update(self, piece: bytes) -> None:
        self.size += len(piece)
        self._sha256.update(piece)
        self._md5.update(piece)

    def summary(self) -> BlobSummary:
        return BlobSummary(self.size, self._sha256.hexdigest(), self._md5.hexdigest())


def check_name(name: str) -> str:
    """Names come from our own ids. Raises ValueError for any other: it could leave the folder."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not the name of a blob: {name[:200]!r}")
    return name
