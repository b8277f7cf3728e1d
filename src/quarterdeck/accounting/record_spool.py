"""Records that Redis did not take: on disk until Redis is back, then replayed through *settle*."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from quarterdeck.accounting.commit import Note, settle_note
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.store.spool import Spool

log = logging.getLogger(__name__)


class _Line(NamedTuple):
    """A note as a line of the spool, and without its content, as it goes into space that is short."""

    whole: bytes
    short: bytes


def _line(note: Note) -> _Line:
    whole = msgspec.json.encode(note)
    if note.content is None:
        return _Line(whole, whole)
    return _Line(whole, msgspec.json.encode(msgspec.structs.replace(note, content=None)))


class RecordSpool:
    """The spool of one gateway. `on_spooled` is called with the number of records written to disk."""

    def __init__(self, redis: Redis, spool: Spool, on_spooled: Callable[[int], None]) -> None:
        self._redis = redis
        self._spool = spool
        self._on_spooled = on_spooled
        self._unwritten: list[_Line] = []
        self._being_written = 0
        self._writing = asyncio.Lock()
        self.is_full = False
        """The disk has no room for records, and Redis does not take them either: what comes now could be recorded
        nowhere but in space that is reserved for requests in flight."""
        self.failures = 0
        """How often the disk has refused records."""

    @property
    def in_memory(self) -> int:
        """The number of records that are not on disk yet."""
        return len(self._unwritten) + self._being_written

    async def add(self, note: Note) -> None:
        """Write the note to disk. Where the disk refuses, it stays in memory for the next `write` or `replay`."""
        self._unwritten.append(_line(note))
        await self.write()

    async def write(self) -> None:
        """Write what is in memory; what comes while the disk is busy goes with the next write."""
        async with self._writing:
            lines, self._unwritten = self._unwritten, []
            if not lines:
                return
            self._being_written = len(lines)
            try:
                whole, short = [line.whole for line in lines], [line.short for line in lines]
                if not await asyncio.to_thread(self._spool.append, whole, short):
                    self._fill("%d records were written to reserved space", len(lines))
            except OSError as error:
                # Without contents: memory must last until the disk has room.
                self._unwritten = [_Line(line.short, line.short) for line in lines] + self._unwritten
                self._fill("%d records are in memory only", len(self._unwritten))
                log.critical(
                    "could not write to the spool, %d records are in memory only: %s", len(self._unwritten), error
                )
                return
            finally:
                self._being_written = 0
            self._on_spooled(len(lines))

    def _fill(self, what: str, count: int) -> None:
        self.failures += 1
        if not self.is_full:
            log.critical("the spool cannot be written, new requests are refused until it can: " + what, count)
        self.is_full = True

    async def close(self) -> None:
        """Give reserved space back."""
        async with self._writing:
            await asyncio.to_thread(self._spool.close)

    async def reserve(self) -> None:
        """Keep space on the disk for when it is full."""
        if not await asyncio.to_thread(self._spool.reserve):
            log.warning("no space could be reserved for the spool: its disk is nearly full")

    async def replay(self, settle: Callable[[Note], object]) -> None:
        """Pass what is in memory to `settle`, which returns at once; then settle what is on disk, file by file.

        Returns where Redis is away; lines settled by then are recognised the next time. Raises OSError where the folder
        cannot be read.
        """
        was_full = self.is_full
        if was_full:
            try:  # a Redis that is out of memory or of disk answers, but writes nothing
                await self._redis.call("SET", "quarterdeck:spool", "1", "EX", "10")
            except (RedisUnavailableError, RedisError):
                return
            async with self._writing:
                await asyncio.to_thread(self._spool.release_reserve)
        lines, self._unwritten = self._unwritten, []
        for line in lines:
            settle(msgspec.json.decode(line.whole, type=Note))
        try:
            while (taken := await asyncio.to_thread(self._spool.take)) is not None:
                try:
                    # Before the file is read, as it may be long, and Redis is most often still away.
                    await self._redis.call("PING")
                    await self._replay_file(taken)
                finally:
                    self._spool.put_back(taken)  # does nothing once it is removed
        except (RedisUnavailableError, RedisError):
            return
        if was_full and not lines and not self._unwritten:  # else the next look shows whether they have arrived
            self.is_full = False
            await self.reserve()
            log.info("all spooled records are in Redis, requests are admitted again")

    async def _replay_file(self, taken: Path) -> None:
        lines = await asyncio.to_thread(lambda: list(self._spool.read(taken)))
        unreadable: list[bytes] = []
        for line in lines:
            try:
                note = msgspec.json.decode(line, type=Note)
            except (msgspec.DecodeError, UnicodeDecodeError):
                unreadable.append(line)
                continue
            await settle_note(self._redis, note)
        if unreadable:
            aside = await asyncio.to_thread(self._spool.set_aside, unreadable)
            log.error("%d unreadable records in the spool were moved to %s", len(unreadable), aside)
        await asyncio.to_thread(self._spool.remove, taken)
        log.info("replayed %d records from the spool", len(lines) - len(unreadable))
