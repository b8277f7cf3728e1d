"""Where the configuration comes from, and how a process learns that it changed.

Gateway and worker depend on `ConfigSource` alone. `FileSource` reads quarterdeck.yaml, on a laptop or mounted;
in a cluster `kube.config_source.ConfigMapSource` follows a ConfigMap through the API.
"""

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, TypeVar

from quarterdeck.settings.config import Config
from quarterdeck.settings.drop_ins import DropIns, Stamps, folder_of
from quarterdeck.settings.environment import Environment
from quarterdeck.settings.files import TRANSIENT
from quarterdeck.settings.loading import ConfigError, load
from quarterdeck.settings.packaged import config_path

POLL_SECONDS = 1.0
"""Between two looks at the file's modification time. A reload within a second needs no inotify."""

T = TypeVar("T")
Stamp = tuple[int, int, int]


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
    """A YAML file, and a folder of models that were added beside it (`drop_ins`), polled every `poll_seconds`."""

    def __init__(self, path: Path, *, drop_ins: Path | None = None, poll_seconds: float = POLL_SECONDS) -> None:
        self._path = path
        self._drop_ins = None if drop_ins is None else DropIns(drop_ins)
        self._poll_seconds = poll_seconds
        self._seen: tuple[Stamp | None, Stamps] | None = None
        self._is_due = asyncio.Event()

    def read(self) -> Config:
        self._seen = self._stamps()  # before the files are read: a change in between is seen by the next poll
        try:
            config = load(self._path) if self._drop_ins is None else self._drop_ins.load(self._path)
            if self._drop_ins is not None and self._drop_ins.is_stale:
                self._seen = None
            return config
        except ConfigError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno in TRANSIENT:
                self._seen = None  # for the next poll
            raise

    async def changed(self) -> Config:
        while not await self._refreshed():
            if await asyncio.to_thread(self._stamps) != self._seen:
                break
        return await in_thread(self.read)

    def refresh(self) -> None:
        self._is_due.set()

    def _stamps(self) -> tuple[Stamp | None, Stamps]:
        return stamp(self._path), () if self._drop_ins is None else self._drop_ins.stamps()

    async def _refreshed(self) -> bool:
        """Wait until `refresh` was called, or for one poll."""
        try:
            async with asyncio.timeout(self._poll_seconds):
                await self._is_due.wait()
        except TimeoutError:
            return False
        self._is_due.clear()
        return True


def file_source(environment: Environment) -> FileSource:
    """This machine's configuration: quarterdeck.yaml and the models added in the state folder."""
    return FileSource(config_path(environment), drop_ins=folder_of(environment.state))


async def in_thread(read: Callable[[], T]) -> T:
    """Read in a thread: parsing a long file would hold up every stream of this loop. The thread is a daemon, unlike
    those of `asyncio.to_thread`, so that the process can exit while a file system does not answer."""
    loop = asyncio.get_running_loop()
    result: asyncio.Future[T] = loop.create_future()

    def finish(set_it: Callable[[Any], None], value: Any) -> None:
        if not result.done():  # cancelled
            set_it(value)

    def run() -> None:
        # Broad: whatever it is, the caller gets it.
        outcome: tuple[Callable[[Any], None], Any]
        try:
            outcome = (result.set_result, read())
        except Exception as error:
            outcome = (result.set_exception, error)
        with contextlib.suppress(RuntimeError):  # the loop is closed: the process is about to exit
            loop.call_soon_threadsafe(finish, *outcome)

    threading.Thread(target=run, name="configuration", daemon=True).start()
    return await result


def stamp(path: Path) -> Stamp | None:
    """Changes with the file, and when a symbolic link is moved to another file, as Kubernetes does with a ConfigMap's.
    None: there is no file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
