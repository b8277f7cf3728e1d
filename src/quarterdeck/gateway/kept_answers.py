"""The kept answers of an org, for its admins. Whoever asks while Redis is away is told so."""

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.store import CacheSize
from quarterdeck.net.redis import Redis, RedisError, RedisUnavailableError


class KeptAnswers:
    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def held(self, org: str) -> CacheSize:
        """How many there are, and of what size. Raises ServiceUnavailableError."""
        try:
            return await store.size(self._redis, org)
        except (RedisUnavailableError, RedisError) as error:
            raise _away() from error

    async def purge(self, org: str, *, model: str | None = None, key: str | None = None) -> int:
        """Forget all, one model's, or one; how many. Raises ServiceUnavailableError: some may be gone already."""
        try:
            return await store.purge(self._redis, org, model=model, key=key)
        except (RedisUnavailableError, RedisError) as error:
            raise _away() from error


def _away() -> ServiceUnavailableError:
    return ServiceUnavailableError("The cache can't be reached at the moment.", code="cache_unavailable")
