"""An org's revision in Redis: a number that grows when one of its keys changes.

Every admission brings it along, so every gateway learns of the change with its next request.
"""

import logging
from typing import Any, Protocol

from quarterdeck.inference.admission import revision_key
from quarterdeck.store.redis import RedisError, RedisUnavailableError

log = logging.getLogger(__name__)


class Redis(Protocol):
    async def call(self, *words: str) -> Any: ...


class RedisRevisions:
    """`bump` never fails: the change itself is in the database, and gateways read their keys again in any case."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def bump(self, org: str) -> None:
        try:
            await self._redis.call("INCR", revision_key(org))
        except (RedisUnavailableError, RedisError) as error:
            log.warning("other gateways learn of a changed key within half a minute, not at once: %s", error)
