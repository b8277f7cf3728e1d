"""The keys of one gateway as they were last read, and the digests that are no key's. Both bounded; no I/O.

Reads are numbered in the order in which they start. A row that an older read brings never replaces a newer one's.
"""

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace

from quarterdeck.accounting.principal import Principal
from quarterdeck.resources.tenancy.principals import principal_of
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.store.keys import KeyRow

MAX_KEYS = 10_000
"""A row and its principal take about 2 KB. Beyond it the least recently used key is dropped."""
MAX_UNKNOWN = 10_000
UNKNOWN_SECONDS = 5.0
"""How long a digest that is no key's is refused without another read."""


@dataclass(slots=True, eq=False)
class CachedKey:
    """A key as it was last read."""

    digest: str
    row: KeyRow
    principal: Principal
    config: Config
    """The configuration that the principal was computed with."""
    read_at: float
    """By the loop's clock. In the future after a read that failed: none is tried until then."""
    read_number: int
    """Of the read that brought the row."""


class KeyCache:
    """`clock` is the event loop's. The tables are public because the hot path looks keys up by digest."""

    def __init__(
        self,
        config: Live[Config],
        *,
        clock: Callable[[], float],
        max_keys: int = MAX_KEYS,
        max_unknown: int = MAX_UNKNOWN,
    ) -> None:
        self._config = config
        self._clock = clock
        self._max_keys = max_keys
        self._max_unknown = max_unknown
        self.by_digest: OrderedDict[str, CachedKey] = OrderedDict()
        """Most recently used last."""
        self.by_id: dict[str, CachedKey] = {}
        self.unknown: OrderedDict[str, float] = OrderedDict()
        """Digests that are no key's, and until when that is believed."""

    def keep(self, digest: str, row: KeyRow, read_number: int) -> CachedKey:
        """Store what a read brought for a digest."""
        if (key := self.by_digest.get(digest)) is not None:  # another caller waited for the same read
            self.renew(key, row, read_number)
            return key
        if (before := self.by_id.get(row.id)) is not None:  # the key's previous secret, which is no longer valid
            self.drop(before)
        config = self._config.current
        key = CachedKey(digest, row, principal_of(row, config, 0), config, self._clock(), read_number)
        self.by_digest[digest] = self.by_id[row.id] = key
        if len(self.by_digest) > self._max_keys:
            self.drop(next(iter(self.by_digest.values())))
        return key

    def renew(self, key: CachedKey, row: KeyRow, read_number: int) -> None:
        """Replace the row by what a read brought, unless a later read has already. Drops the key if it was rotated."""
        if read_number <= key.read_number:
            return
        if row.digest != key.digest:
            self.drop(key)
            return
        key.read_number, key.read_at = read_number, self._clock()
        config = self._config.current
        if row != key.row or config is not key.config:  # else the principal stays the same object, and what hangs on it
            key.row, key.config = row, config
            key.principal = principal_of(row, config, key.principal.revision)

    def set_revision(self, key: CachedKey, revision: int) -> None:
        key.principal = replace(key.principal, revision=revision)

    def principal(self, key: CachedKey) -> Principal:
        """The key's principal by the configuration in force."""
        config = self._config.current
        if key.config is not config:
            key.principal = principal_of(key.row, config, key.principal.revision)
            key.config = config
        return key.principal

    def drop(self, key: CachedKey) -> None:
        if self.by_digest.get(key.digest) is key:
            del self.by_digest[key.digest]
        if self.by_id.get(key.row.id) is key:
            del self.by_id[key.row.id]

    def keep_unknown(self, digest: str) -> None:
        """No key has this digest, for the next UNKNOWN_SECONDS."""
        self.unknown[digest] = self._clock() + UNKNOWN_SECONDS
        self.unknown.move_to_end(digest)
        if len(self.unknown) > self._max_unknown:
            self.unknown.popitem(last=False)

    def is_unknown(self, digest: str) -> bool:
        until = self.unknown.get(digest)
        return until is not None and self._clock() < until
