"""Where the configuration comes from, and how a process learns that it changed.

Gateway and worker depend on `ConfigSource` alone. `FileSource` is the one of today: quarterdeck.yaml, on a laptop or
mounted from a ConfigMap.
"""

import asyncio
import os
from pathlib import Path
from typing import Protocol

from quarterdeck.settings.config import Config
from quarterdeck.settings.loading import load

POLL_SECONDS = 1.0
"""Between two looks at the file's modification time. A reload within a second needs no inotify."""

_Stamp = tuple[int, int, int]


class ConfigSource(Protocol):
    """The configuration as it is now, and its changes."""

    def read(self) -> Config:
        """Read and validate it now. Blocks. Raises ConfigError."""
        ...

    async def changed(self) -> Config:
        """Wait for a change and return the new configuration. Raises ConfigError where it is invalid; the next call
        waits for the next change."""
        ...

    def refresh(self) -> None:
        """Make `changed` return now, even if nothing changed."""
        ...


class FileSource:
    """A YAML file, polled every `poll_seconds`."""

    def __init__(self, path: Path, *, poll_seconds: float = POLL_SECONDS) -> None:
        self._path = path
        self._poll_seconds = poll_seconds
        self._seen: _Stamp | None = None
        self._is_due = asyncio.Event()

    def read(self) -> Config:
        self._seen = _stamp(self._path)  # before the file is read: a change in between is seen by the next poll
        return load(self._path)

    async def changed(self) -> Config:
        while not await self._refreshed():
            if await asyncio.to_thread(_stamp, self._path) != self._seen:
                break
        # In a thread: parsing a long file would hold up every stream of this loop.
        return await asyncio.to_thread(self.read)

    def refresh(self) -> None:
        self._is_due.set()

    async def _refreshed(self) -> bool:
        """Wait until `refresh` was called, or for one poll."""
        try:
            async with asyncio.timeout(self._poll_seconds):
                await self._is_due.wait()
        except TimeoutError:
            return False
        self._is_due.clear()
        return True


def _stamp(path: Path) -> _Stamp | None:
    """Changes with the file, and when a symbolic link is moved to another file, as Kubernetes does with a ConfigMap's.
    None: there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
