"""Reads keys from the database: one read for all who wait for the same key, numbered in the order of their start.

Keys that are looked up by digest while others are being looked up wait and are read together: most of them are unknown
where a caller tries thousands of keys, and a valid key that is not in memory must not wait for a query for each.
"""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from typing import Any, Protocol

from quarterdeck.store.keys import KeyRow

FIND_AT_ONCE = 200
"""Digests in one query: two or three milliseconds of the loop."""
MAX_FINDS = 2
"""Queries for digests at once: a slow one does not hold up all others."""
_FINDS = tuple(f"find {number}" for number in range(MAX_FINDS))


class Keys(Protocol):
    """What is needed of the key store. All raise ServiceUnavailableError where the database is away."""

    async def find_all(self, digests: Sequence[str]) -> dict[str, KeyRow]: ...

    async def retrieve(self, id: str, *, org: str) -> KeyRow:
        """Raises NotFoundError."""
        ...

    async def retrieve_all(self, ids: Sequence[str]) -> dict[str, KeyRow]: ...


class KeyReader:
    """Each read returns its number and what it brought, and raises ServiceUnavailableError."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._running: dict[str, asyncio.Task[Any]] = {}
        """By id and revision, or by the name of a background task or of a query for digests."""
        self._finding: dict[str, asyncio.Future[tuple[int, KeyRow | None]]] = {}
        """By digest: looked up now, or waiting."""
        self._waiting: list[str] = []
        """Digests for the next query."""
        self.started = 0
        """How many reads have started: the number of the latest."""

    async def find(self, digest: str) -> tuple[int, KeyRow | None]:
        future = self._finding.get(digest)
        if future is None:
            future = self._finding[digest] = asyncio.get_running_loop().create_future()
            self._waiting.append(digest)
            free = [name for name in _FINDS if not self._is_running(name)]
            if free:
                self._start(free[0], self._find_waiting())
        return await asyncio.shield(future)

    async def retrieve(self, key_id: str, *, org: str, revision: int) -> tuple[int, KeyRow]:
        """One read for each revision. Raises NotFoundError."""
        number, row = await self._shared(f"{key_id}@{revision}", lambda: self._keys.retrieve(key_id, org=org))
        return number, row

    async def retrieve_now(self, key_id: str, *, org: str) -> KeyRow:
        """A read of its own, without a number. Raises NotFoundError."""
        return await self._keys.retrieve(key_id, org=org)

    async def retrieve_all(self, key_ids: Sequence[str]) -> tuple[int, dict[str, KeyRow]]:
        return await self._numbered(lambda: self._keys.retrieve_all(key_ids))

    def in_background(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start the work unless it is running. Its errors are its own."""
        if not self._is_running(name):
            self._start(name, work())

    async def close(self) -> None:
        """Cancel what is running."""
        for task in tuple(self._running.values()):
            task.cancel()
        await self.idle()

    async def idle(self) -> None:
        """Wait until what is running has finished, successfully or not."""
        await asyncio.gather(*self._running.values(), return_exceptions=True)

    async def _find_waiting(self) -> None:
        while self._waiting:
            digests, self._waiting = self._waiting[:FIND_AT_ONCE], self._waiting[FIND_AT_ONCE:]
            futures = {digest: self._finding[digest] for digest in digests}
            try:
                number, rows = await self._numbered(partial(self._keys.find_all, digests))
            except BaseException as error:
                for future in futures.values():
                    if isinstance(error, asyncio.CancelledError):
                        future.cancel()
                    else:
                        future.set_exception(error)
                        future.exception()  # mark it retrieved: every caller may have been cancelled
                if not isinstance(error, Exception):
                    raise
            else:
                for digest, future in futures.items():
                    future.set_result((number, rows.get(digest)))
            finally:
                for digest in digests:
                    del self._finding[digest]

    async def _shared(self, name: str, read: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[int, Any]:
        """One read for all callers of the same name; a caller that is cancelled does not cancel it for the others."""
        task = self._running.get(name)
        if task is None:
            task = self._start(name, self._numbered(read))
        number, found = await asyncio.shield(task)
        return number, found

    async def _numbered(self, read: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[int, Any]:
        self.started += 1
        number = self.started
        return number, await read()

    def _is_running(self, name: str) -> bool:
        """Whether it takes more work. A task that has ended does not, though its callback, which removes it, is due."""
        task = self._running.get(name)
        return task is not None and not task.done()

    def _start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._running[name] = task

        def done(finished: asyncio.Task[Any]) -> None:
            if self._running.get(name) is task:  # else the next one has started already
                del self._running[name]
            if not finished.cancelled():
                finished.exception()  # mark it retrieved: every caller may have been cancelled

        task.add_done_callback(done)
        return task
