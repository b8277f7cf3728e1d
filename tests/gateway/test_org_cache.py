"""The cache of an organisation, for its admins."""

import pytest
from tests.inference.cache.samples import store_entry

from quarterdeck.errors import ServiceUnavailableError
from quarterdeck.gateway.org_cache import OrgCache
from quarterdeck.inference.cache.entry import Entry
from quarterdeck.net.redis import Redis

KEYS = ["a" * 40, "b" * 40]


async def test_the_size_and_a_purge_are_of_one_organisation(redis: Redis) -> None:
    for org in ("default", "acme"):
        for key in KEYS:
            await store_entry(redis, org, key, Entry(0.0, "chat", b"{}"), ttl_seconds=60, max_mb=1)
    cache = OrgCache(redis)
    assert (await cache.size("default")).entries == 2
    assert await cache.purge("default", key=KEYS[0]) == 1
    assert await cache.purge("default") == 1
    assert ((await cache.size("default")).entries, (await cache.size("acme")).entries) == (0, 2)


async def test_without_redis_it_is_unavailable() -> None:
    cache = OrgCache(Redis("unix:///nobody/listens/here"))
    for call in (cache.size("default"), cache.purge("default")):
        with pytest.raises(ServiceUnavailableError) as caught:
            await call
        assert caught.value.code == "cache_unavailable"
