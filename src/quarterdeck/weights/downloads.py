"""Downloads, as the other processes see them: a child process each, that can be cancelled and shared."""

import asyncio
import json
import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from quarterdeck.weights.errors import WeightsError
from quarterdeck.weights.local import Weights, find_local
from quarterdeck.weights.progress import Progress

log = logging.getLogger(__name__)

MAX_CHILDREN = 2
"""Downloads at once; further ones wait. Each uses several connections."""
RATE_SECONDS = 5.0
_LAST_WORDS = 4000


class Downloads:
    """Built once per process. `variables`: the environment (HF_TOKEN, HF_ENDPOINT, HF_HOME, HTTPS_PROXY, …)."""

    def __init__(self, variables: Mapping[str, str], cache: Path, python: str = sys.executable) -> None:
        self._variables, self._cache, self._python = dict(variables), cache, python
        self._running: dict[tuple[str, str | None], _Download] = {}
        self._places = asyncio.Semaphore(MAX_CHILDREN)

    def local(self, repository: str, revision: str | None = None) -> Weights | None:
        """Weights that are complete on this machine. Reads a few small files."""
        return find_local(repository, revision, self._variables, self._cache)

    async def fetch(
        self,
        repository: str,
        revision: str | None = None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
    ) -> Weights:
        """Download what is missing. Equal calls share a child process, which ends with the last of them; partial files
        stay and are resumed by the next. Raises WeightsError."""
        key = (repository, revision)
        found = self._running.get(key)
        if found is None:
            found = self._running[key] = _Download()
            found.task = asyncio.create_task(self._run(found, *key))
            found.task.add_done_callback(partial(self._forget, key, found))
        found.listeners.append(on_progress)
        on_progress(found.progress)
        assert found.task is not None  # noqa: S101  # set above
        try:
            return await asyncio.shield(found.task)
        finally:
            found.listeners.remove(on_progress)
            if not found.listeners:
                self._drop(key, found)  # before it has ended: another call must not join it
                found.task.cancel()
                await asyncio.wait([found.task])

    def in_progress(self) -> dict[str, Progress]:
        """By `repository@revision`."""
        return {
            f"{repository}@{revision or 'main'}": download.progress
            for (repository, revision), download in self._running.items()
        }

    def _drop(self, key: tuple[str, str | None], download: "_Download") -> None:
        if self._running.get(key) is download:
            del self._running[key]

    def _forget(self, key: tuple[str, str | None], download: "_Download", task: "asyncio.Task[Weights]") -> None:
        self._drop(key, download)
        if not task.cancelled():
            task.exception()  # seen, also where the last waiter was cancelled at this moment

    async def _run(self, download: "_Download", repository: str, revision: str | None) -> Weights:
        async with self._places:
            arguments = ["--cache", str(self._cache), *(["--revision", revision] if revision else [])]
            process = await asyncio.create_subprocess_exec(
                *(self._python, "-P", "-m", "quarterdeck.weights", *arguments, "--", repository),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env={**self._variables, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"},
            )
            assert process.stdout is not None and process.stderr is not None  # noqa: S101  # pipes
            errors = asyncio.create_task(_last_words(process.stderr))
            try:
                async for line in process.stdout:
                    message = json.loads(line)
                    if "total" in message:
                        download.observe(message["done"], message["total"])
                    elif "folder" in message:
                        await process.wait()
                        folder = Path(message["folder"])
                        return Weights(repository, message["revision"], folder, message["size"])
                    else:
                        raise WeightsError(message["code"], message["message"])
                status = await process.wait()
                words = await errors
                log.error("download of %s ended with status %d: %s", repository, status, words)
                last = words.splitlines()[-1] if words else "see the log"
                raise WeightsError("failed", f"The download of {repository} ended with status {status}: {last}")
            finally:
                if process.returncode is None:
                    process.kill()
                await process.stdout.read()  # to its end, so that the transport is closed
                await asyncio.gather(errors, return_exceptions=True)
                await process.wait()


class _Download:
    """A child process and who waits for it."""

    def __init__(self) -> None:
        self.task: asyncio.Task[Weights] | None = None
        self.listeners: list[Callable[[Progress], None]] = []
        self.progress = Progress()
        self._seen: deque[tuple[float, int]] = deque()

    def observe(self, done: int, total: int) -> None:
        now = time.monotonic()
        self._seen.append((now, done))
        while self._seen[0][0] < now - RATE_SECONDS:
            self._seen.popleft()
        since, at_first = self._seen[0]
        rate = (done - at_first) / (now - since) if now > since and done > at_first else None
        self.progress = Progress(done, total, rate)
        for listener in self.listeners:
            listener(self.progress)


async def _last_words(stream: asyncio.StreamReader) -> str:
    """The end of what a process writes."""
    kept = b""
    while piece := await stream.read(_LAST_WORDS):
        kept = (kept + piece)[-_LAST_WORDS:]
    return kept.decode(errors="replace").strip()
