"""Who asks: from the Authorization header to a Principal. The database is not on the way of a key that is known.

A digest is looked up in a bounded cache, then in the database, once for all who wait for it. What was found is used for
thirty seconds and then read again in the background; while the database is away it goes on being used, because a dead
database must not turn a valid key into a 401. What was not found is remembered for five seconds.

A change does not wait for that: gateways tell one another what has changed, and it is read again (`catch_up`). And
where no word comes, admission learns the org's revision with every request, and a key that was read before it is read
again (`reread`) before the request goes on.

Readings are numbered as they begin: a row that was asked for before another never replaces what that one brought.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any, NamedTuple, Protocol

from quarterdeck import ids
from quarterdeck.accounting.principal import Principal
from quarterdeck.errors import AuthenticationError, NotFoundError, ServiceUnavailableError
from quarterdeck.gateway.auth.invalidation import Change
from quarterdeck.resources.tenancy.principals import principal_of
from quarterdeck.settings.config import Config
from quarterdeck.settings.live import Live
from quarterdeck.store.keys import KeyRow

KNOWN = 10_000
"""Keys held; a row and its principal are about 2 KB. Beyond it, the one that was not used for longest goes."""
UNKNOWN = 10_000
FRESH_SECONDS = 30.0
UNKNOWN_SECONDS = 5.0
RETRY_SECONDS = 1.0
"""After the database did not answer, nobody asks it about the same key for so long."""
READ_AT_ONCE = 100
"""Changed keys in one question: their rows take two milliseconds, and then others have their turn."""
READ_AGAIN = 3
"""How often a key is looked up once more because something changed while it was read."""
MAX_HEADER = 1024
"""Bytes of an Authorization header that may hold a key of ours; a longer one is not looked up."""


_REFRESHING = "due"
"""Beside digests and keys' ids, the name of what reads again those that are due."""


class _Fault(NamedTuple):
    """Why a key that is known opens nothing."""

    outcome: str
    message: str


REPLACED = _Fault("revoked", "This API key has been replaced by another.")
REVOKED = _Fault("revoked", "This API key has been revoked.")
EXPIRED = _Fault("expired", "This API key has expired.")


class Keys(Protocol):
    """What is needed of the key store. All raise ServiceUnavailableError where the database is away."""

    async def find(self, digest: str) -> KeyRow | None: ...

    async def retrieve(self, id: str, *, org: str) -> KeyRow:
        """Raises NotFoundError."""
        ...

    async def retrieve_all(self, ids: Sequence[str]) -> dict[str, KeyRow]: ...


@dataclass(slots=True, eq=False)
class _Known:
    """A key as it was last read."""

    digest: str
    row: KeyRow
    principal: Principal
    config: Config
    """The configuration that the principal's limits were taken from."""
    read: float
    """The loop's clock at the reading, or at the last try."""
    begun: int
    """The number of the reading that brought the row."""


class Authenticator:
    """`on_outcome` is told how each check went: cached, found, unknown, revoked, expired, missing, unavailable."""

    def __init__(
        self,
        keys: Keys,
        config: Live[Config],
        *,
        on_outcome: Callable[[str], None] = lambda outcome: None,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._keys = keys
        self._config = config
        self._on_outcome = on_outcome
        self._wall = wall
        self._clock = clock
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._by_id: dict[str, _Known] = {}
        self._unknown: OrderedDict[str, float] = OrderedDict()
        self._reading: dict[str, asyncio.Task[Any]] = {}
        self._due: dict[str, _Known] = {}
        """Those to be read again, by digest."""
        self._readings = 0
        self._changed = 0
        """The number of readings at the last change: one that had begun by then may not have seen it."""
        self.recognised = 0
        """How often `known` knew the key: `cached`, for which nobody is called a thousand times a second."""
        self._caught_up: dict[str, int] = {}
        """Orgs whose known keys are all as new as this revision."""

    async def authenticate(self, authorization: bytes | None) -> Principal:
        """Raises AuthenticationError, or ServiceUnavailableError for a key that nobody can say anything of now."""
        try:
            digest = ids.digest(secret_of(authorization))
        except AuthenticationError:
            self._on_outcome("missing")
            raise
        known = self._known.get(digest)
        if known is None:
            known = await self._look_up(digest)
        else:
            self._known.move_to_end(digest)
            self._on_outcome("cached")
            if self._clock() - known.read > FRESH_SECONDS:
                self._refresh(known)
        return self._principal(known)

    def known(self, authorization: bytes | None) -> Principal | None:
        """The same without waiting, for a key in memory that is valid; None: `authenticate` has more to say."""
        if authorization is None or not authorization.startswith(b"Bearer ") or len(authorization) > MAX_HEADER:
            return None
        known = self._known.get(ids.digest(authorization[7:].strip()))
        if known is None or known.config is not self._config.current or self._fault(known.row) is not None:
            return None
        if self._clock() - known.read > FRESH_SECONDS:
            self._refresh(known)
        self._known.move_to_end(known.digest)
        self.recognised += 1
        return known.principal

    async def reread(self, principal: Principal, revision: int) -> Principal:
        """The key as it is now; its org is at `revision`. Raises AuthenticationError where it was revoked.

        Where the database is away the principal is good as it is: who revoked a key had a database, so this lasts as
        long as ours alone is gone.
        """
        known = self._by_id.get(principal.key)
        if known is not None and self._caught_up.get(principal.org) == revision != known.principal.revision:
            known.principal = replace(known.principal, revision=revision)
        if known is not None and known.principal.revision == revision:
            return self._principal(known)
        if known is not None and known.read > self._clock():  # the last try failed a moment ago
            return principal
        try:
            begun, row = await self._once(
                f"{principal.key}@{revision}", lambda: self._keys.retrieve(principal.key, org=principal.org)
            )
        except ServiceUnavailableError:
            self._on_outcome("unavailable")
            if known is not None:
                known.read = self._clock() + RETRY_SECONDS
            return principal
        except NotFoundError as error:
            self.forget(principal.key)
            raise _refusal("The API key no longer exists.") from error
        known = self._by_id.get(principal.key)
        if known is not None:
            self._renew(known, row, begun)
            known.principal = replace(known.principal, revision=revision)
            self._check(row, known)
        else:
            self._check(row)
        return self._principal_of(row, revision)

    async def confirm(self, principal: Principal) -> Principal:
        """The key as the database has it this moment, for what a key revoked at another gateway must not do.

        Raises AuthenticationError, or ServiceUnavailableError where the database is away.
        """
        known = self._by_id.get(principal.key)
        try:
            row = await self._keys.retrieve(principal.key, org=principal.org)
        except NotFoundError as error:
            self.forget(principal.key)
            raise _refusal("The API key no longer exists.") from error
        if row.revoked is not None:
            self.forget(principal.key)
        self._check(row, known)
        return self._principal_of(row, principal.revision)

    async def catch_up(self, changes: Sequence[Change] | None) -> None:
        """Read again what has changed (None: anything may have). Raises ServiceUnavailableError.

        Where an org's changes don't follow on the last one known, one was missed, and all of its keys are read.
        """
        self._changed = self._readings
        revisions: dict[str, int] = {}
        orgs: set[str] = set()
        for change in changes or ():
            before = revisions.get(change.org, self._caught_up.get(change.org))
            if change.revision:
                revisions[change.org] = change.revision
            if (change.key is None and change.team is None) or (change.revision and before != change.revision - 1):
                orgs.add(change.org)
        stale = list(self._by_id.values()) if changes is None else self._touched(changes, orgs)
        for start in range(0, len(stale), READ_AT_ONCE):
            await self._read_again(stale[start : start + READ_AT_ONCE])
        self._caught_up |= revisions

    def _touched(self, changes: Sequence[Change], orgs: set[str]) -> list[_Known]:
        """The known keys of the changes, and all of `orgs`."""
        teams = {(change.org, change.team) for change in changes if change.team is not None}
        ids = {change.key for change in changes if change.key is not None}
        if not teams and not orgs:
            return [known for id in ids if (known := self._by_id.get(id)) is not None]
        return [
            known
            for id, known in self._by_id.items()
            if id in ids or known.row.org in orgs or (known.row.org, known.row.team) in teams
        ]

    def forget(self, key_id: str) -> None:
        """Have the key read again when it comes next: this gateway itself has just changed it."""
        known = self._by_id.get(key_id)
        if known is not None:
            self._drop(known)

    async def close(self) -> None:
        """End what is being read in the background."""
        for task in tuple(self._reading.values()):
            task.cancel()
        await asyncio.gather(*self._reading.values(), return_exceptions=True)

    async def _look_up(self, digest: str) -> _Known:
        until = self._unknown.get(digest)
        if until is not None and self._clock() < until:
            self._on_outcome("unknown")
            raise _refusal("Incorrect API key provided.")
        try:
            begun, row = await self._once(digest, lambda: self._keys.find(digest))
            for _ in range(READ_AGAIN):
                if begun > self._changed:
                    break
                begun, row = await self._once(digest, lambda: self._keys.find(digest))
        except ServiceUnavailableError as error:
            self._on_outcome("unavailable")
            raise ServiceUnavailableError(
                "Your API key can't be checked at the moment. Please retry.",
                code="auth_unavailable",
            ) from error
        if row is None:
            self._remember_unknown(digest)
            self._on_outcome("unknown")
            raise _refusal("Incorrect API key provided.")
        self._on_outcome("found")
        known = self._keep(digest, row, begun)
        if begun <= self._changed:  # no end of changes: it is used as it is, and read again with its next request
            known.read = self._clock() - FRESH_SECONDS - RETRY_SECONDS
        return known

    def _keep(self, digest: str, row: KeyRow, begun: int) -> _Known:
        known = self._known.get(digest)
        if known is not None:  # another who waited for the same row was here first
            self._renew(known, row, begun)
            return known
        if (before := self._by_id.get(row.id)) is not None:  # it had another secret, which opens nothing any more
            self._drop(before)
        known = _Known(digest, row, self._principal_of(row, 0), self._config.current, self._clock(), begun)
        self._known[digest] = self._by_id[row.id] = known
        if len(self._known) > KNOWN:
            self._drop(next(iter(self._known.values())))
        return known

    def _renew(self, known: _Known, row: KeyRow, begun: int) -> None:
        """The key as it was read by the reading `begun`, unless a later one was here before."""
        if begun <= known.begun:
            return
        if row.digest != known.digest:
            self._drop(known)
            return
        known.begun, known.read = begun, self._clock()
        config = self._config.current
        if row != known.row or config is not known.config:  # else all that was made of the principal stays good
            known.row, known.config = row, config
            known.principal = self._principal_of(row, known.principal.revision)

    def _drop(self, known: _Known) -> None:
        if self._known.get(known.digest) is known:
            del self._known[known.digest]
        if self._by_id.get(known.row.id) is known:
            del self._by_id[known.row.id]

    def _remember_unknown(self, digest: str) -> None:
        self._unknown[digest] = self._clock() + UNKNOWN_SECONDS
        self._unknown.move_to_end(digest)
        if len(self._unknown) > UNKNOWN:
            self._unknown.popitem(last=False)

    def _principal(self, known: _Known) -> Principal:
        config = self._config.current
        if known.config is not config:
            known.principal = self._principal_of(known.row, known.principal.revision)
            known.config = config
        self._check(known.row)
        return known.principal

    def _check(self, row: KeyRow, known: _Known | None = None) -> None:
        """Raises AuthenticationError where the row is of a key that opens nothing, or no longer by the secret known."""
        fault = self._fault(row, known)
        if fault is None:
            return
        if known is not None and fault is REPLACED:
            self._drop(known)
        self._on_outcome(fault.outcome)
        raise _refusal(fault.message)

    def _fault(self, row: KeyRow, known: _Known | None = None) -> _Fault | None:
        """Why the key opens nothing; None: it is good."""
        if known is not None and row.digest != known.digest:
            return REPLACED
        if row.revoked is not None:
            return REVOKED
        if row.expires is not None and row.expires <= self._wall():
            return EXPIRED
        return None

    def _principal_of(self, row: KeyRow, revision: int) -> Principal:
        return principal_of(row, self._config.current, revision)

    # reading

    async def _once(self, name: str, read: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[int, Any]:
        """Read once for all who ask meanwhile; one of them who gives up does not end it for the others.

        Returns the reading's number and what it brought.
        """
        task = self._reading.get(name)
        if task is None:
            task = self._spawn(name, self._numbered(read))
        number, found = await asyncio.shield(task)
        return number, found

    async def _numbered(self, read: Callable[[], Coroutine[Any, Any, Any]]) -> tuple[int, Any]:
        self._readings += 1
        number = self._readings
        return number, await read()

    def _spawn(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self._reading[name] = task

        def done(finished: asyncio.Task[Any]) -> None:
            self._reading.pop(name, None)
            if not finished.cancelled():
                finished.exception()  # whoever waits has it; if all gave up, it is not an unhandled one

        task.add_done_callback(done)
        return task

    def _refresh(self, known: _Known) -> None:
        """Read the key again, with others that are due, while it goes on being used."""
        self._due[known.digest] = known
        if _REFRESHING not in self._reading:
            self._spawn(_REFRESHING, self._read_due())

    async def _read_due(self) -> None:
        while due := list(islice(self._due.values(), READ_AT_ONCE)):
            try:
                await self._read_again(due)
            except ServiceUnavailableError:
                for known in self._due.values():
                    known.read = self._clock() - FRESH_SECONDS + RETRY_SECONDS
                self._due.clear()
                raise
            for known in due:
                self._due.pop(known.digest, None)

    async def _read_again(self, stale: Sequence[_Known]) -> None:
        """Raises ServiceUnavailableError."""
        begun, rows = await self._numbered(lambda: self._keys.retrieve_all([known.row.id for known in stale]))
        for known in stale:
            row = rows.get(known.row.id)
            if row is None:
                self._drop(known)
            else:
                self._renew(known, row, begun)


def secret_of(authorization: bytes | None) -> bytes:
    """The key of an Authorization header. Raises AuthenticationError. No message holds a piece of what was sent."""
    if not authorization:
        raise AuthenticationError(
            "You didn't provide an API key. Provide it in an Authorization header: 'Authorization: Bearer YOUR_KEY'.",
            code="missing_api_key",
        )
    scheme, _, secret = authorization.partition(b" ")
    secret = secret.strip()
    if scheme.lower() != b"bearer" or not secret:
        raise AuthenticationError(
            "The Authorization header must read 'Bearer YOUR_KEY'.", code="invalid_authorization_header"
        )
    if len(authorization) > MAX_HEADER:
        raise _refusal("Incorrect API key provided.")
    return secret


def _refusal(message: str) -> AuthenticationError:
    return AuthenticationError(message, code="invalid_api_key")
