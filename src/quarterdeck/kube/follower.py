"""Keeps the objects that a selector matches as the API server has them: a list, then watches from there.

Whatever goes wrong, the last known objects stay: an API server that is away, slow or lying takes nothing from who reads
them. A version that is too old (410) leads to a new list; other failures are retried after a pause that grows, with
jitter, so that the followers of a restarted API server don't all come at once.
"""

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from random import random as unseeded
from typing import Generic, Protocol, TypeVar

from quarterdeck.kube.api import KubeApi, KubeError, Metadata

log = logging.getLogger(__name__)

FIRST_PAUSE = 0.25
MAX_PAUSE = 8.0
"""Seconds. Short, because a follower is one of few, and a change should not wait long for an API server's return."""
RELIST_SECONDS = 600.0
"""Between two lists, whatever the watches brought: after etcd was restored from a backup, versions go backwards, and a
watch from one of before is silent."""
REFUSALS = 5
"""Answers in a row that refuse a watch, whatever for, after which the objects are listed again."""
SHORT_WATCH_SECONDS = 1.0
"""A watch that ended sooner and brought nothing counts as a failure: else a server that ends each at once would be
asked in a tight loop."""


class KubeObject(Protocol):
    @property
    def metadata(self) -> Metadata: ...


O = TypeVar("O", bound=KubeObject)  # noqa: E741


class ObjectFollower(Generic[O]):
    """The objects by name, and why they may be old. `on_change` is called without arguments after each change, and when
    they have been listed."""

    def __init__(
        self,
        api: KubeApi,
        path: str,
        type: type[O],
        *,
        what: str,
        query: Mapping[str, str] | None = None,
        on_change: Callable[[], None],
        random: Callable[[], float] = unseeded,
        pause: float = FIRST_PAUSE,
    ) -> None:
        """`what`: how the log names them, such as "endpoints"."""
        self._api = api
        self._path = path
        self._type = type
        self._what = what
        self._query = query
        self._on_change = on_change
        self._random = random
        self._first_pause = self._pause = pause
        self._version: str | None = None
        self._list_at = 0.0
        """The loop's time of the next list."""
        self._refusals = 0
        self.objects: Mapping[str, O] = {}
        """Replaced with each change, never modified."""
        self.is_synced = False
        """Whether they have been listed once."""
        self.error: str | None = None
        """Why the last request failed. None: it did not."""

    def seed(self, objects: Iterable[O]) -> None:
        """What is known from earlier, until the objects have been listed."""
        self.objects = {each.metadata.name: each for each in objects}

    async def run(self) -> None:
        """Follow until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            began = loop.time()
            try:
                if self._version is None or began >= self._list_at:
                    await self._list()
                was_quiet = not await self._watch()
            except KubeError as error:
                await self._failed(error)
                continue
            if was_quiet and loop.time() - began < SHORT_WATCH_SECONDS:
                await self._sleep(0.0)
            else:
                self._pause = self._first_pause

    async def _list(self) -> None:
        found, version = await self._api.list(self._path, self._type, self._query)
        self.objects = {each.metadata.name: each for each in found}
        self._version = version
        self._list_at = asyncio.get_running_loop().time() + RELIST_SECONDS * (0.75 + self._random() / 2)
        self.is_synced = True
        self._succeeded()
        self._on_change()

    async def _watch(self) -> bool:
        """One watch. Returns whether it brought anything."""
        assert self._version is not None  # noqa: S101  # listed before
        has_brought = False
        async for event in self._api.watch(self._path, self._type, self._version, self._query):
            has_brought = True
            self._pause = self._first_pause
            self._version = event.version or self._version
            self._refusals = 0
            self._succeeded()
            if event.object is None:
                continue
            objects = dict(self.objects)
            name = event.object.metadata.name
            if event.type == "DELETED":
                objects.pop(name, None)
            else:
                objects[name] = event.object
            self.objects = objects
            self._on_change()
        return has_brought

    def _succeeded(self) -> None:
        if self.error is not None:
            self.error = None
            log.info("following %s again", self._what)

    async def _failed(self, error: KubeError) -> None:
        self._refusals += bool(error.status)
        if error.is_gone or self._refusals >= REFUSALS:
            self._version, self._refusals = None, 0
        if error.is_gone:
            log.debug("listing %s again: %s", self._what, error)
        else:
            if self.error is None:
                log.warning("can't follow %s, keeping what is known: %s", self._what, error)
            self.error = str(error)
        await self._sleep(error.retry_after)

    async def _sleep(self, least: float) -> None:
        pause = max(least, self._pause * (0.5 + self._random() / 2))
        self._pause = min(2 * self._pause, MAX_PAUSE)
        await asyncio.sleep(pause)
