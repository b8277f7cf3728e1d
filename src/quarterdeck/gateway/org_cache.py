"""An organisation's response cache as its admins see it."""

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.store import CacheSize
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError


class OrgCache:
    """Unlike the request path, which works without a cache, all methods raise ServiceUnavailableError while Redis is
    away."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def size(self, org: str) -> CacheSize:
        try:
            return await store.size(self._redis, org)
        except (RedisUnavailableError, RedisError) as error:
            raise _unavailable() from error

    async def purge(self, org: str, *, model: str | None = None, key: str | None = None) -> int:
        """Delete all entries, those of a model, or one; returns how many. Some may be deleted when it raises."""
        try:
            return await store.purge(self._redis, org, model=model, key=key)
        except (RedisUnavailableError, RedisError) as error:
            raise _unavailable() from error


def _unavailable() -> ServiceUnavailableError:
    return ServiceUnavailableError("The cache is temporarily unavailable.", code="cache_unavailable")
