"""quarterdeck.yaml while the gateway runs: a changed file is read; a good one takes over whole, a bad one is refused.

What was refused is said in the log (with the lines), in a metric and in `/readyz`, and the last good file holds.
"""

import asyncio
import logging
import os
from collections.abc import Callable
from pathlib import Path

from quarterdeck.settings.config import Config
from quarterdeck.settings.loading import ConfigError, load

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0

_Stamp = tuple[int, int, int]


class ConfigFile:
    """`adopt` is given each new configuration; `on_outcome` is told `applied` or `refused`."""

    def __init__(
        self, path: Path, adopt: Callable[[Config], None], on_outcome: Callable[[str], None] = lambda outcome: None
    ) -> None:
        self._path = path
        self._adopt = adopt
        self._on_outcome = on_outcome
        self._seen = _stamp(path)
        self._asked = asyncio.Event()
        self.error: str | None = None
        """Why the file as it stands is refused. None: it is in force."""

    def reload(self) -> None:
        """Read it now, changed or not (SIGHUP)."""
        self._asked.set()

    async def run(self) -> None:
        """Look each second, until cancelled."""
        while True:
            is_asked = await self._wait()
            stamp = await asyncio.to_thread(_stamp, self._path)
            if is_asked or stamp != self._seen:
                self._seen = stamp
                await self.read()

    async def read(self) -> None:
        """Read the file and adopt it, or say why not."""
        try:
            # In a thread: a long file takes the YAML parser longer than a stream should wait for its next token.
            config = await asyncio.to_thread(load, self._path)
        except ConfigError as error:
            self.error = str(error)
            self._on_outcome("refused")
            log.error("the configuration is refused, the last good one holds: %s", error)
            return
        self._adopt(config)
        self.error = None
        self._on_outcome("applied")
        log.info("the configuration was reloaded: %d models", len(config.models))

    async def _wait(self) -> bool:
        try:
            async with asyncio.timeout(LOOK_SECONDS):
                await self._asked.wait()
        except TimeoutError:
            return False
        self._asked.clear()
        return True


def _stamp(path: Path) -> _Stamp | None:
    """What changes when the file does, also when a link is moved to another one, as a ConfigMap's is."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size, found.st_ino)
