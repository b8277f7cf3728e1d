"""Deletes the results of a request, a user or a session from batches: from rows of batches that go on, and from the
files of those that have ended.

A result without content stays in its place, with the error `content_deleted`: each line of the input has its line. A
file is written again without the contents, under its id.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import suppress

from quarterdeck.errors import NotFoundError
from quarterdeck.protocol.batches.results import without_content
from quarterdeck.resources.files.service import Files
from quarterdeck.store.batch_contents import BatchContents
from quarterdeck.store.batches import BatchRow
from quarterdeck.store.contents import Deletion
from quarterdeck.store.files import FileRow


class ResultDeletion:
    """`apply` may be repeated: a repetition finds nothing more."""

    def __init__(self, contents: BatchContents, files: Files) -> None:
        self._contents = contents
        self._files = files

    async def apply(self, deletion: Deletion) -> int:
        """Returns how many results lost their contents. Raises ServiceUnavailableError of the database and of the
        storage."""
        count = 0
        for batch in await self._contents.batches(deletion):
            requests = await self._contents.requests(deletion, batch)
            if not requests:
                continue
            count += await self._contents.clear_lines(batch.id, requests, without_content)
            for file in (batch.output_file, batch.error_file):
                if file is not None:
                    count += await self._clear_file(batch, file, requests)
        return count

    async def _clear_file(self, batch: BatchRow, file: str, requests: Collection[str]) -> int:
        former = None
        while True:
            try:
                row = await self._files.retrieve(file, batch.owner)
            except NotFoundError:  # it has expired, or was deleted
                return 0
            if row.blob == former:  # the storage has lost its content
                return 0
            former = row.blob
            with suppress(NotFoundError):  # it was deleted; or another deletion has replaced it: then it is read again
                count = 0
                async for text in self._lines(row):
                    count += without_content(text, requests) is not None
                if count:
                    await self._files.replace(row, batch.owner, self._cleared(row, requests))
                return count

    async def _cleared(self, row: FileRow, requests: Collection[str]) -> AsyncIterator[bytes]:
        async for text in self._lines(row):
            yield (without_content(text, requests) or text) + b"\n"

    async def _lines(self, row: FileRow) -> AsyncIterator[bytes]:
        pieces = await self._files.open(row)
        begun: list[bytes] = []
        try:
            async for piece in pieces:
                first, *others = piece.split(b"\n")
                begun.append(first)
                for each in others:
                    yield b"".join(begun)
                    begun = [each]
        finally:
            await pieces.aclose()
