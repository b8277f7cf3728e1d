"""No storage of files: in a cluster, where each pod's own folder would lose them, until a store is configured."""

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from typing import NoReturn

from quarterdeck.errors import NotServedError
from quarterdeck.store.blobs.interface import BlobEntry, BlobSummary


class NoBlobs:
    put_bytes = 0

    async def put(self, name: str, pieces: AsyncIterable[bytes]) -> BlobSummary:
        _refuse()

    async def open(self, name: str, start: int = 0, end: int | None = None) -> AsyncGenerator[bytes]:
        _refuse()

    async def delete(self, name: str) -> None:
        _refuse()

    async def entries(self, prefix: str) -> AsyncIterator[BlobEntry]:
        nothing: tuple[BlobEntry, ...] = ()
        for entry in nothing:
            yield entry

    async def sweep(self, before: float) -> int:
        return 0

    async def probe(self) -> None: ...

    async def close(self) -> None: ...


def _refuse() -> NoReturn:
    raise NotServedError(
        "Files are not served here: no storage is configured (QUARTERDECK_BLOBS).", code="files_not_configured"
    )
