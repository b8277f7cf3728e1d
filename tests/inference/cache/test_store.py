"""Entries in a real Redis: kept, bounded, forgotten."""

from typing import Any

import msgspec

from quarterdeck.inference.cache import store
from quarterdeck.inference.cache.entry import Entry, encode
from quarterdeck.inference.cache.store import OVERHEAD_BYTES, Held
from quarterdeck.store.redis import Redis

ORG = "default"
ENTRY = Entry(1.0, "m", b"x" * 600)
SIZE = len(encode(ENTRY)) + OVERHEAD_BYTES
ROOM_FOR_THREE = 3.5 * SIZE / store.MIB


async def keep(redis: Redis, key: str, entry: Entry = ENTRY, *, org: str = ORG, **bounds: Any) -> bool:
    return await store.store(redis, org, key, entry, **({"ttl_seconds": 60, "max_mb": 1} | bounds))


async def there(redis: Redis, *keys: str) -> list[str]:
    return [key for key in keys if await store.fetch(redis, ORG, key) is not None]


async def test_what_is_stored_is_found_where_an_admission_looks(redis: Redis) -> None:
    assert await keep(redis, "k")
    assert await redis.call("GET", store.entry_key(ORG, "k")) == encode(ENTRY)
    assert 59_000 < await redis.call("PTTL", store.entry_key(ORG, "k")) <= 60_000
    assert await store.held(redis, ORG) == Held(1, SIZE)


async def test_the_same_key_again_replaces(redis: Redis) -> None:
    await keep(redis, "k")
    longer = msgspec.structs.replace(ENTRY, body=ENTRY.body * 2)
    await keep(redis, "k", longer)
    assert await redis.call("GET", store.entry_key(ORG, "k")) == encode(longer)
    assert await store.held(redis, ORG) == Held(1, len(encode(longer)) + OVERHEAD_BYTES)


async def test_what_would_expire_first_makes_room(redis: Redis) -> None:
    await keep(redis, "first", max_mb=ROOM_FOR_THREE)
    await keep(redis, "short", ttl_seconds=30, max_mb=ROOM_FOR_THREE)
    await keep(redis, "third", ttl_seconds=61, max_mb=ROOM_FOR_THREE)
    assert await keep(redis, "fourth", ttl_seconds=62, max_mb=ROOM_FOR_THREE)
    assert await there(redis, "first", "short", "third", "fourth") == ["first", "third", "fourth"]
    assert await store.held(redis, ORG) == Held(3, 3 * SIZE)


async def test_an_entry_larger_than_all_room_is_not_kept_and_costs_nobody_his(redis: Redis) -> None:
    await keep(redis, "k")
    assert not await keep(redis, "large", max_mb=0.9 * SIZE / store.MIB)
    assert await there(redis, "k", "large") == ["k"]


async def test_what_has_expired_is_counted_until_the_next_is_stored(redis: Redis) -> None:
    await keep(redis, "old", ttl_seconds=0.001)
    while await redis.call("EXISTS", store.entry_key(ORG, "old")):
        pass
    await keep(redis, "new")
    assert await store.held(redis, ORG) == Held(1, SIZE)


async def test_a_sum_without_entries_is_forgotten(redis: Redis) -> None:
    await redis.call("SET", "cache-bytes:{default}", 10**9)
    assert await keep(redis, "k")
    assert await store.held(redis, ORG) == Held(1, SIZE)


async def test_all_of_an_org_is_purged_and_nothing_of_another(redis: Redis) -> None:
    for number in range(30):
        await keep(redis, f"k{number}")
    await keep(redis, "k0", org="acme")
    assert await store.purge(redis, ORG) == 30
    assert await store.held(redis, ORG) == Held(0, 0)
    assert await there(redis, "k0") == []
    assert await store.held(redis, "acme") == Held(1, SIZE)


async def test_one_model_or_one_answer_is_purged(redis: Redis) -> None:
    await keep(redis, "a")
    await keep(redis, "b", msgspec.structs.replace(ENTRY, model="n"))
    await keep(redis, "c", msgspec.structs.replace(ENTRY, model="n"))
    assert await store.purge(redis, ORG, key="b", model="m") == 0
    assert await store.purge(redis, ORG, key="b") == 1
    assert await store.purge(redis, ORG, key="b") == 0
    assert await store.purge(redis, ORG, model="n") == 1
    assert await there(redis, "a", "b", "c") == ["a"]


async def test_keys_of_an_org_share_its_slot(redis: Redis) -> None:
    await keep(redis, "k")
    keys = await redis.call("KEYS", "*")
    assert len(keys) == 4 and all(b":{default}" in key for key in keys)
