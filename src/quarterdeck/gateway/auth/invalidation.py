"""Word of changed keys, teams and orgs, between gateways.

The truth is in the database, and an org's revision in Redis says that there is a newer one: every admission brings it
along (`Authenticator.reread`). Published beside it is what has changed, so that every gateway reads that again at once,
also for requests that no admission sees. Nothing is lost where a message is: the revision, and the half minute after
which a key is read again in any case, come after it.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from quarterdeck.accounting.revisions import Redis, bump_revision
from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.net.redis import RedisError, RedisUnavailableError
from quarterdeck.settings.limits import Budget

log = logging.getLogger(__name__)

CHANNEL = "quarterdeck:revisions"
MOST_WAITING = 1000
"""Changes that wait to be read; beyond it everything is read once instead."""
RETRY_SECONDS = 1.0
"""Between two tries to read what has changed, while the database is away."""
DEAF_SECONDS = 1.0
"""While nothing can be heard (Redis is away), everything is read again so often, and at most a tenth of the time."""


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was changed: a key, a team, or (neither given) the org itself."""

    org: str
    key: str | None = None
    team: str | None = None
    revision: int = 0
    """The org's, once the change was made known. 0: it was not (yet)."""


class RedisRevisions:
    """`bump` never fails: the change itself is in the database, and gateways read their keys again in any case."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def bump(self, change: Change, *, unspent: Budget | None = None) -> None:
        """Tell all gateways. Called once the change is committed. `unspent`: the budget of a key that was made now."""
        try:
            scope = f"key:{change.key}" if change.key else f"team:{change.team}" if change.team else "org"
            message = msgspec.json.encode(change)
            await bump_revision(self._redis, change.org, scope, channel=CHANNEL, message=message, unspent=unspent)
        except (RedisUnavailableError, RedisError) as error:
            log.warning("other gateways find out by themselves what has changed: %s", error)


def change_of(message: bytes) -> Change:
    """Raises ValueError where it is none of ours."""
    revision, _, change = message.partition(b" ")
    return msgspec.structs.replace(msgspec.json.decode(change, type=Change), revision=int(revision))


class Follower:
    """Has what changed elsewhere read again, one batch after the other, so that an older reading never comes last.

    `catch_up` is given the changes, or None for everything; it raises ServiceUnavailableError where the database is
    away.
    """

    def __init__(self, catch_up: Callable[[Sequence[Change] | None], Awaitable[None]]) -> None:
        self._catch_up = catch_up
        self._waiting: list[Change] | None = []
        self._has_some = asyncio.Event()
        self._is_deaf = False
        self._is_behind = False
        self._took = 0.0

    def hear(self, message: bytes) -> None:
        """A message of CHANNEL."""
        try:
            change = change_of(message)
        except ValueError as error:  # of a newer version: something has changed, and that is enough
            log.warning("a change that can't be read, everything is read again: %s", error)
            self._miss()
            return
        if self._waiting is not None:
            self._waiting.append(change)
            if len(self._waiting) > MOST_WAITING:
                self._waiting = None
        self._has_some.set()

    def listen(self, is_listening: bool) -> None:
        """The channel is heard from now on, and before it something may have been missed; or it is not heard."""
        self._is_deaf = not is_listening
        if is_listening:
            self._miss()
        self._has_some.set()

    async def run(self) -> None:
        """Catch up with what is heard, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await self._news()
            changes, self._waiting = self._waiting, []
            began = loop.time()
            try:
                if changes != []:
                    await self._catch_up(changes)
            except Exception as error:  # broad: a row that only a newer version can read must end no gateway
                if not self._is_behind:
                    is_away = isinstance(error, ServiceUnavailableError)
                    log.warning("what has changed can't be read: %s", error, exc_info=not is_away)
                self._is_behind = True
                # Whatever is heard meanwhile is part of everything.
                await asyncio.sleep(RETRY_SECONDS)
                self._miss()
            else:
                self._is_behind = False
                self._took = loop.time() - began

    async def _news(self) -> None:
        """Wait until something has changed, or may have."""
        if not self._is_deaf:
            await self._has_some.wait()
        else:
            try:
                async with asyncio.timeout(max(DEAF_SECONDS, 10 * self._took)):
                    await self._has_some.wait()
            except TimeoutError:
                self._waiting = None
        self._has_some.clear()

    def _miss(self) -> None:
        self._waiting = None
        self._has_some.set()
