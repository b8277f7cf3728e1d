"""An org's revision in Redis: counted up with each change of its keys, teams and terms, and read by every admission."""

from collections.abc import Sequence
from typing import Any, Protocol

from quarterdeck.accounting.periods import period_kind
from quarterdeck.accounting.redis_keys import cold_key, money_key, revision_key
from quarterdeck.accounting.scripts import BUMP_REVISION
from quarterdeck.net.redis import Script
from quarterdeck.settings.limits import Budget


class Redis(Protocol):
    async def run(self, script: Script, keys: Sequence[Any], args: Sequence[Any]) -> Any: ...


async def bump_revision(
    redis: Redis, org: str, scope: str, *, channel: str, message: bytes, unspent: Budget | None = None
) -> None:
    """Count the revision up and publish `<revision> <message>` on the channel, once a change of `scope` is committed.

    Its budget is recounted, because it may have been removed and set again. `unspent` is the budget of a new key, team
    or organisation, which needs no recount. Raises RedisUnavailableError and RedisError.
    """
    keys = (revision_key(org), money_key(org, scope), cold_key(org))
    kind = 0 if unspent is None else period_kind(unspent.period)
    await redis.run(BUMP_REVISION, keys, (channel, message, scope, kind))
