"""From the Authorization header to a Principal, without the database for a cached key.

A digest is looked up in the cache, then in the database. A cached key is used for 30 s and then read again in the
background; while the database is away it stays in use, because an outage must not turn a valid key into a 401.

A change does not wait for that: it is announced (`follower`), and the keys are read again (`catch_up`). And admission
learns the organisation's revision with every request: a key that was read before it is read again (`reread`) before
the request is admitted.
"""

import time
from collections.abc import Callable, Sequence

from quarterdeck import ids
from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import AuthenticationError, NotFoundError, ServiceUnavailableError
from quarterdeck.gateway.auth.decision import (
    MAX_HEADER,
    REPLACED,
    Fault,
    decide,
    fault_of,
    incorrect_key,
    refusal,
    secret_of,
)
from quarterdeck.gateway.auth.key_cache import MAX_KEYS, MAX_UNKNOWN, CachedKey, KeyCache
from quarterdeck.gateway.auth.key_reader import KeyReader, Keys
from quarterdeck.gateway.auth.rereading import FRESH_SECONDS, RETRY_SECONDS, Rereading
from quarterdeck.resources.tenancy.changes import Change
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.store.keys import KeyRow

READ_AGAIN = 3
"""How often a look-up is repeated because keys changed while it was running."""


class Authenticator:
    """`on_outcome` is called for each check with cached, found, unknown, revoked, expired, missing or unavailable."""

    def __init__(
        self,
        keys: Keys,
        config: Live[Config],
        *,
        on_outcome: Callable[[str], None] = lambda outcome: None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = MAX_KEYS,
        max_unknown: int = MAX_UNKNOWN,
        read_again: int = READ_AGAIN,
    ) -> None:
        self._config = config
        self._on_outcome = on_outcome
        self._wall = wall
        self._clock = clock
        self._read_again = read_again
        self._cache = KeyCache(config, clock=clock, max_keys=max_keys, max_unknown=max_unknown)
        self._reader = KeyReader(keys)
        self._rereading = Rereading(self._cache, self._reader, clock=clock)
        self.hits = 0
        """How often `known` returned a principal: the outcome `cached`, without a call for each."""

    async def authenticate(self, authorization: bytes | None) -> Principal:
        """Raises AuthenticationError, or ServiceUnavailableError for a key that can't be checked now."""
        try:
            digest = ids.digest(secret_of(authorization))
        except AuthenticationError:
            self._on_outcome("missing")
            raise
        key = self._cache.by_digest.get(digest)
        if key is None:
            key = await self._look_up(digest)
        else:
            self._cache.by_digest.move_to_end(digest)
            self._on_outcome("cached")
            if self._rereading.is_due(key):
                self._rereading.schedule(key)
        return self._principal(key)

    async def principal_of(self, key_id: str, *, org: str) -> Principal:
        """The principal of a key by its id, for one that was authenticated otherwise. Raises AuthenticationError where
        it is no longer valid, and ServiceUnavailableError."""
        key = self._cache.by_id.get(key_id)
        if key is None:
            try:
                number, row = await self._reader.retrieve(key_id, org=org, revision=0)
            except NotFoundError as error:
                raise _deleted() from error
            key = self._cache.keep(row.digest, row, number)
        elif self._rereading.is_due(key):
            self._rereading.schedule(key)
        return self._principal(key)

    def known(self, authorization: bytes | None) -> Principal | None:
        """The principal of a valid key in the cache, without awaiting. None: `authenticate` decides."""
        if authorization is None or not authorization.startswith(b"Bearer ") or len(authorization) > MAX_HEADER:
            return None
        cache = self._cache
        key = cache.by_digest.get(ids.digest(authorization[7:].strip()))
        if key is None or key.config is not self._config.current or fault_of(key.row, self._wall()) is not None:
            return None
        if self._clock() - key.read_at > FRESH_SECONDS:
            self._rereading.schedule(key)
        cache.by_digest.move_to_end(key.digest)
        self.hits += 1
        return key.principal

    async def reread(self, principal: Principal, revision: int) -> Principal:
        """The key as it is now; its organisation is at `revision`. Raises AuthenticationError if it was revoked.

        While the database is away the principal stays valid: another process that revokes keys has a database, so this
        lasts only as long as this one can't reach it.
        """
        key = self._cache.by_id.get(principal.key)
        if key is not None and self._rereading.caught_up.get(principal.org) == revision != key.principal.revision:
            self._cache.set_revision(key, revision)
        if key is not None and key.principal.revision == revision:
            return self._principal(key)
        if key is not None and key.read_at > self._clock():  # a read has just failed
            return principal
        try:
            number, row = await self._reader.retrieve(principal.key, org=principal.org, revision=revision)
        except ServiceUnavailableError:
            self._on_outcome("unavailable")
            if key is not None:
                key.read_at = self._clock() + RETRY_SECONDS
            return principal
        except NotFoundError as error:
            self.forget(principal.key)
            raise _deleted() from error
        key = self._cache.by_id.get(principal.key)
        if key is not None:
            self._cache.renew(key, row, number)
            self._cache.set_revision(key, revision)
        return self._decided(row, key, revision)

    async def confirm(self, principal: Principal) -> Principal:
        """The key as the database has it now, for what a key revoked at another gateway must not do.

        Raises AuthenticationError, or ServiceUnavailableError where the database is away.
        """
        key = self._cache.by_id.get(principal.key)
        try:
            row = await self._reader.retrieve_now(principal.key, org=principal.org)
        except NotFoundError as error:
            self.forget(principal.key)
            raise _deleted() from error
        if row.revoked is not None:
            self.forget(principal.key)
        return self._decided(row, key, principal.revision)

    async def catch_up(self, changes: Sequence[Change] | None) -> None:
        """Read again what changed; None: everything. Raises ServiceUnavailableError."""
        await self._rereading.catch_up(changes)

    def forget(self, key_id: str) -> None:
        """Have the key read again at its next request: this gateway has just changed it."""
        key = self._cache.by_id.get(key_id)
        if key is not None:
            self._cache.drop(key)

    async def close(self) -> None:
        """Cancel the reads in the background."""
        await self._reader.close()

    async def _look_up(self, digest: str) -> CachedKey:
        if self._cache.is_unknown(digest):
            self._on_outcome("unknown")
            raise incorrect_key()
        rereading = self._rereading
        try:
            number, row = await self._reader.find(digest)
            for _ in range(self._read_again):
                if number > rereading.latest_at_change:
                    break
                number, row = await self._reader.find(digest)
        except ServiceUnavailableError as error:
            self._on_outcome("unavailable")
            raise ServiceUnavailableError(
                "Your API key can't be checked at the moment. Please retry.", code="auth_unavailable"
            ) from error
        if row is None:
            self._cache.keep_unknown(digest)
            self._on_outcome("unknown")
            raise incorrect_key()
        self._on_outcome("found")
        key = self._cache.keep(digest, row, number)
        if number <= rereading.latest_at_change:  # keys change all the time: use it, and read it at its next request
            key.read_at = self._clock() - FRESH_SECONDS - RETRY_SECONDS
        return key

    def _principal(self, key: CachedKey) -> Principal:
        """Raises AuthenticationError."""
        principal = self._cache.principal(key)
        if (fault := fault_of(key.row, self._wall())) is not None:
            raise self._refused(fault)
        return principal

    def _decided(self, row: KeyRow, key: CachedKey | None, revision: int) -> Principal:
        """By a row that was just read; `key` is the cached one. Raises AuthenticationError."""
        decision = decide(
            row, self._config.current, self._wall(), revision=revision, digest=None if key is None else key.digest
        )
        if not isinstance(decision, Fault):
            return decision
        if key is not None and decision is REPLACED:
            self._cache.drop(key)
        raise self._refused(decision)

    def _refused(self, fault: Fault) -> AuthenticationError:
        self._on_outcome(fault.outcome)
        return refusal(fault.message)


def _deleted() -> AuthenticationError:
    return refusal("The API key no longer exists.")
