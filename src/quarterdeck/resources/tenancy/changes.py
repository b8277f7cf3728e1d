"""Changes of keys, teams and organisations, announced to all gateways.

The database is the truth, and an organisation's revision in Redis says that it has changed: every admission reads it.
What changed is published beside it, so that gateways read that again at once, also for requests without an admission.
A lost message costs no correctness: the revision and the age of a cached key still have it read again.
"""

import logging
from collections.abc import Sequence
from typing import Protocol

import msgspec

from quarterdeck.accounting.revisions import Redis, bump_revision
from quarterdeck.accounting.scopes import team_scope
from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.net.redis import RedisError, RedisUnavailableError
from quarterdeck.settings.limits import Budget

log = logging.getLogger(__name__)

CHANNEL = "quarterdeck:revisions"


class Change(msgspec.Struct, frozen=True, omit_defaults=True):
    """What was changed: a key, a team, or the organisation itself if neither is given."""

    org: str
    key: str | None = None
    team: str | None = None
    remade: float | None = None
    """The team's `TeamRow.remade`."""
    revision: int = 0
    """The organisation's after the change was published. 0: not published."""


def decode_change(message: bytes) -> Change:
    """A message of CHANNEL. Raises ValueError if it is malformed or of a newer version."""
    revision, _, change = message.partition(b" ")
    return msgspec.structs.replace(msgspec.json.decode(change, type=Change), revision=int(revision))


class Publisher(Protocol):
    """Tells the other gateways."""

    async def publish(self, change: Change, *, unspent: Budget | None = None) -> None: ...


class RedisPublisher:
    """Counts the organisation's revision up and publishes the change."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def publish(self, change: Change, *, unspent: Budget | None = None) -> None:
        """Called once the change is committed. `unspent`: the budget of a new object. Never fails: gateways read their
        keys again in any case."""
        scope = f"key:{change.key}" if change.key else team_scope(change.team, change.remade) if change.team else "org"
        message = msgspec.json.encode(change)
        try:
            await bump_revision(self._redis, change.org, scope, channel=CHANNEL, message=message, unspent=unspent)
        except (RedisUnavailableError, RedisError) as error:
            log.warning("could not publish change; peers will poll: %s", error)


class CachedKeys(Protocol):
    """This process' own cache of keys."""

    async def catch_up(self, changes: Sequence[Change] | None) -> None:
        """Raises ServiceUnavailableError."""
        ...

    def forget(self, key_id: str) -> None: ...


class Announcer:
    """Makes a committed change take effect here before the response is sent, and elsewhere soon after."""

    def __init__(self, cached_keys: CachedKeys, publisher: Publisher) -> None:
        self._cached_keys = cached_keys
        self._publisher = publisher

    async def announce(self, change: Change, *, unspent: Budget | None = None) -> None:
        """`unspent`: the budget of a new key, team or organisation, whose spending needs no recount."""
        try:
            await self._cached_keys.catch_up([change])
        except ServiceUnavailableError:  # the database went away after the commit: the cached key is stale
            if change.key is not None:
                self._cached_keys.forget(change.key)
        await self._publisher.publish(change, unspent=unspent)
