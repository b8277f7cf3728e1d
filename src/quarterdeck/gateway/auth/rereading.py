"""Reads cached keys again: those that changed, at once; those that are old, in the background."""

from collections.abc import Callable, Sequence
from itertools import islice

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.gateway.auth.key_cache import CachedKey, KeyCache
from quarterdeck.gateway.auth.key_reader import KeyReader
from quarterdeck.resources.tenancy.changes import Change

FRESH_SECONDS = 30.0
"""A key that was read longer ago is read again while it is used: the last resort where no change is announced."""
RETRY_SECONDS = 1.0
"""After the database did not answer, the same key is not read again for so long."""
KEYS_AT_ONCE = 100
"""Keys in one query: their rows take two milliseconds of the loop."""

_DUE = "due"
"""Name of the background read; no digest and no key's id."""


class Rereading:
    """`clock` is the event loop's."""

    def __init__(self, cache: KeyCache, reader: KeyReader, *, clock: Callable[[], float]) -> None:
        self._cache = cache
        self._reader = reader
        self._clock = clock
        self._due: dict[str, CachedKey] = {}
        """Keys to be read in the background, by digest."""
        self.latest_at_change = 0
        """The number of the latest read when keys last changed: that read and earlier ones may not have seen it."""
        self.caught_up: dict[str, int] = {}
        """By organisation: the revision that all its cached keys are as new as."""

    def is_due(self, key: CachedKey) -> bool:
        return self._clock() - key.read_at > FRESH_SECONDS

    def schedule(self, key: CachedKey) -> None:
        """Read the key in the background, together with others that are due. It can be used meanwhile."""
        self._due[key.digest] = key
        self._reader.in_background(_DUE, self._read_due)

    async def catch_up(self, changes: Sequence[Change] | None) -> None:
        """Read again what changed; None: everything. Raises ServiceUnavailableError.

        If an organisation's changes don't continue its last known revision, one was missed, and all its keys are read.
        """
        self.latest_at_change = self._reader.started
        orgs, revisions = _orgs_and_revisions(changes or (), self.caught_up)
        stale = list(self._cache.by_id.values()) if changes is None else self._touched(changes, orgs)
        for start in range(0, len(stale), KEYS_AT_ONCE):
            await self._read(stale[start : start + KEYS_AT_ONCE])
        self.caught_up |= revisions

    def _touched(self, changes: Sequence[Change], orgs: set[str]) -> list[CachedKey]:
        """The cached keys of the changes, and all of `orgs`."""
        teams = {(change.org, change.team) for change in changes if change.team is not None}
        ids = {change.key for change in changes if change.key is not None}
        cached = self._cache.by_id
        if not teams and not orgs:
            return [key for id in ids if (key := cached.get(id)) is not None]
        return [
            key
            for id, key in cached.items()
            if id in ids or key.row.org in orgs or (key.row.org, key.row.team) in teams
        ]

    async def _read_due(self) -> None:
        while due := list(islice(self._due.values(), KEYS_AT_ONCE)):
            try:
                await self._read(due)
            except ServiceUnavailableError:
                for key in self._due.values():
                    key.read_at = self._clock() - FRESH_SECONDS + RETRY_SECONDS
                self._due.clear()
                raise
            for key in due:
                self._due.pop(key.digest, None)

    async def _read(self, stale: Sequence[CachedKey]) -> None:
        """Raises ServiceUnavailableError."""
        number, rows = await self._reader.retrieve_all([key.row.id for key in stale])
        for key in stale:
            row = rows.get(key.row.id)
            if row is None:
                self._cache.drop(key)
            else:
                self._cache.renew(key, row, number)


def _orgs_and_revisions(changes: Sequence[Change], caught_up: dict[str, int]) -> tuple[set[str], dict[str, int]]:
    """The organisations whose keys must all be read, and each organisation's revision after the changes."""
    orgs: set[str] = set()
    revisions: dict[str, int] = {}
    for change in changes:
        before = revisions.get(change.org, caught_up.get(change.org))
        if change.revision:
            revisions[change.org] = change.revision
        is_of_org = change.key is None and change.team is None
        if is_of_org or (change.revision and before != change.revision - 1):
            orgs.add(change.org)
    return orgs, revisions
