"""Removes what files leave: those that have expired, uploads that were not completed, and blobs that belong to none.

Any number of workers may sweep at once: each step is repeatable. Once a day one of them compares the files with the
storage: a file whose content is gone says so from then on, and is as before if the content comes back (a volume that
was not mounted). Blobs that the database does not know are never deleted: they may be another installation's.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping

from quarterdeck.errors import StorageUnavailableError
from quarterdeck.store.blobs.interface import Blobs
from quarterdeck.store.database import DatabaseUnavailableError
from quarterdeck.store.files import CLOCKS_SECONDS, FileStore
from quarterdeck.store.leases import LeaseStore
from quarterdeck.store.uploads import UploadStore
from quarterdeck.worker.conditions import Condition, pause

log = logging.getLogger(__name__)

SWEEP_SECONDS = 30.0
PARTIAL_SECONDS = 3600.0
"""After which what a killed process left half written is removed. Each piece of a slow client comes sooner."""
CHECK_SECONDS = 24 * 3600.0


class FileSweepLoop:
    """`leases`: of the daily check."""

    def __init__(
        self,
        files: FileStore,
        uploads: UploadStore,
        blobs: Blobs,
        leases: LeaseStore,
        condition: Condition,
        *,
        on_usage: Callable[[Mapping[str, int]], None] = lambda usages: None,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`on_usage` is called with the bytes that each organisation uses."""
        self._files = files
        self._uploads = uploads
        self._blobs = blobs
        self._leases = leases
        self._condition = condition
        self._on_usage = on_usage
        self._wall = wall
        self._next_check = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.turn()
            await pause(stop, SWEEP_SECONDS)

    async def turn(self) -> None:
        try:
            await self._sweep()
            self._on_usage(await self._files.usages())
            now = self._wall()
            if now >= self._next_check:
                if await self._leases.take("file check", CHECK_SECONDS / 2):
                    await self.check()
                self._next_check = now + CHECK_SECONDS
            self._condition.ok()
        except (DatabaseUnavailableError, StorageUnavailableError) as error:
            self._condition.failed(str(error))
        except Exception as error:  # an error boundary, as in stream_loop: an unexpected error must not end the worker
            self._condition.failed(f"{type(error).__name__}: {error}", trace=error)

    async def check(self) -> None:
        """Note which files have lost their contents, and which have them again. Raises StorageUnavailableError where
        none of them is there: that is another storage than the gateways'."""
        # A file that is made while the storage is listed may be in the database only. Its clock is a gateway's.
        before = self._wall() - CLOCKS_SECONDS
        there = {entry.name async for entry in self._blobs.entries("files/")}
        if not there:
            if await self._files.has_any(created_before=before):
                raise StorageUnavailableError("the storage has no content of any file: do gateways use another?")
            return
        last = ""
        lost = 0
        while rows := await self._files.blobs_after(last):
            last = rows[-1][0]
            for is_missing in (True, False):
                changed = [
                    id
                    for id, blob, was, created in rows
                    if (blob not in there) is is_missing and was is not is_missing and created < before
                ]
                if changed:
                    await self._files.note_missing(changed, is_missing=is_missing)
                lost += len(changed) if is_missing else 0
            there.difference_update(blob for _, blob, *_ in rows)
        if lost:
            log.error("the contents of %d files are missing from the storage", lost)
        pending = set(await self._files.unclaimed(there))
        if unknown := len(there) - len(pending):
            log.warning("%d blobs in the storage belong to no file of this database; they are left alone", unknown)

    async def _sweep(self) -> None:
        now = self._wall()
        while count := await self._uploads.expire(now):
            log.info("%d uploads expired", count)
        while gone := await self._files.delete_expired(now):
            log.info("deleted %d expired files", len(gone))
        while due := await self._files.due_blobs(now):
            for blob in due:
                await self._blobs.delete(blob)
            await self._files.forget_blobs(due)
        if count := await self._blobs.sweep(now - PARTIAL_SECONDS):
            log.info("removed %d contents that were not written to their end", count)
