"""The prompts that this gateway knows, in memory: a look-up asks neither the database nor Redis.

Names, labels and rights of all prompts are held; contents of versions up to MAX_BYTES, those that labels point at
first. A version never changes, so one that is held is right for as long as its prompt exists; another one is read when
it is first named. Changes come from `gateway/auth/follower`: announced ones at once, missed ones by poll. While the
database is away the last known state is used.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import Protocol

import msgspec

from quarterdeck.errors import NotFoundError, ServiceUnavailableError
from quarterdeck.inference.prompts.reference import LATEST
from quarterdeck.inference.prompts.split import LabelTargets
from quarterdeck.store.prompt_changes import no_such_prompt
from quarterdeck.store.prompt_rows import LabelRow, PromptRow, VersionRow
from quarterdeck.templating.prompt import CompiledPrompt

log = logging.getLogger(__name__)

MAX_BYTES = 64 * 1024 * 1024
"""Of the contents in memory, as JSON; compiled they take several times as much for small ones."""
MAX_MISSING = 10_000
OVERHEAD = 8 * 1024
"""Bytes that a compiled version takes besides its content."""


class Change(Protocol):
    """What changed."""

    @property
    def prompt(self) -> str:
        """The prompt's id."""
        ...


class Prompts(Protocol):
    """What is needed of `store.prompts.PromptStore`."""

    async def revisions(self) -> dict[str, int]: ...
    async def retrieve_all(self, prompt_ids: Sequence[str]) -> Sequence[PromptRow]: ...
    async def labels(self, prompt_ids: Sequence[str]) -> dict[str, tuple[LabelRow, ...]]: ...
    async def contents(self, versions: Sequence[tuple[str, int]]) -> Sequence[VersionRow]: ...


class KnownPrompt(msgspec.Struct, frozen=True, eq=False):
    """A prompt without its versions."""

    row: PromptRow
    labels: dict[str, LabelTargets]

    @property
    def wanted(self) -> set[int]:
        """The versions to hold in memory."""
        return {self.row.latest, *(version for each in self.labels.values() for version in each.versions)}


class PromptCatalogue:
    """`store` is read by `catch_up`, and for versions that are not held."""

    def __init__(self, store: Prompts, *, max_bytes: int = MAX_BYTES) -> None:
        self._store = store
        self._by_id: dict[str, KnownPrompt] = {}
        self._by_name: dict[tuple[str, str], KnownPrompt] = {}
        self._versions: OrderedDict[tuple[str, int], tuple[CompiledPrompt, int]] = OrderedDict()
        self._bytes = 0
        self._max_bytes = max_bytes
        self._reading = asyncio.Lock()
        self._reads: dict[tuple[str, int], asyncio.Task[None]] = {}
        self._missing: set[tuple[str, int]] = set()
        """Versions that a request named and the database does not have: a caller can't have it asked again."""
        self.is_loaded = False
        """Whether prompts were read once. Until then an unknown prompt is a 503 and not a 404."""

    def __len__(self) -> int:
        return len(self._by_id)

    def find(self, org: str, team: str, ref: str, *, is_admin: bool = False) -> KnownPrompt:
        """The prompt of this name or id that a key of this team may use; an admin's key may use all of its
        organisation. Raises NotFoundError, and ServiceUnavailableError where no prompt is known yet."""
        known = self._by_name.get((org, ref)) or self._by_id.get(ref)
        if known is not None and known.row.org == org and (is_admin or known.row.is_for(team)):
            return known
        if not self.is_loaded:
            raise _unavailable()
        raise no_such_prompt(ref)

    def targets(self, known: KnownPrompt, label: str) -> LabelTargets | None:
        """What a label leads to. None: the prompt's newest version. Raises NotFoundError."""
        if (targets := known.labels.get(label)) is not None:
            return targets
        if label == LATEST:
            return None
        raise NotFoundError(
            f"The prompt '{known.row.name}' has no label '{label[:64]}'.", param="prompt.label", code="label_not_found"
        )

    def held(self, known: KnownPrompt, version: int) -> CompiledPrompt | None:
        """The version, if it is in memory."""
        key = (known.row.id, version)
        if (found := self._versions.get(key)) is None:
            return None
        self._versions.move_to_end(key)
        return found[0]

    async def read(self, known: KnownPrompt, version: int) -> CompiledPrompt:
        """The version, from the database where it is not held. Raises NotFoundError and ServiceUnavailableError."""
        if (found := self.held(known, version)) is not None:
            return found
        key = (known.row.id, version)
        if version > known.row.latest or key in self._missing:
            raise _no_such_version(known, version)
        try:
            await self._read_once(key)
        except ServiceUnavailableError as error:
            raise _unavailable() from error
        if (found := self.held(known, version)) is None:
            if len(self._missing) >= MAX_MISSING:
                self._missing.clear()
            self._missing.add(key)
            raise _no_such_version(known, version)
        return found

    async def _read_once(self, key: tuple[str, int]) -> None:
        """Read a version, once for all requests that wait for it."""
        task = self._reads.get(key)
        if task is None:
            task = self._reads[key] = asyncio.create_task(self._load([key]))
            task.add_done_callback(lambda done: self._end_read(key, done))
        await asyncio.shield(task)

    def _end_read(self, key: tuple[str, int], done: "asyncio.Task[None]") -> None:
        del self._reads[key]
        if not done.cancelled():
            done.exception()  # retrieved here too, as all who waited may have hung up

    async def catch_up(self, changes: Sequence[Change] | None) -> None:
        """Read again what changed; None: everything that did. Raises ServiceUnavailableError."""
        async with self._reading:  # one after the other, so that an older read never comes last
            if changes is not None:
                await self._refresh({change.prompt for change in changes})
                return
            revisions = await self._store.revisions()
            stale = {id for id, revision in revisions.items() if self._revision(id) != revision}
            await self._refresh(stale | (self._by_id.keys() - revisions.keys()))
            self.is_loaded = True

    def _revision(self, id: str) -> int | None:
        known = self._by_id.get(id)
        return None if known is None else known.row.revision

    async def _refresh(self, prompt_ids: Iterable[str]) -> None:
        stale = sorted(prompt_ids)
        for start in range(0, len(stale), _AT_ONCE):
            await self._refresh_some(stale[start : start + _AT_ONCE])

    async def _refresh_some(self, wanted: Sequence[str]) -> None:
        rows = {row.id: row for row in await self._store.retrieve_all(wanted)}
        labels = await self._store.labels(list(rows))
        fresh = {id: KnownPrompt(row, _targets(labels.get(id, ()))) for id, row in rows.items()}
        missing = [
            (id, version)
            for id, known in fresh.items()
            for version in sorted(known.wanted)
            if (id, version) not in self._versions
        ]
        await self._load(missing)  # before a label leads to it
        for id in wanted:
            self._replace(id, fresh.get(id))

    def _replace(self, id: str, known: KnownPrompt | None) -> None:
        self._missing -= {key for key in self._missing if key[0] == id}
        before = self._by_id.pop(id, None)
        if before is not None:
            self._by_name.pop((before.row.org, before.row.name), None)
        if known is not None:
            self._by_id[id] = self._by_name[known.row.org, known.row.name] = known
        else:
            for key in [key for key in self._versions if key[0] == id]:
                self._drop(key)

    async def _load(self, versions: Sequence[tuple[str, int]]) -> None:
        for start in range(0, len(versions), _AT_ONCE):
            some = versions[start : start + _AT_ONCE]
            for row in await self._store.contents(some):
                # In a thread: the first template imports Jinja, and a large one takes 0.2 s.
                compiled = await asyncio.to_thread(_compile, row)
                if compiled is not None:
                    self._keep((row.prompt, row.version), *compiled)

    def _keep(self, key: tuple[str, int], compiled: CompiledPrompt, size: int) -> None:
        self._drop(key)
        self._versions[key] = compiled, size
        self._bytes += size
        while self._bytes > self._max_bytes and len(self._versions) > 1:
            self._drop(next(iter(self._versions)))

    def _drop(self, key: tuple[str, int]) -> None:
        found = self._versions.pop(key, None)
        if found is not None:
            self._bytes -= found[1]


_AT_ONCE = 50


def _targets(rows: Sequence[LabelRow]) -> dict[str, LabelTargets]:
    return {row.label: LabelTargets(row.prompt, row.label, row.spec) for row in rows}


def _compile(row: VersionRow) -> tuple[CompiledPrompt, int] | None:
    try:
        return CompiledPrompt(row.spec), OVERHEAD + len(msgspec.json.encode(row.content))
    except ValueError as error:  # stored by a newer version of the platform
        log.warning("version %d of prompt %s can't be used: %s", row.version, row.prompt, error)
        return None


def _no_such_version(known: KnownPrompt, version: int) -> NotFoundError:
    return NotFoundError(
        f"The prompt '{known.row.name}' has no version {version}.",
        param="prompt.version",
        code="prompt_version_not_found",
    )


def _unavailable() -> ServiceUnavailableError:
    return ServiceUnavailableError(
        "The prompt can't be read at the moment. Please retry.", code="prompts_unavailable", retry_after=1
    )
