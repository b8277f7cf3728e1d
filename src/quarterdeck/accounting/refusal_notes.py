"""Notes that a budget refuses requests, for its alerts.

A budget that denies is never spent to the last cent: it refuses the request that could cost more than is left. So that
it is used up can be seen only by its refusals, of which nothing else remains.
"""

import logging
import time
from collections.abc import Sequence

from quarterdeck.accounting.redis_keys import refused_key
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError
from quarterdeck.net.tasks import Spawn

log = logging.getLogger(__name__)

NOTE_SECONDS = 5.0
"""Between two notes of one scope by one gateway: a caller that retries costs Redis nothing."""
KEEP_SECONDS = 86_400
"""How long a note waits for a worker."""
MAX_NOTED = 10_000
"""Scopes that are remembered as noted."""


class RefusalNotes:
    """Written by gateways, after the refused request has its answer."""

    def __init__(self, redis: Redis, spawn: Spawn) -> None:
        self._redis = redis
        self._spawn = spawn
        self._noted: dict[tuple[str, str], float] = {}

    def note(self, org: str, scope: str) -> None:
        """The budget of a scope has refused a request now."""
        now, key = time.monotonic(), (org, scope)
        if now - self._noted.get(key, -NOTE_SECONDS) < NOTE_SECONDS:
            return
        if len(self._noted) >= MAX_NOTED:
            self._noted.clear()
        self._noted[key] = now
        self._spawn(self._write(org, scope))

    async def _write(self, org: str, scope: str) -> None:
        try:
            await self._redis.call("SET", refused_key(org, scope), int(time.time()), "EX", KEEP_SECONDS)
        except (RedisUnavailableError, RedisError) as error:
            log.debug("could not note a refusal: %s", error)  # the next one is noted; Redis' outage is logged elsewhere


async def read_refusals(redis: Redis, org: str, scopes: Sequence[str]) -> list[int]:
    """When (Unix seconds) the budget of each scope refused a request last; 0: not in the last day. Raises as
    `Redis.call`."""
    if not scopes:
        return []
    found = await redis.call("MGET", *[refused_key(org, scope) for scope in scopes])
    return [int(each or 0) for each in found]
